"""What the tests of limits build: budgets and permits, pools and batches, pacers that do as they are told."""

from __future__ import annotations

from typing import Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.keys import GroupState, KeyState
from apiflux_grpc.core.model import Counts, Group, Key, Kind, Limit, Pool
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer

JITTER: Final = 250 * MILLISECOND
PER: Final = SECOND
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
KEPT: Final = SECOND + SECOND // 10_000 + 1  # how long a slot of a one-second window is held
COST: Final = Counts.COST
BUCKET: Final = Kind.BUCKET


class Gatekeeper:
    """A pacer that does as it is told, and writes down what was taken from it."""

    def __init__(self, burst: float = 0, seconds: float = 0) -> None:
        self.burst, self.seconds = burst, seconds
        self.ready = 0
        self.asked: list[int] = []
        self.taken: list[int] = []

    def ready_at(self, amount: int, now: int) -> int:
        self.asked.append(amount)
        return max(now, self.ready)

    def take(self, amount: int) -> None:
        self.taken.append(amount)

    def level(self, now: int) -> float:
        return float(sum(self.taken))

    def fill(self, level: float, now: int) -> None:
        self.taken.append(int(level))


class Gatekeepers:
    """Makes them and keeps them, in the order of making."""

    def __init__(self) -> None:
        self.made: list[Gatekeeper] = []

    def __call__(self, burst: float, seconds: float, /) -> Gatekeeper:
        self.made.append(Gatekeeper(burst, seconds))
        return self.made[-1]


def budget_of(*limits: Limit, jitter: int = JITTER) -> Budget:
    return Budget(limits, jitter, None)


def permit_of(budget: Budget, cost: int = 1) -> Permit:
    """A permit as the scheduler would make it, without taking anything."""
    key = KeyState(0, Key("key-0", "secret", ()), budget)
    return Permit(key, Batch(1, "a", 1, admitted_at=0), 0, 1, cost, 0, 0)


def take(budget: Budget, cost: int = 1, now: int = 0) -> Permit:
    assert budget.try_take(cost, now) == 0
    return permit_of(budget, cost)


def frees_at(budget: Budget) -> int:
    """The instant at which the one slot is back, by next_change and checked from both sides."""
    at = budget.next_change()
    budget.advance(at - 1)
    assert budget.try_take(1, at - 1) == FAR
    budget.advance(at)
    assert budget.try_take(1, at) == 0
    return at


def taken_at(budget: Budget, now: int, cost: int = 1) -> int:
    """How many calls of this cost there is room for."""
    budget.advance(now)
    count = 0
    while budget.try_take(cost, now) == 0:
        count += 1
    return count


def scheduler_of(*limits: tuple[Limit, ...], jitter: int = 0, groups: tuple[Group, ...] = ()) -> Scheduler:
    keys = tuple(Key(f"key-{place}", "secret", own) for place, own in enumerate(limits))
    return Scheduler(Pool("pool", keys, jitter, groups=groups), FakePacer)


def batch_costing(*costs: int, id: int = 1) -> Batch:
    return Batch(id, f"caller-{id}", len(costs), admitted_at=0, costs=list(costs))


def costs_of(permits: list[Permit]) -> list[int]:
    return [permit.cost for permit in permits]


def pool_of(
    *limits: tuple[Limit, ...], jitter: int = 0, most: int | None = None, max_connections: int = 1 << 40
) -> Pool:
    keys = tuple(Key(f"key-{place}", "secret", own, most) for place, own in enumerate(limits))
    return Pool("default", keys, arrival_jitter=jitter, max_connections=max_connections)


def batch_of(total: int, id: int = 1, costs: list[int] | None = None, weight: float = 1.0) -> Batch:
    return Batch(id, f"caller-{id}", total, admitted_at=0, costs=costs, weight=weight)


def working(pool: Pool, *batches: Batch) -> Scheduler:
    scheduler = Scheduler(pool, None)
    for batch in batches:
        scheduler.add(batch)
    return scheduler


def labels(permits: list[Permit]) -> list[str]:
    return [permit.key.key.label for permit in permits]


def block(scheduler: Scheduler, one: KeyState | GroupState, until: int, now: int = 0) -> None:
    """The upstream refused a call that was taken now, and said until when it will."""
    one.refused(now, now, until - now, "429")
    scheduler.judged(one, now)


def answer(scheduler: Scheduler, permit: Permit, now: int) -> None:
    """The call goes out and is answered at one instant."""
    scheduler.sent(permit, now)
    scheduler.settle(permit, now, now)
