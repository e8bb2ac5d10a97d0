"""The ledger accepts exactly what fits into every window, against a naive model."""

import tracemalloc
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.judge.ledger import Ledger
from apiflux_grpc.judge.limits import Limit, most_in_any_window
from apiflux_grpc.judge.others import Others
from tests.judge.wires import MINUTE, SECOND, SECRET

limits = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20)).map(lambda two: Limit(*two)), max_size=3)


in_time = st.lists(st.integers(0, 8), max_size=40).map(lambda gaps: [sum(gaps[: at + 1]) for at in range(len(gaps))])


in_any_order = st.lists(st.integers(0, 60), max_size=40)


few = st.lists(st.integers(0, 25), max_size=12)  # the models below are slow


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


any_limit = st.builds(
    Limit,
    st.integers(1, 5),
    st.integers(1, 20),
    st.sampled_from(["calls", "cost"]),
    st.sampled_from(["sliding", "fixed", "bucket"]),
    st.integers(1, 6),
)
any_limits = st.lists(any_limit, max_size=3)


def fullest_naive(limit: Limit, arrivals: list[tuple[int, int]]) -> int:
    """How full these arrivals (stamp, cost) make a limit, counted window by window, or from the first drop on."""
    arrivals = sorted((at, cost if limit.counts == "cost" else 1) for at, cost in arrivals)
    if limit.kind == "bucket":
        # What was in the bucket at an arrival came in since some arrival, less what went out since that one.
        levels = [
            sum(cost for _, cost in arrivals[first : last + 1])
            - Fraction((arrivals[last][0] - arrivals[first][0]) * limit.max, limit.per_ns)
            for last in range(len(arrivals))
            for first in range(last + 1)
        ]
        return ceil(max(levels, default=0))
    begins = [at if limit.kind == "sliding" else at // limit.per_ns * limit.per_ns for at, _ in arrivals]
    return max((sum(cost for at, cost in arrivals if 0 <= at - begin < limit.per_ns) for begin in begins), default=0)


@given(any_limits, few, st.data())
def test_limits_of_every_kind_are_exact(limits: list[Limit], stamps: list[int], data: st.DataObject) -> None:
    """With any kind of limit an arrival is accepted if and only if all still hold with it; the report is as exact."""
    ledger = ledger_of(*limits)
    accepted: list[tuple[int, int]] = []
    arrived: list[tuple[int, int]] = []
    for at, now in enumerate(stamps):
        cost = data.draw(st.integers(0, 4))
        fits = all(fullest_naive(limit, [*accepted, (now, cost)]) <= limit.most for limit in limits)
        assert ledger.arrive(f"call-{at}", SECRET, 1, now, cost).status == (200 if fits else 429)
        arrived.append((now, cost))
        accepted += [(now, cost)] if fits else []
    [key] = ledger.report().keys
    assert [each.most for each in key.limits] == [fullest_naive(limit, arrived) for limit in limits]


@given(any_limit, few.map(sorted), st.data())
def test_what_is_left_is_exact(limit: Limit, stamps: list[int], data: st.DataObject) -> None:
    """As much as is told to be left fits and no more; one more fits from `soonest` on, everything from `whole` on."""
    ledger = ledger_of(limit)
    accepted = []
    for at, now in enumerate(stamps):
        cost = data.draw(st.integers(1, 4))
        if ledger.arrive(f"call-{at}", SECRET, 1, now, cost).status == 200:
            accepted.append((now, cost))
    now = stamps[-1] if stamps else 0

    def fits(units: int, at: int) -> bool:
        more = [(at, units)] if limit.counts == "cost" else [(at, 1)] * units
        return fullest_naive(limit, accepted + more) <= limit.most

    [left] = ledger.left(SECRET, now)
    assert fits(left.remaining, now)
    assert fits(limit.most, now + left.whole)
    if left.remaining < limit.most:
        assert not fits(left.remaining + 1, now + left.soonest - 1)
        assert fits(left.remaining + 1, now + left.soonest)
        assert not fits(limit.most, now + left.whole - 1)


@given(any_limit, few.map(sorted), st.integers(1, 10))
def test_others_are_always_admitted(limit: Limit, stamps: list[int], tenths: int) -> None:
    """Others' calls come at a constant rate and spend; ours are refused for what they spend, but not blamed for it."""
    share = tenths / 10
    ledger = Ledger({"alpha": SECRET}, [limit], share, start=0)
    others = Others(Fraction(str(share)), [limit], 0)
    spent = [(at, others.cost) for at in others.due(0, 25)]
    ours: list[tuple[int, int]] = []
    for_others = 0
    for at, now in enumerate(stamps):
        before = [each for each in spent if each[0] <= now]
        most = limit.most - fullest_of(limit, [*before, *ours, (now, 1)], now)
        status = ledger.arrive(f"call-{at}", SECRET, 1, now).status
        assert status == (200 if most >= 0 else 429)
        alone = fullest_naive(limit, [*ours, (now, 1)]) <= limit.most
        for_others += status == 429 and alone
        ours += [(now, 1)] if status == 200 else []
    [key] = ledger.report().keys
    assert (key.others, key.rejected_for_others) == (
        sum(0 < at <= max(stamps, default=-1) for at, _ in spent),
        for_others,
    )
    assert [each.most for each in key.limits] == [fullest_naive(limit, [(now, 1) for now in stamps])]


def fullest_of(limit: Limit, arrivals: list[tuple[int, int]], now: int) -> int:
    """How full a limit is at `now`, the last of these arrivals, whatever was before."""
    arrivals = sorted((at, cost if limit.counts == "cost" else 1) for at, cost in arrivals)
    if limit.kind == "bucket":
        level, last = Fraction(0), arrivals[0][0]
        for at, cost in arrivals:
            level = max(Fraction(0), level - Fraction((at - last) * limit.max, limit.per_ns)) + cost
            last = at
        return ceil(level)
    begin = now - limit.per_ns + 1 if limit.kind == "sliding" else now // limit.per_ns * limit.per_ns
    return sum(cost for at, cost in arrivals if begin <= at)


def test_others_spend_their_share() -> None:
    """Others spend their share of the tightest limit of calls, and of cost the same; without calls, in small pieces.

    They have done so for a period when they are first asked about.
    """
    calls, cost = Limit(100, 10 * SECOND), Limit(6000, MINUTE, "cost")
    both = Others(Fraction(1, 2), [calls, cost], MINUTE)
    assert (sum(1 for _ in both.due(0, MINUTE)), both.cost) == (300, 10)
    alone = Others(Fraction(1, 2), [cost], MINUTE)
    assert sum(1 for _ in alone.due(0, MINUTE)) * alone.cost == 3000
    ledger = Ledger({"alpha": SECRET}, [calls], 0.5, start=MINUTE)
    ledger.arrive("a", SECRET, 1, MINUTE)
    assert ledger.left(SECRET, MINUTE)[0].remaining == 49
    assert ledger.report().others == 0


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


def test_a_late_arrival_fills_the_bucket_for_all_that_came_after_it() -> None:
    """Told in time, 99, 100 and 101 would leave too little room at 102; so they do when 99 is told last."""
    ledger = ledger_of(Limit(1, 10, "calls", "bucket", 3))
    for now in (100, 101, 99):
        assert ledger.arrive(f"at {now}", SECRET, 1, now).status == 200
    assert ledger.arrive("next", SECRET, 1, 102).status == 429


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
