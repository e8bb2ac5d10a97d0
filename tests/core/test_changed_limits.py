"""Limits that change while calls are on their way: what was spent stays spent, and the unknown counts as spent."""

from __future__ import annotations

from collections import Counter

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.model import Counts, Limit
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
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
    pool_of,
    scheduler_of,
    take,
    taken_at,
)

calls = Counts.CALLS


@pytest.mark.parametrize("other", [Limit(10, SECOND), Limit(10, SECOND, kind=BUCKET)])
@pytest.mark.parametrize("limit", [Limit(10, SECOND), Limit(10, SECOND, kind=BUCKET)])
def test_a_change_gives_no_second_burst(limit: Limit, other: Limit) -> None:
    """Ten went out at once; the heir of a burst of ten has none left, and refills at its rate."""
    budget = Budget((limit,), 0, FakePacer)
    assert taken_at(budget, 0) == 10
    budget = budget.changed((other,), 0)
    assert taken_at(budget, 0) == 0
    assert taken_at(budget, SECOND // 2) <= 5


@pytest.mark.parametrize("most", [3, 10, 30])
def test_what_is_on_its_way_counts_after_a_change(most: int) -> None:
    """Unsent, sent and answered calls are all there, and each ends as it would have."""
    new = Budget((Limit(10, PER),), JITTER, FakePacer)
    permits = [take(new) for _ in range(3)]
    new.sent(permits[1], 0)
    new.sent(permits[2], 0)
    new.answered(permits[2], 0)
    changed = new.changed((Limit(most, PER),), 1)
    (window,) = changed.windows
    assert window.free == most - 3
    changed.advance(KEPT)
    assert window.free == most - 2
    changed.advance(JITTER + KEPT)
    assert window.free == most - 1
    changed.give_back(1)
    assert window.used == 0


@pytest.mark.parametrize("before", [(), (Limit(5, SECOND, kind=BUCKET),)])
def test_where_nothing_was_counted_everything_counts_as_spent(before: tuple[Limit, ...]) -> None:
    """A window that comes to a key without one is full for its length and J."""
    budget = Budget(before, JITTER, FakePacer).changed((Limit(10, PER),), 7)
    (window,) = budget.windows
    assert window.free == 0
    at = budget.next_change()
    assert at >= 7 + JITTER + PER
    budget.advance(at)
    assert window.free == 10


def test_the_log_of_a_long_enough_window_is_taken_over() -> None:
    """Of several, the heir takes the shortest that looks back far enough."""
    budget = Budget((Limit(100, 60 * SECOND), Limit(9, SECOND)), 0, FakePacer)
    for _ in range(5):
        permit = take(budget)
        budget.sent(permit, 0)
        budget.answered(permit, 0)
    now = 5 * SECOND
    changed = budget.changed((Limit(9, SECOND), Limit(20, 10 * SECOND), Limit(500, 3600 * SECOND)), now)
    assert [window.used for window in changed.windows] == [0, 5, 500]


def test_an_heir_of_an_heir_knows_no_more_than_the_first_of_them() -> None:
    """One call a second for ten seconds, then 2 in 60 s, then 3 in 10 s: the ten calls are not forgotten."""
    budget = Budget((Limit(1, SECOND),), 0, FakePacer)
    for second in range(10):
        at = second * (SECOND + MILLISECOND)
        budget.advance(at)
        permit = take(budget, now=at)
        budget.sent(permit, at)
        budget.answered(permit, at)
    now = 10 * (SECOND + MILLISECOND)
    changed = budget.changed((Limit(2, 60 * SECOND),), now).changed((Limit(3, 10 * SECOND),), now)
    assert [window.free for window in changed.windows] == [0]


@pytest.mark.parametrize(("limit", "left"), [(Limit(60, PER), 12), (Limit(30, PER // 2), 30)])
def test_what_others_take_outlives_a_change(limit: Limit, left: int) -> None:
    """What they took of the old limit they take of the new one, if that is of the same length."""
    budget = Budget((Limit(50, PER),), 0, FakePacer)
    budget.listen(0).hear(0, Hint(2, None, 50, None, calls), 0, None, 0)
    assert taken_at(budget.changed((limit,), 0), 0) == left


@pytest.mark.parametrize(("most", "more"), [(9, 0), (10, 0), (14, 4)])
def test_what_was_spent_stays_spent_when_a_limit_changes(most: int, more: int) -> None:
    """A raised limit gives the difference, a lowered one nothing."""
    scheduler = Scheduler(pool_of((Limit(10, SECOND),)), FakePacer)
    scheduler.add(batch_of(100))
    permits, _ = scheduler.assign(0)
    for permit in permits:
        answer(scheduler, permit, 0)
    scheduler.change_limits(0, (Limit(most, SECOND, burst=most),), 1)
    assert len(scheduler.assign(1)[0]) == more
    now, gone = 1, more
    while gone < most:
        _, wake_at = scheduler.assign(now)
        assert wake_at is not None
        now = wake_at
        gone = len(scheduler.assign(now)[0]) + gone
    assert now <= KEPT + SECOND


def test_a_key_that_gets_room_by_a_change_is_used_at_once() -> None:
    """Nobody waits for a slot to come back first."""
    scheduler = Scheduler(pool_of((Limit(1, MINUTE),), (Limit(50, MINUTE),)), FakePacer)
    scheduler.add(batch_of(9))
    (first, *_), _ = scheduler.assign(0, 1)
    scheduler.change_limits(1, (), 0)
    assert len(scheduler.assign(0)[0]) == 8
    assert first.key.index == 1


def test_sizes_follow_a_change() -> None:
    """What a call takes of the pool is measured anew: two callers share calls, and cost once cost is what limits."""
    scheduler = Scheduler(pool_of((Limit(10_000, SECOND),)), FakePacer)
    scheduler.change_limits(0, (Limit(10_000, SECOND), Limit(1000, SECOND, COST)), 0)
    scheduler.advance(3 * SECOND)
    scheduler.add(batch_of(900, costs=[1] * 900))
    scheduler.add(batch_of(900, id=2, costs=[9] * 900))
    spent = Counter[int]()
    for permit in scheduler.assign(3 * SECOND)[0]:
        spent[permit.batch.id] += permit.cost
    assert abs(spent[1] - spent[2]) <= 10


@pytest.mark.parametrize("after", [(Limit(50, MINUTE, COST, burst=50),), (Limit(100, MINUTE, COST, burst=50),)])
def test_a_change_to_a_smaller_burst_is_no_error(after: tuple[Limit, ...]) -> None:
    """A waiting call that is larger than any key takes now waits on; nothing raises and nobody is woken for it."""
    scheduler = scheduler_of((Limit(100, MINUTE, COST),))
    scheduler.add(batch_costing(80))
    scheduler.change_limits(0, after, 0)
    assert scheduler.assign(2 * MINUTE) == ([], None)


@pytest.mark.parametrize("between", [(), (Limit(9, SECOND, kind=BUCKET),), (Limit(9, SECOND), Limit(9, MINUTE))])
def test_two_changes_while_a_call_is_on_its_way_leave_the_count_right(between: tuple[Limit, ...]) -> None:
    """Flights outlive a budget without windows."""
    limits = (Limit(10, SECOND),)
    scheduler = scheduler_of(limits, jitter=JITTER)
    scheduler.add(Batch(1, "a", 5, admitted_at=0))
    permits, _ = scheduler.assign(0)
    for permit in permits:
        scheduler.sent(permit, 0)
    scheduler.change_limits(0, between, 1)
    scheduler.change_limits(0, limits, 2)
    for permit in permits:
        scheduler.settle(permit, 3, 3)
    scheduler.advance(MINUTE)
    assert scheduler.keys[0].budget.windows[0].used == 0


@pytest.mark.parametrize("actual", [10, 80, 95])
def test_an_answer_long_after_a_change_corrects_what_it_can(actual: int) -> None:
    """Its slot went over to another log: what is given back stays used there, and an overrun is charged anew."""
    scheduler = scheduler_of((Limit(100, SECOND, COST),), jitter=JITTER)
    scheduler.add(batch_costing(80))
    (permit,), _ = scheduler.assign(0)
    scheduler.sent(permit, 0)
    now = JITTER + 1
    scheduler.advance(now)
    scheduler.keys[0].budget.advance(now)  # it has landed
    scheduler.change_limits(0, (Limit(100, SECOND, COST),), now)
    scheduler.settle(permit, now, now, actual)
    (window,) = scheduler.keys[0].budget.cost_windows
    assert window.used == max(80, actual)
    assert sum(amount for _, amount in window.ends()) == window.used
    scheduler.advance(MINUTE)
    scheduler.keys[0].budget.advance(MINUTE)
    assert window.used == 0


def test_a_change_does_not_fill_a_short_pacer_with_a_long_ones_level() -> None:
    """The same limits again: what had room a moment before has it still."""
    limits = (Limit(100, SECOND), Limit(5_000, 60 * MINUTE))
    budget = Budget(limits, 0, FakePacer)
    now = 0
    for _ in range(20):
        for _ in range(100):
            budget.advance(now)
            assert budget.try_take(1, now) == 0
            budget.sent(Permit(scheduler_of(()).keys[0], batch_costing(1), 0, 1, 1, now, 0), now)
        now += SECOND + SECOND // 1000
    assert budget.changed(limits, now).try_take(1, now) == 0


def test_a_change_to_a_lower_limit_waits_for_its_window_and_no_longer() -> None:
    """Ten went out in a second; of the three in a second that are allowed now all may go when those have ended."""
    budget = Budget((Limit(10, SECOND),), 0, FakePacer)
    part = Permit(scheduler_of(()).keys[0], batch_costing(1), 0, 1, 1, 0, 0)
    for _ in range(10):
        assert budget.try_take(1, 0) == 0
        budget.sent(part, 0)
    budget = budget.changed((Limit(3, SECOND),), 1)
    now = 2 * SECOND + SECOND // 1000
    budget.advance(now)
    assert [budget.try_take(1, now) for _ in range(3)] == [0, 0, 0]


def test_limits_may_change_without_pacers() -> None:
    """A pool that isn't paced stays so."""
    budget = Budget((Limit(5, SECOND),), 0, None).changed((Limit(6, SECOND), Limit(9, SECOND, COST)), 0)
    assert [window.max for window in (*budget.windows, *budget.cost_windows)] == [6, 9]
