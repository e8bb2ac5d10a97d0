"""Faults that properties found, each as small as it goes, and the machine of all kinds of limits together."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest
from hypothesis import settings

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Counts, Group, Key, Kind, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Cause, NotSent
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.core.window import Window
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.testing import FakePacer, FakeUpstream, SilentObserver, loop_clock
from tests.core.test_limits_machine import EVERYTHING, LimitsMachine

MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
COST: Final = Counts.COST
BUCKET: Final = Kind.BUCKET
JITTER: Final = 250 * MILLISECOND


def scheduler_of(*limits: tuple[Limit, ...], jitter: int = 0, groups: tuple[Group, ...] = ()) -> Scheduler:
    keys = tuple(Key(f"key-{place}", "secret", own) for place, own in enumerate(limits))
    return Scheduler(Pool("pool", keys, jitter, groups=groups), FakePacer)


def batch_of(*costs: int, id: int = 1) -> Batch:
    return Batch(id, f"caller-{id}", len(costs), admitted_at=0, costs=list(costs))


def costs(permits: list[Permit]) -> list[int]:
    return [permit.cost for permit in permits]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_cost_above_one_keys_burst_goes_to_another_key(kind: Kind) -> None:
    """A key whose burst is below the cost is passed, and is no error: another key of the pool takes it."""
    scheduler = scheduler_of((Limit(100, MINUTE, COST),), (Limit(1000, MINUTE, COST, kind, 50),))
    scheduler.add(batch_of(40, 80))
    assert sorted(costs(scheduler.assign(0)[0])) == [40, 80]


def test_a_cost_that_no_key_takes_any_more_holds_up_nobody() -> None:
    """After a change a waiting call may be too large for every key; the others go on."""
    scheduler = scheduler_of((Limit(100, MINUTE, COST),))
    scheduler.add(batch_of(80))
    scheduler.add(batch_of(5, 5, 5, id=2))
    scheduler.change_limits(0, (Limit(50, MINUTE, COST),), 0)
    assert costs(scheduler.assign(2 * MINUTE)[0]) == [5, 5, 5]


@pytest.mark.parametrize("after", [(Limit(50, MINUTE, COST, burst=50),), (Limit(100, MINUTE, COST, burst=50),)])
def test_a_change_to_a_smaller_burst_is_no_error(after: tuple[Limit, ...]) -> None:
    scheduler = scheduler_of((Limit(100, MINUTE, COST),))
    scheduler.add(batch_of(80))
    scheduler.change_limits(0, after, 0)
    assert scheduler.assign(2 * MINUTE) == ([], None)


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
    scheduler.add(batch_of(*[5] * 10_000))
    now, large_at = 0, None
    while now < 3 * MINUTE and large_at is None:
        permits, wake_at = scheduler.assign(now)
        for permit in permits:
            scheduler.sent(permit, now)
            scheduler.settle(permit, now, now)
            if permit.cost == 90:
                large_at = now
        if scheduler.keys[0].attempts >= 30 and len(scheduler.queue._open) == 1:
            scheduler.add(batch_of(90, id=2))
        now = now + 1 if wake_at is None else max(wake_at, now + 1)
    assert large_at is not None


def test_a_limit_that_was_cut_is_used_while_a_large_cost_waits_for_more() -> None:
    """The large call goes when enough has come back; until then the others go on."""
    scheduler = scheduler_of((Limit(100, SECOND, COST),))
    scheduler.add(batch_of(90))
    scheduler.add(batch_of(*[5] * 100, id=2))
    scheduler.keys[0].budget.cut(0, 0)
    scheduler.block(scheduler.keys[0], 1)
    assert costs(scheduler.assign(1)[0]) == [5] * 14


def test_members_of_a_group_are_woken_when_a_call_cost_less() -> None:
    """What one key's answer gives back is there for the others at once."""
    group = Group(("key-0", "key-1"), (Limit(100, MINUTE, COST),))
    keys = (Key("key-0", "secret", (), 1), Key("key-1", "secret", ()))
    scheduler = Scheduler(Pool("pool", keys, 0, groups=(group,)), None)
    scheduler.add(batch_of(100, 50, 40))
    (permit,), _ = scheduler.assign(0)
    scheduler.sent(permit, 0)
    assert scheduler.assign(1)[0] == []
    scheduler.settle(permit, 2, 2, 10)
    assert costs(scheduler.assign(2)[0]) == [50, 40]


@pytest.mark.parametrize("how", ["corrected", "never sent"])
def test_a_bucket_gives_back_no_room_that_has_leaked_away(how: str) -> None:
    """A token bucket holds its burst at most, whatever comes back for calls of long ago."""
    scheduler = scheduler_of((Limit(10, SECOND, COST, BUCKET, 20),))
    scheduler.add(batch_of(10, 20, 10))
    (first,), _ = scheduler.assign(0, 1)
    if how == "corrected":
        scheduler.sent(first, 0)
    now = 5 * SECOND  # it has long been empty
    assert costs(scheduler.assign(now)[0]) == [20]
    scheduler.settle(first, now, now if how == "corrected" else None, 0 if how == "corrected" else None)
    assert scheduler.assign(now)[0] == []


# -- changes while calls are on their way ----------------------------------------------------------


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
    scheduler.add(batch_of(80))
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


@pytest.mark.parametrize("how", ["cost less", "was never sent"])
def test_a_bucket_gives_back_nothing_for_a_call_from_before_its_time(how: str) -> None:
    """After a change nobody knows what was sent before, so the bucket starts full; it didn't count that call."""
    scheduler = scheduler_of((Limit(10, SECOND),))
    scheduler.add(batch_of(5, 1, 1, 1))
    (early, *_), _ = scheduler.assign(0)
    scheduler.change_limits(0, (Limit(60, MINUTE, COST, BUCKET, 5),), 1)
    if how == "cost less":
        scheduler.sent(early, 1)
        scheduler.settle(early, 2, 2, 0)
    else:
        scheduler.settle(early, 2, None)
    scheduler.add(batch_of(1, 1, 1, id=2))
    assert costs(scheduler.assign(SECOND // 2)[0]) == []
    assert costs(scheduler.assign(SECOND + 2)[0]) == [1]


def test_a_change_does_not_fill_a_short_pacer_with_a_long_ones_level() -> None:
    """The same limits again: what had room a moment before has it still."""
    limits = (Limit(100, SECOND), Limit(5_000, 60 * MINUTE))
    budget = Budget(limits, 0, FakePacer)
    now = 0
    for _ in range(20):
        for _ in range(100):
            budget.advance(now)
            assert budget.try_take(1, now) == 0
            budget.sent(Permit(scheduler_of(()).keys[0], batch_of(1), 0, 1, 1, now, 0), now)
        now += SECOND + SECOND // 1000
    assert budget.changed(limits, now).try_take(1, now) == 0


def test_a_change_to_a_lower_limit_waits_for_its_window_and_no_longer() -> None:
    """Ten went out in a second; of the three in a second that are allowed now all may go when those have ended."""
    budget = Budget((Limit(10, SECOND),), 0, FakePacer)
    part = Permit(scheduler_of(()).keys[0], batch_of(1), 0, 1, 1, 0, 0)
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


# -- what the upstream says ------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_hints_of_two_lengths_both_hold(order: int) -> None:
    """3 left for a second and 5 for a minute, in either order: 3 now, and 2 more after the second."""
    budget = Budget((Limit(100, MINUTE),), 0, None)
    for left, until in [(3, SECOND), (5, MINUTE)][::order]:
        budget.ceilings.tighten(Counts.CALLS, left, until)
    taken = []
    for now in (0, SECOND, MINUTE - 1):
        budget.advance(now)
        taken.append(0)
        while budget.try_take(1, now) == 0:
            taken[-1] += 1
    assert taken == [3, 2, 0]


def test_a_cut_comes_back_by_the_clock_though_nobody_asked() -> None:
    """A twentieth in each window without another refusal, however long nobody looked."""
    window = Window(100, SECOND)
    window.cut(0, 0)
    window.expire(7 * SECOND)
    assert window.max == 100


# -- the engine ------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize("whose", ["key", "upstream"])
async def test_a_probe_that_comes_too_late_to_be_sent_is_followed_by_another(whose: str) -> None:
    """A probe ends with a word to its breaker whatever becomes of it, or nothing could ever go again."""
    upstream = FakeUpstream(loop_clock)
    pool = Pool("pool", (Key("key-0", "secret", (Limit(1000, SECOND, kind=BUCKET),)),), JITTER, patience=HOUR)
    parts = PoolParts(pool, lambda: upstream, FakePacer)
    engine = Engine([parts], SilentObserver(), clock=loop_clock)
    await engine.start(own_thread=False)
    policy = RetryPolicy(max_attempts=1)
    engine.submit(BatchSpec("pool", "caller", [Call()] * 20, policy))
    await asyncio.sleep(0.1)
    for attempt in list(upstream.open):
        upstream.answer(attempt, 401 if whose == "key" else 500)
    await asyncio.sleep(0.1)
    ticket = engine.submit(BatchSpec("pool", "caller", [Call()] * 5, policy))
    await asyncio.sleep(30)
    (probe,) = upstream.open
    upstream.fail(probe, NotSent(Cause.LATE, "late"))
    for _ in range(100):
        await asyncio.sleep(1)
        for attempt in list(upstream.open):
            upstream.answer(attempt)
    await asyncio.sleep(1)
    assert ticket.received == 5
    await engine.stop()


class Everything(LimitsMachine):
    """Changes, cuts, costs that come out lower, buckets and groups in one run."""

    choices = (EVERYTHING,)


TestEverything: Any = Everything.TestCase
TestEverything.settings = settings(deadline=None, max_examples=80, stateful_step_count=25, print_blob=True)
TestEverything.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
