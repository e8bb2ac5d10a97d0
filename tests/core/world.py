"""What the machines over a dispatcher share: virtual time, and every call as a naive model counts it.

Rule: each call that was added waits, is in flight or has its result, exactly one of them; this file counts. It knows
no limits: what may go when is each machine's own.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from heapq import heappush
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from apiflux_grpc.core.batch import Batch, FedCall
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Answer, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.dispatcher import Dispatcher
    from apiflux_grpc.core.lanes import Turn
    from apiflux_grpc.core.model import Limit, Pool
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.core.permit import Permit

NEVER: Final = 1 << 70
# An exact wait for each retry: the dispatcher's draw times SPREAD.
SPREAD: Final = 1 << 40
POLICY: Final = RetryPolicy(3, initial_backoff=SPREAD, max_backoff=SPREAD, reasons=frozenset(Reason))
WALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
F = TypeVar("F")  # an attempt, as the machine keeps it
Place = tuple[int, int]  # a call: (batch id, index)


class World(Generic[F]):
    """One pool at work on virtual time (ns)."""

    def __init__(self, pool: Pool, dispatcher: Dispatcher) -> None:
        self.now = 0
        self.slack = 0  # how late the timer rings
        self.broken = False
        self.pool = pool
        self.dispatcher = dispatcher
        self.scheduler = dispatcher.scheduler
        self.batches: dict[int, Batch] = {}
        self._cancelled: set[int] = set()
        self._fed: set[int] = set()  # the batches that may get more calls
        self._next_number: dict[Place, int] = {}  # of the calls that wait, retries included
        self._due: dict[Place, int] = {}  # retries that aren't due
        self._flying: dict[Place, F] = {}
        self._finished: set[Place] = set()
        self._paths: dict[Place, str] = {}  # of those that were ever attempted
        self._last: dict[tuple[int, frozenset[tuple[str, ...]]], int] = {}  # the last first attempt of those of a kind
        limits = [limit for key in pool.keys for limit in key.limits]
        limits += [limit for group in pool.groups for limit in group.limits]
        self._scoped = {limit for limit in limits if limit.paths}
        self._charged: Counter[Place] = Counter()  # attempts that the policy counts
        self._tried: dict[Place, set[int]] = {}  # the keys that rejected a call
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

    def _admit(
        self,
        caller: str,
        total: int,
        weight: float,
        costs: list[int] | None,
        room: int = 1 << 60,
        paths: Sequence[str] = ("/",),
    ) -> None:
        self._sequence += 1
        id = self._sequence
        calls = [Call(path=paths[place % len(paths)]) for place in range(total)]
        batch = Batch(
            id,
            caller,
            total,
            admitted_at=self.now,
            calls=calls,
            costs=costs,
            policy=POLICY,
            weight=weight,
            reach=room,
        )
        self.batches[id] = batch
        self._next_number.update({(id, index): 1 for index in range(total)})
        self.expect(not self.dispatcher.submit(batch, self.now), "a result before anything was sent")

    def _open_stream(self, caller: str, weight: float) -> None:
        """A batch that is fed."""
        self._sequence += 1
        batch = Batch(self._sequence, caller, 0, admitted_at=self.now, fed=True, policy=POLICY, weight=weight)
        self.batches[batch.id] = batch
        self._fed.add(batch.id)
        self.expect(not self.dispatcher.submit(batch, self.now), "a result before anything was sent")

    def _feed(self, batch: Batch, paths: Sequence[str], costs: Sequence[int]) -> None:
        """More calls of a batch that is fed."""
        first = batch.total
        fed = [FedCall(first + place, Call(path=path), costs[place]) for place, path in enumerate(paths)]
        self._next_number.update({(batch.id, call.ordinal): 1 for call in fed})
        self.expect(not self.dispatcher.feed(batch, fed, [], self.now), "a result before anything was sent")

    def _end_stream(self, batch: Batch) -> None:
        """No more calls come."""
        self._fed.discard(batch.id)
        self.dispatcher.end(batch)
        self._forget_if_over(batch)

    def _takes_off(self, permit: Permit, flying: F) -> None:
        """A permit was made: for a call that waited, whose time had come, with a key that could."""
        batch, key = permit.batch, permit.key
        call = (batch.id, permit.place)
        self.expect(self._next_number.pop(call, None) == permit.number, f"no such attempt was due: {permit!r}")
        self.expect(self._due.pop(call, 0) <= self.now, "a retry before its time")
        self.expect(permit.cost == (1 if batch.costs is None else batch.costs[permit.place]), "another call's cost")
        self.expect(self._blocked[key.index] <= self.now, "a permit of a blocked key")
        if permit.again is not None and not permit.again.tried:
            self._tried.pop(call, None)  # limits have changed, and no key that it had not tried takes it any more
        self.expect(key.index not in self._tried.get(call, ()), "a key that rejected the call")
        self._in_flight[key.index] += 1
        self.expect(self._in_flight[key.index] <= (key.key.max_in_flight or NEVER), "over max_in_flight")
        self.expect(sum(self._in_flight) <= self.pool.max_connections, "over max_connections")
        self._flying[call] = flying
        if permit.number == 1:
            line = (batch.id, self.kind(self._path_of(permit)))
            self.expect(
                self._last.get(line, -1) < permit.place, "out of turn among the calls that meet the same limits"
            )
            self._last[line] = permit.place

    def _path_of(self, permit: Permit) -> str:
        """The path of its call, which its batch may have forgotten."""
        call = (permit.batch.id, permit.place)
        if call not in self._paths:
            self._paths[call] = permit.batch.call_at(permit.place).path
        return self._paths[call]

    def kind(self, path: str) -> frozenset[tuple[str, ...]]:
        """The paths of the limits that a call of this path meets."""
        return frozenset(limit.paths for limit in self._scoped if meets(path, limit))

    def _lands(self, permit: Permit, outcome: Outcome, wait: int = 0) -> None:
        """The attempt is over: the call has its result, or is made again after `wait` if it failed."""
        batch = permit.batch
        call = (batch.id, permit.place)
        del self._flying[call]
        self._in_flight[permit.key.index] -= 1
        due = self._comes_back(permit, outcome, wait) if batch.ending is None else None
        result = self.dispatcher.settle(permit, outcome, self.now, WALL, wait / SPREAD)
        if due is not None:
            self.expect(result is None, "a result of a call that is to be made again")
            self._next_number[call] = permit.number + 1
            self._due[call] = due
        elif batch.id in self._cancelled:
            self.expect(result is None, "a result that nobody waits for")
            self._finished.add(call)
        else:
            self.expect(result is not None, "a call without a result")
            assert result is not None
            self.expect((result.index, result.attempts) == (permit.place, permit.number), f"not its result: {result!r}")
            self._finish(call)
        self._forget_if_over(batch)

    def _comes_back(self, permit: Permit, outcome: Outcome, wait: int) -> int | None:
        """When the call may be made again at the earliest; None: it has its result."""
        call = (permit.batch.id, permit.place)
        status = outcome.status if isinstance(outcome, Answer) else 0
        if status == 200:
            return None
        if status == 429:
            return self.now
        if status == 401:
            tried = self._tried.setdefault(call, set())
            since = 0 if permit.again is None else permit.again.since
            works = any(self.scheduler.keys[index].breaker.has_worked_since(since) for index in tried)
            tried.add(permit.key.index)
            others = [key.seats[permit.path_class] for key in self.scheduler.keys if key.index not in tried]
            takes = any(seat.takes(permit.cost, self.now) for seat in others)
            return None if works or len(tried) >= 3 or not takes else self.now
        self._charged[call] += 1
        return self.now + wait if self._charged[call] < POLICY.max_attempts else None

    def _finish(self, call: Place) -> None:
        self.expect(call not in self._finished, "a second result")
        self._finished.add(call)

    def _cancel(self, batch: Batch) -> list[F]:
        """The caller went away; returns what is in flight."""
        self._cancelled.add(batch.id)
        self.dispatcher.cancel(batch)
        self._take_back(batch)
        return [flying for call, flying in self._flying.items() if call[0] == batch.id]

    def _stop(self, batch: Batch) -> None:
        """The caller has had enough: all that waits has its result at once, and what is in flight gets one."""
        waiting = self._take_back(batch)
        for result in self.dispatcher.stop(batch, self.now):
            self.expect(waiting.pop(result.index, 0) == result.attempts + 1, f"no such call waited: {result!r}")
            self._finish((batch.id, result.index))
        self.expect(not waiting, f"calls that wait on: {waiting}")
        self._forget_if_over(batch)

    def _take_back(self, batch: Batch) -> dict[int, int]:
        """What waits of the batch doesn't any more: the number of the next attempt of each."""
        self._fed.discard(batch.id)
        waiting = {call[1]: self._next_number.pop(call) for call in [*self._next_number] if call[0] == batch.id}
        for index in waiting:
            self._due.pop((batch.id, index), None)
        return waiting

    def _forget_if_over(self, batch: Batch) -> None:
        waits = any(call[0] == batch.id for call in self._next_number)
        flies = any(call[0] == batch.id for call in self._flying)
        self.expect(
            batch.finished != (waits or flies or batch.id in self._fed),
            "a batch that is over, or isn't, and says otherwise",
        )
        if batch.finished:
            self.batches.pop(batch.id, None)

    def _check_counts(self) -> None:
        self.expect(self.scheduler.waiting == len(self._next_number), "miscounts what waits")
        self.expect(self.scheduler.in_flight == len(self._flying), "miscounts what is in flight")
        for key, count in zip(self.scheduler.keys, self._in_flight, strict=True):
            self.expect(key.in_flight == count, "miscounts what a key has in flight")
        for batch in self.batches.values():
            by_class = self.scheduler.waiting_by_class(batch)
            self.expect(sum(by_class) == batch.waiting and min(by_class) >= 0, "miscounts what waits of a path class")
            self.expect(
                batch.ending is not None or batch.started <= batch.reach,
                "a first attempt without room for its result",
            )

    def _retry_at(self) -> int:
        """When the next retry can go: when it falls due, and the upstream isn't left alone."""
        due = min((at for at in self._due.values() if at > self.now), default=NEVER)
        ready = self.scheduler.breaker.ready_at(self.now)
        return NEVER if ready >= FAR else max(due, ready)


def meets(path: str, limit: Limit) -> bool:
    """Whether a call of this path counts for the limit."""
    return not limit.paths or any(path[: len(prefix)] == prefix for prefix in limit.paths)


def next_place(turn: Turn) -> int:
    """The place of the turn's next call."""
    if turn.again:
        return turn.again[0].place
    return turn.started if isinstance(turn, Batch) else turn.next


def next_cost(turn: Turn) -> int:
    """What the turn's next call costs."""
    costs = turn.costs if isinstance(turn, Batch) else turn.batch.costs
    return 1 if costs is None else costs[next_place(turn)]
