"""What the machines over a scheduler share: virtual time, and every call as a naive model counts it.

Rule: each call that was added waits, is in flight or has its result, exactly one of them; this file counts. It knows
no limits: what may go when is each machine's own.
"""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from apiflux_grpc.core.batch import Again, Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.scheduler import Scheduler

NEVER: Final = 1 << 70
F = TypeVar("F")  # an attempt, as the machine keeps it
Place = tuple[int, int]  # a call: (batch id, index)


class World(Generic[F]):
    """One pool at work on virtual time (ns)."""

    def __init__(self, pool: Pool, scheduler: Scheduler) -> None:
        self.now = 0
        self.slack = 0  # how late the timer rings
        self.broken = False
        self.pool = pool
        self.scheduler = scheduler
        self.batches: dict[int, Batch] = {}
        self._cancelled: set[int] = set()
        self._next_number: dict[Place, int] = {}  # of the calls that wait, retries included
        self._due: dict[Place, int] = {}  # retries that aren't due
        self._flying: dict[Place, F] = {}
        self._finished: set[Place] = set()
        self._blocked = [0] * len(pool.keys)
        self._in_flight = [0] * len(pool.keys)
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._sequence = 0
        self._wake_at: int | None = None

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken = True
            raise AssertionError(f"at {self.now}: {otherwise}")

    # -- time ---------------------------------------------------------------------------------

    def _at(self, at: int, event: Callable[[], object]) -> None:
        self._sequence += 1
        heappush(self._events, (at, self._sequence, event))

    def _next_at(self) -> int:
        first = self._events[0][0] if self._events else NEVER
        if self._wake_at is not None:
            first = min(first, max(self.now, self._wake_at + self.slack))
        return first

    # -- the way of a call --------------------------------------------------------------------

    def _admit(self, caller: str, total: int, weight: float, costs: list[int] | None, room: int = 1 << 60) -> None:
        self._sequence += 1
        id = self._sequence
        batch = Batch(id, caller, total, admitted_at=self.now, weight=weight, costs=costs, reach=room)
        self.batches[id] = batch
        self._next_number.update({(id, index): 1 for index in range(total)})
        self.scheduler.add(batch)

    def _takes_off(self, permit: Permit, flying: F) -> None:
        """A permit was made: for a call that waited, whose time had come, with a key that could."""
        batch, key = permit.batch, permit.key
        call = (batch.id, permit.index)
        self.expect(self._next_number.pop(call, None) == permit.number, f"no such attempt was due: {permit!r}")
        self.expect(self._due.pop(call, 0) <= self.now, "a retry before its time")
        self.expect(permit.cost == (1 if batch.costs is None else batch.costs[permit.index]), "another call's cost")
        self.expect(self._blocked[key.index] <= self.now, "a permit of a blocked key")
        self._in_flight[key.index] += 1
        self.expect(self._in_flight[key.index] <= (key.key.max_in_flight or NEVER), "over max_in_flight")
        self.expect(sum(self._in_flight) <= self.pool.max_connections, "over max_connections")
        self._flying[call] = flying

    def _lands(self, permit: Permit, wait: int | None, avoid: int = 0) -> None:
        """The attempt is settled: the call has its result, or is made again after `wait`."""
        batch = permit.batch
        call = (batch.id, permit.index)
        del self._flying[call]
        if wait is None or permit.number == 3 or batch.id in self._cancelled:
            self.expect(call not in self._finished, "a second result")
            self._finished.add(call)
        else:
            self._next_number[call] = permit.number + 1
            self._due[call] = self.now + wait
            again = Again(permit.index, permit.number + 1, permit.queue_time, avoid)
            self.scheduler.retry(batch, again, self.now + wait)
        self._forget_if_over(batch)

    def _drop(self, batch: Batch) -> list[F]:
        """The caller went away; returns what is in flight."""
        self._cancelled.add(batch.id)
        again = self.scheduler.drop(batch)
        waiting = {call for call in self._next_number if call[0] == batch.id}
        retries = {(batch.id, item.index) for item in again}
        self.expect(len(retries) == len(again), "a retry was handed back twice")
        started = {call for call in waiting if self._next_number[call] > 1}
        self.expect(retries == started, "drop must hand back the retries that waited, and only those")
        for call in waiting:
            del self._next_number[call]
            self._due.pop(call, None)
        return [flying for call, flying in self._flying.items() if call[0] == batch.id]

    def _forget_if_over(self, batch: Batch) -> None:
        waits = any(call[0] == batch.id for call in self._next_number)
        flies = any(call[0] == batch.id for call in self._flying)
        if not (waits or flies) and self.batches.pop(batch.id, None) is not None:
            self.scheduler.over(batch)

    def _check_counts(self) -> None:
        self.expect(self.scheduler.waiting == len(self._next_number), "miscounts what waits")
        self.expect(self.scheduler.in_flight == len(self._flying), "miscounts what is in flight")
        for key, count in zip(self.scheduler.keys, self._in_flight, strict=True):
            self.expect(key.in_flight == count, "miscounts what a key has in flight")
        for batch in self.batches.values():
            dropped = batch.id in self._cancelled
            self.expect(dropped or batch.next_index <= batch.reach, "a first attempt without room for its result")

    def _retry_at(self) -> int:
        """When the next retry falls due."""
        return min((at for at in self._due.values() if at > self.now), default=NEVER)


def next_cost(batch: Batch) -> int:
    """What the batch's next call costs."""
    index = batch.again[0].index if batch.again else batch.next_index
    return 1 if batch.costs is None else batch.costs[index]
