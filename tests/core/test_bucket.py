"""Buckets and their pacers: the shape that keeps a limit however late calls arrive, cuts, debts, what is given back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.bucket import FAR, Bucket, largest, shape
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import BUCKET, COST, JITTER, MINUTE, batch_costing, costs_of, scheduler_of


@pytest.mark.parametrize(
    ("limit", "jitter", "burst", "seconds"),
    [
        (Limit(10, SECOND, kind=BUCKET), 0, 10, 1),
        (Limit(10, SECOND, kind=BUCKET), JITTER, 7.5, 0.75),  # 2.5 flow in during J
        (Limit(600, 60 * SECOND, kind=BUCKET, burst=5), JITTER, 2.5, 0.25),
        (Limit(10, SECOND, kind=BUCKET, burst=1), 0, 1, 0.1),
        (Limit(10, SECOND, kind=BUCKET, burst=1), JITTER, 1, 0.1 + 0.25),  # at a depth of 1: 1/r + J
        (Limit(4, SECOND, kind=BUCKET, burst=2), JITTER, 1, 0.25),  # what is left is just one call
        (Limit(10, SECOND, kind=BUCKET, burst=2), JITTER, 1, (1 + 1.5 / 2) / 10),
    ],
)
def test_the_shape_of_a_bucket(limit: Limit, jitter: int, burst: float, seconds: float) -> None:
    """Its depth is less by what flows in during J; where that leaves less than a call, calls are spaced."""
    assert shape(limit, jitter) == pytest.approx((burst, seconds))


@pytest.mark.parametrize(
    ("limit", "jitter", "most"),
    [
        (Limit(10, SECOND), JITTER, 10),
        (Limit(10, SECOND, burst=4), JITTER, 4),
        (Limit(10, SECOND, kind=BUCKET), JITTER, 7),
        (Limit(10, SECOND, kind=BUCKET, burst=1), JITTER, 1),
    ],
)
def test_the_largest_that_fits_at_once(limit: Limit, jitter: int, most: int) -> None:
    """A cost above the burst, or above a bucket's lowered depth, never fits."""
    assert largest(limit, jitter) == most


@settings(max_examples=300, print_blob=True)
@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.sampled_from([0, 20 * MILLISECOND, JITTER, SECOND]),
    st.lists(st.tuples(st.integers(0, 300 * MILLISECOND), st.integers(0, 4)), min_size=1, max_size=80),
)
def test_a_bucket_is_never_overrun_however_late_calls_arrive(
    most: int, burst: int, jitter: int, steps: list[tuple[int, int]]
) -> None:
    """Calls arrive up to J after they were taken, in any bunches; a token bucket at the upstream holds them all."""
    limit = Limit(most, SECOND, kind=BUCKET, burst=burst)
    budget = Budget((limit,), jitter, FakePacer)
    now, arrivals = 0, []
    for wait, lateness in steps:
        now += wait
        budget.advance(now)
        while budget.try_take(1, now) == 0:
            arrivals.append(now + jitter * lateness // 4)
    level, last = 0.0, 0
    for at in sorted(arrivals):
        level = max(0.0, level - (at - last) * most / SECOND) + 1
        last = at
        assert level <= burst + 1e-6


def test_a_bucket_that_is_cut_is_as_full_as_it_was_and_slower() -> None:
    """Seven tenths of the rate, once per `per`; it comes back in twentieths."""
    one = Bucket(Limit(10, SECOND, kind=BUCKET), 0, FakePacer)
    assert one.ready_at(4, 0) == 0
    one.take(4)
    assert one.headroom(0) == pytest.approx(0.6)
    assert one.cut(0, 0)
    assert not one.cut(SECOND - 1, SECOND - 1)
    assert not one.cut(SECOND, 0)
    assert one.level(0) == 4
    assert one.level(SECOND // 10) == pytest.approx(4 - 0.7)
    one.recover(SECOND)  # the last refusal was then: no step yet
    assert one.recover_at == 2 * SECOND
    steps = 0
    while one.recover_at < FAR:
        one.recover(one.recover_at)
        steps += 1
    assert steps == 6
    assert one.ready_at(10, MINUTE) == MINUTE
    one.take(10)
    assert one.level(MINUTE + SECOND // 2) == pytest.approx(5)


@pytest.mark.parametrize("level", [0.0, 3.0, 10.0, 25.0])
def test_a_bucket_may_start_full(level: float) -> None:
    """A level that is handed over counts, also above the depth."""
    one = Bucket(Limit(10, SECOND, kind=BUCKET), 0, FakePacer)
    one.fill(level, 0)
    assert one.ready_at(1, 0) == pytest.approx(max(0, (level - 9) * SECOND / 10), abs=1000)


@pytest.mark.parametrize("how", ["corrected", "never sent"])
def test_a_bucket_gives_back_no_room_that_has_leaked_away(how: str) -> None:
    """A token bucket holds its burst at most, whatever comes back for calls of long ago."""
    scheduler = scheduler_of((Limit(10, SECOND, COST, BUCKET, 20),))
    scheduler.add(batch_costing(10, 20, 10))
    (first,), _ = scheduler.assign(0, 1)
    if how == "corrected":
        scheduler.sent(first, 0)
    now = 5 * SECOND  # it has long been empty
    assert costs_of(scheduler.assign(now)[0]) == [20]
    scheduler.settle(first, now, now if how == "corrected" else None, 0 if how == "corrected" else None)
    assert scheduler.assign(now)[0] == []


@pytest.mark.parametrize("how", ["cost less", "was never sent"])
def test_a_bucket_gives_back_nothing_for_a_call_from_before_its_time(how: str) -> None:
    """After a change nobody knows what was sent before, so the bucket starts full; it didn't count that call."""
    scheduler = scheduler_of((Limit(10, SECOND),))
    scheduler.add(batch_costing(5, 1, 1, 1))
    (early, *_), _ = scheduler.assign(0)
    scheduler.change_limits(0, (Limit(60, MINUTE, COST, BUCKET, 5),), 1)
    if how == "cost less":
        scheduler.sent(early, 1)
        scheduler.settle(early, 2, 2, 0)
    else:
        scheduler.settle(early, 2, None)
    scheduler.add(batch_costing(1, 1, 1, id=2))
    assert costs_of(scheduler.assign(SECOND // 2)[0]) == []
    assert costs_of(scheduler.assign(SECOND + 2)[0]) == [1]
