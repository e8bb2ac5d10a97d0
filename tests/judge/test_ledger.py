"""The ledger accepts exactly what fits into every window, against a naive model."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.judge.ledger import Ledger
from apiflux_grpc.judge.limits import Limit, most_in_any_window
from tests.judge.wires import MINUTE, SECRET

limits = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20)).map(lambda two: Limit(*two)), max_size=3)


in_time = st.lists(st.integers(0, 8), max_size=40).map(lambda gaps: [sum(gaps[: at + 1]) for at in range(len(gaps))])


in_any_order = st.lists(st.integers(0, 60), max_size=40)


def naive_most(stamps: list[int], per_ns: int) -> int:
    """The fullest window begins, just before it, with some stamp."""
    return max((sum(first <= stamp < first + per_ns for stamp in stamps) for first in stamps), default=0)


def ledger_of(*limits: Limit) -> Ledger:
    return Ledger({"alpha": SECRET}, limits)


@given(limits, in_time | in_any_order)
def test_accepts_exactly_what_fits(limits: list[Limit], stamps: list[int]) -> None:
    """An arrival is accepted if and only if no window of any limit then holds too many, told in order or not."""
    ledger = ledger_of(*limits)
    accepted: list[int] = []
    for at, now in enumerate(stamps):
        fits = all(naive_most([*accepted, now], limit.per_ns) <= limit.max for limit in limits)
        assert ledger.arrive(f"call-{at}", SECRET, 1, now).status == (200 if fits else 429)
        accepted += [now] if fits else []


@given(limits, in_time | in_any_order)
def test_reports_the_fullest_window(limits: list[Limit], stamps: list[int]) -> None:
    """The most in any window counts accepted and rejected arrivals, and is exact for every limit."""
    ledger = ledger_of(*limits)
    for at, now in enumerate(stamps):
        ledger.arrive(f"call-{at}", SECRET, 1, now)
    [key] = ledger.report().keys
    assert key.arrivals == len(stamps)
    assert [each.most for each in key.limits] == [naive_most(stamps, limit.per_ns) for limit in limits]


@given(in_any_order, st.integers(1, 30))
def test_most_in_any_window_is_exact(stamps: list[int], per_ns: int) -> None:
    """One pass over sorted stamps finds what counting every window finds."""
    assert most_in_any_window(sorted(stamps), per_ns) == naive_most(stamps, per_ns)


@given(limits.filter(bool), in_time)
def test_retry_after_is_exact(limits: list[Limit], stamps: list[int]) -> None:
    """A rejected arrival would be accepted once its wait is over, and a nanosecond sooner would not."""
    ledger = ledger_of(*limits)
    for at, now in enumerate(stamps):
        verdict = ledger.arrive(f"call-{at}", SECRET, 1, now)
        if verdict.status == 429:
            assert ledger.arrive("sooner", SECRET, 1, now + verdict.retry_after_ns - 1).status == 429
            assert ledger.arrive("then", SECRET, 1, now + verdict.retry_after_ns).status == 200
            return


def test_a_window_apart_is_not_in_one_window() -> None:
    """Two arrivals exactly T apart are never in one window; a nanosecond less, and they are."""
    ledger = ledger_of(Limit(1, MINUTE))
    assert ledger.arrive("a", SECRET, 1, 0).status == 200
    assert ledger.arrive("b", SECRET, 1, MINUTE - 1).status == 429
    assert ledger.arrive("c", SECRET, 1, MINUTE).status == 200


@pytest.mark.parametrize(("late", "status"), [(90, 200), (91, 429), (109, 429), (110, 200), (190, 200), (191, 429)])
def test_a_late_arrival_is_judged_on_both_sides(late: int, status: int) -> None:
    """An arrival told late is rejected if it shares a window with an accepted one before it or behind it."""
    ledger = ledger_of(Limit(1, 10))
    for now in (100, 200):
        ledger.arrive(f"at {now}", SECRET, 1, now)
    assert ledger.arrive("late", SECRET, 1, late).status == status


def test_keys_do_not_share_a_limit() -> None:
    """Each key has every limit to itself."""
    ledger = Ledger({"a": "1", "b": "2"}, [Limit(1, MINUTE)])
    assert [ledger.arrive(key, key, 1, 0).status for key in ("1", "2", "1")] == [200, 200, 429]
    assert ledger.counts() == {"a": (1, 1), "b": (1, 0)}


def test_reset_forgets_everything() -> None:
    """After a reset the report is that of a new ledger, and no window is occupied."""
    ledger = ledger_of(Limit(1, MINUTE))
    for key in (SECRET, SECRET, "wrong"):
        ledger.arrive("a", key, 1, 0)
    ledger.reset()
    assert ledger.report() == ledger_of(Limit(1, MINUTE)).report()
    assert ledger.arrive("a", SECRET, 1, 0).status == 200


def test_arrivals_are_told_by_call() -> None:
    """For each call the judge knows how often it arrived, refused arrivals included, and shows no secret."""
    ledger = Ledger({"alpha": SECRET}, [Limit(2, MINUTE)])
    for call_id, key in [("a", SECRET), ("a", SECRET), ("a", SECRET), ("b", "wrong"), (SECRET, SECRET)]:
        ledger.arrive(call_id, key, 1, 0)
    assert ledger.calls() == {"a": 3, "b": 1, "<alpha>": 1}
    ledger.reset()
    assert ledger.calls() == {}


@pytest.mark.slow
@pytest.mark.timeout(600)  # tracemalloc costs a busy machine a minute and more
def test_a_million_arrivals_fit() -> None:
    """A million arrivals take less than 200 bytes each, and the fullest window of them is still found exactly."""
    ledger = ledger_of(Limit(600_000, 600_000), Limit(1, 1))
    tracemalloc.start()
    try:
        for now in range(1_000_000):
            ledger.arrive(f"call-{now}", SECRET, 1, now)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 200_000_000
    [key] = ledger.report().keys
    assert (key.accepted, key.rejected) == (1_000_000, 0)
    assert [each.most for each in key.limits] == [600_000, 1]
