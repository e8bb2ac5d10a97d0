"""A large cost among small ones: it gets its permit in time, and others pass only if that does not delay it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.model import Kind, Limit
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.room import room_at, spare_at
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.building import (
    BUCKET,
    COST,
    JITTER,
    KEPT,
    MINUTE,
    PER,
    answer,
    batch_costing,
    batch_of,
    block,
    budget_of,
    costs_of,
    pool_of,
    scheduler_of,
    take,
    working,
)


def test_room_and_spare_of_a_window() -> None:
    """When a cost fits if nothing else is taken, and what may be taken until then without delaying it."""
    budget = budget_of(Limit(100, PER, COST), jitter=0)
    for amount, at in ((60, 0), (30, PER // 2)):
        permit = take(budget, amount, at)
        budget.sent(permit, at)
        budget.answered(permit, at)
    rows = [(amount, room_at(budget, amount, PER // 2)) for amount in (5, 10, 11, 70, 71, 100, 101)]
    first, second = KEPT, PER // 2 + KEPT
    now = PER // 2
    assert rows == [(5, now), (10, now), (11, first), (70, first), (71, second), (100, second), (101, FAR)]
    assert [spare_at(budget, at, amount, now)[1] for amount, at in rows[:4]] == [5, 0, 59, 0]
    assert spare_at(budget, second, 80, now)[1] == 20


def test_room_counts_what_is_on_its_way() -> None:
    """A call that hangs ends by itself; of one that wasn't sent nobody knows, so J and a window from now."""
    budget = budget_of(Limit(100, PER, COST))
    hanging, _unsent = take(budget, 60), take(budget, 30)
    budget.sent(hanging, 5)
    assert room_at(budget, 70, 9) == 5 + JITTER + KEPT
    assert room_at(budget, 71, 9) == 9 + JITTER + KEPT
    assert spare_at(budget, 5 + JITTER + KEPT, 50, 9)[1] == 20


def test_room_in_a_window_of_calls() -> None:
    """A call needs room in windows of both kinds."""
    budget = budget_of(Limit(2, PER), Limit(100, PER, COST), jitter=0)
    for _ in range(2):
        permit = take(budget, 10)
        budget.sent(permit, 0)
        budget.answered(permit, 0)
    assert room_at(budget, 5, 0) == KEPT
    assert spare_at(budget, KEPT, 5, 0) == (1, 95)
    assert room_at(budget_of(), 1 << 40, 7) == 7
    assert spare_at(budget_of(), 0, 1, 0) == (FAR, FAR)


def test_a_large_cost_is_passed_only_where_that_does_not_delay_it() -> None:
    """It has a reservation where it fits soonest, or it would starve among small ones; what is spare then goes on."""
    scheduler = working(
        pool_of((Limit(100, SECOND, COST),)), batch_of(2, costs=[60, 60]), batch_of(1, id=2, costs=[90])
    )
    permits, _ = scheduler.assign(0)
    assert [permit.cost for permit in permits] == [60]
    answer(scheduler, permits[0], 0)
    scheduler.add(batch_of(20, id=3, costs=[1] * 20))
    permits, wake_at = scheduler.assign(1)
    assert ([permit.cost for permit in permits], wake_at) == ([1] * 10, KEPT)
    assert [permit.cost for permit in scheduler.assign(KEPT)[0]] == [90]


@settings(max_examples=30, print_blob=True)
@given(
    st.lists(st.tuples(st.integers(60, 200), st.sampled_from([SECOND, 7 * SECOND])), min_size=1, max_size=3),
    st.integers(1, 60),
    st.integers(1, 12),
    st.sampled_from([0, 20 * MILLISECOND, SECOND]),
    st.sampled_from([0, 250 * MILLISECOND]),
)
def test_a_large_cost_gets_its_permit_within_two_windows(
    keys: list[tuple[int, int]], large: int, small: int, latency: int, jitter: int
) -> None:
    """However many small ones wait, of however many callers; and while it waits the small ones go on where they may."""
    scheduler = working(pool_of(*[(Limit(most, per, COST),) for most, per in keys], jitter=jitter))
    for id in range(2, 6):
        scheduler.add(batch_of(100_000, id=id, costs=[small] * 100_000))
    ends: list[tuple[int, Permit]] = []
    now, asked_at, large_at = 0, None, None
    longest = max(per for _, per in keys)
    while large_at is None:
        while ends and ends[0][0] <= now:
            at, permit = ends.pop(0)
            scheduler.settle(permit, at, at)
        if asked_at is None and now >= longest // 2:
            asked_at = now
            scheduler.add(batch_of(1, costs=[large]))
        permits, wake_at = scheduler.assign(now)
        for permit in permits:
            scheduler.sent(permit, now)
            ends.append((now + latency, permit))
            if permit.batch.id == 1:
                large_at = now
        later = [at for at, _ in ends[:1]] + ([] if wake_at is None else [wake_at])
        now = min([*later, longest // 2] if asked_at is None else later)
    assert asked_at is not None
    assert large_at - asked_at <= 2 * (longest + longest // 50 + jitter + SECOND // 50)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_cost_above_one_keys_burst_goes_to_another_key(kind: Kind) -> None:
    """A key whose burst is below the cost is passed, and is no error: another key of the pool takes it."""
    scheduler = scheduler_of((Limit(100, MINUTE, COST),), (Limit(1000, MINUTE, COST, kind, 50),))
    scheduler.add(batch_costing(40, 80))
    assert sorted(costs_of(scheduler.assign(0)[0])) == [40, 80]


def test_a_cost_that_no_key_takes_any_more_holds_up_nobody() -> None:
    """After a change a waiting call may be too large for every key; the others go on."""
    scheduler = scheduler_of((Limit(100, MINUTE, COST),))
    scheduler.add(batch_costing(80))
    scheduler.add(batch_costing(5, 5, 5, id=2))
    scheduler.change_limits(0, (Limit(50, MINUTE, COST),), 0)
    assert costs_of(scheduler.assign(2 * MINUTE)[0]) == [5, 5, 5]


@pytest.mark.parametrize(
    "limits",
    [
        (Limit(10_000, MINUTE, COST), Limit(600, MINUTE, COST, BUCKET, 100)),
        (Limit(600, MINUTE, COST, BUCKET, 100),),
        (Limit(600, MINUTE, COST, burst=100),),
    ],
)
def test_a_large_cost_is_not_passed_for_ever_where_a_bucket_is_what_binds(limits: tuple[Limit, ...]) -> None:
    """A reservation counts what the pacers hold too."""
    scheduler = scheduler_of(limits)
    scheduler.add(batch_costing(*[5] * 10_000))
    now, large_at = 0, None
    while now < 3 * MINUTE and large_at is None:
        permits, wake_at = scheduler.assign(now)
        for permit in permits:
            scheduler.sent(permit, now)
            scheduler.settle(permit, now, now)
            if permit.cost == 90:
                large_at = now
        if scheduler.keys[0].attempts >= 30 and len(scheduler.queue._open) == 1:
            scheduler.add(batch_costing(90, id=2))
        now = now + 1 if wake_at is None else max(wake_at, now + 1)
    assert large_at is not None


def test_a_limit_that_was_cut_is_used_while_a_large_cost_waits_for_more() -> None:
    """The large call goes when enough has come back; until then the others go on."""
    scheduler = scheduler_of((Limit(100, SECOND, COST),))
    scheduler.add(batch_costing(90))
    scheduler.add(batch_costing(*[5] * 100, id=2))
    scheduler.keys[0].budget.cost_windows[0].cut(0, 0)
    block(scheduler, scheduler.keys[0], 1)
    assert costs_of(scheduler.assign(1)[0]) == [5] * 14
