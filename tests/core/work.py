"""A pool at work on virtual time, for the machines over the scheduler; and a naive model of it.

Rule: whatever the keys, the callers and the upstream do, no window of a key ever holds more arrivals than its limit,
no call is lost or made twice at once, and no key that could pay is left idle while a call waits. A limit counts the
calls whose path begins with one of its paths, all without any, and calls that meet the same limits go in their order.

`Work` is pump, network and upstream in one, on an event queue. It knows nothing of groups, flights or heaps: it
keeps every attempt and counts. What the scheduler may be late by is written out once, in `_held_until`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop
from itertools import cycle
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Counts, Limit, Pool
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Unknown
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import block
from tests.core.world import NEVER, World, meets, next_cost, next_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.outcome import Outcome

MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
JITTER: Final = 250 * MILLISECOND


@dataclass(frozen=True)
class Plan:
    """What becomes of one attempt. Lengths of time are ns."""

    fate: str = "answer"  # or: hang, refused (never sent), untold (sent, but told only when it ended)
    delay: int = 0  # permit -> sent, or refused
    latency: int = 10 * MILLISECOND  # sent -> status line; for hang: sent -> timeout
    body: int = 0  # status line -> end
    # When it arrives: 0 at once, 1 half way, 2 at the last moment it can; 3 is the worst that an upstream can do:
    # late while nothing arrived for a while, so that the next ones, at once, come close behind.
    lateness: int = 2
    again: int | None = None  # it fails, and the call is retried after so long


@dataclass(eq=False)
class Flying:
    """An attempt, as the naive model keeps it."""

    permit: Permit
    plan: Plan
    went: int | None = None  # when its bytes really went out
    told: int | None = None  # when the scheduler was told that they did
    answered: int | None = None
    answer_told: int | None = None
    over: bool = False


class Gate:
    """The upstream's own count of one limit of one key: the arrivals of the last `per`, and nothing else."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._inside: deque[tuple[int, int]] = deque()
        self._sum = 0

    def arrive(self, at: int, cost: int) -> int:
        """The sum over (at - per, at], this one included."""
        amount = 1 if self.limit.counts is Counts.CALLS else cost
        self._inside.append((at, amount))
        self._sum += amount
        while self._inside[0][0] <= at - self.limit.per:
            self._sum -= self._inside.popleft()[1]
        return self._sum

    def is_empty(self, now: int) -> bool:
        return not self._inside or self._inside[-1][0] <= now - self.limit.per


class Work(World[Flying]):
    """One pool at work on virtual time."""

    def __init__(self, pool: Pool, *, paced: bool = False, most: int = 1 << 30) -> None:
        built: list[FakePacer] = []

        def make(burst: float, seconds: float) -> FakePacer:
            built.append(FakePacer(burst, seconds))
            return built[-1]

        super().__init__(pool, Dispatcher(pool, make if paced else None))
        self.plans: Iterator[Plan] = cycle([Plan()])
        self.made = 0
        self._most = most
        self._pacers: list[list[tuple[Limit, FakePacer]]] = [[] for _ in pool.keys]
        if paced:
            left = iter(built)
            # A budget makes the pacers of its call limits first; those of limits with paths are made last.
            for scoped in (False, True):
                for key, its in zip(pool.keys, self._pacers, strict=True):
                    for paths in dict.fromkeys(limit.paths for limit in key.limits if bool(limit.paths) is scoped):
                        budget = [limit for limit in key.limits if limit.paths == paths]
                        budget.sort(key=lambda limit: limit.counts is Counts.COST)
                        its += [(limit, next(left)) for limit in budget]
        self._by_cost = any(limit.counts is Counts.COST for key in pool.keys for limit in key.limits)
        self._gates = [[Gate(limit) for limit in key.limits] for key in pool.keys]
        self._holding: list[list[Flying]] = [[] for _ in pool.keys]  # attempts that may still fill a slot
        self._undisturbed = False  # nothing was told to the scheduler since it was last asked
        self._in_vain = 0  # wake-ups in a row that changed nothing

    # -- what a test does ---------------------------------------------------------------------

    def add(
        self,
        caller: str,
        total: int,
        weight: float,
        costs: list[int] | None,
        room: int,
        paths: Sequence[str] = ("/",),
    ) -> None:
        """A new batch; its calls have these paths in turn."""
        self._admit(caller, total, weight, costs, room, paths)
        self._tell()

    def open_stream(self, caller: str, weight: float) -> None:
        self._open_stream(caller, weight)

    def feed(self, batch: Batch, paths: Sequence[str], costs: Sequence[int]) -> None:
        self._feed(batch, paths, costs)
        self._tell()

    def end_stream(self, batch: Batch) -> None:
        self._end_stream(batch)

    def run(self, length: int) -> None:
        """Let `length` ns pass, asking when the timer rings and when something is told."""
        end = self.now + length
        while (at := self._next_at()) <= end:
            self.now = at
            disturbed = False
            while self._events and self._events[0][0] <= at:
                disturbed |= bool(heappop(self._events)[2]())
            if disturbed:
                self._tell()
            elif self._wake_at is not None and self._wake_at <= at:
                self.ask()
        self.now = end

    def ask(self) -> None:
        """One pass of the pump; everything that a pass must leave behind is checked here."""
        in_time = self._wake_at is not None and self._wake_at <= self.now
        too_early = self._undisturbed and not in_time
        before = self.made
        while True:
            permits, wake_at = self.dispatcher.assign(self.now, self._most)
            self.expect(len(permits) <= self._most, "more permits than asked for")
            for permit in permits:
                self._start(permit)
            if wake_at is None or wake_at > self.now:
                break
            self.expect(len(permits) == self._most, f"wake_at {wake_at} is not after {self.now}")
        self.expect(not (too_early and self.made > before), "a permit before wake_at, though nothing happened")
        self._in_vain = 0 if self.made > before else self._in_vain + in_time
        self.expect(self._in_vain <= 8 + 4 * sum(map(len, self._holding)), "wakes up for nothing, again and again")
        self._wake_at = wake_at
        self._undisturbed = True
        self._check_counts()
        self._check_wake(wake_at)

    def _tell(self) -> None:
        """Something was told to the scheduler, so it is asked again."""
        self._undisturbed = False
        self._in_vain = 0
        self.ask()

    def cancel(self, batch: Batch, cut: bool) -> None:
        """The caller went away; `cut`: attempts are stopped at once."""
        for flying in self._cancel(batch):
            if cut:
                self._end(flying)
        self._forget_if_over(batch)
        self._tell()

    def stop(self, batch: Batch) -> None:
        """The caller has had enough; what is in flight goes on."""
        self._stop(batch)
        self._tell()

    def block(self, index: int, length: int) -> None:
        until = self.now + length
        block(self.scheduler, self.scheduler.keys[index], until, self.now)
        self._blocked[index] = max(self._blocked[index], until)
        self._tell()

    def give_room(self, batch: Batch, room: int) -> None:
        """The reader took results."""
        had = batch.reach > batch.started
        batch.reach += room
        if not had:
            self.dispatcher.room(batch)
            self._tell()

    def drain(self) -> None:
        """Run until every call has its result; fail when that never comes."""
        for batch in list(self.batches.values()):
            self.give_room(batch, 1 << 40)
        for _ in range(100_000):
            if not (self._next_number or self._flying):
                break
            at = self._next_at()
            self.expect(at < NEVER, "calls wait, and nothing will ever happen")
            self.run(at - self.now)
        self.expect(not (self._next_number or self._flying), "calls never came to an end")
        self.expect(not self.batches, "a batch was never over")
        self.run(2 * HOUR)
        self.scheduler.advance(self.now)
        for key in self.scheduler.keys:
            for owner in (key, *key.scoped.values()):
                owner.budget.advance(self.now)
                for window in (*owner.budget.windows, *owner.budget.cost_windows):
                    self.expect(window.used == 0, f"a slot leaked: {window!r}")

    # -- the upstream -------------------------------------------------------------------------

    def _start(self, permit: Permit) -> None:
        self.made += 1
        flying = Flying(permit, next(self.plans))
        self._takes_off(permit, flying)
        self._holding[permit.key.index].append(flying)
        sends = self._end if flying.plan.fate == "refused" else self._send
        self._at(self.now + flying.plan.delay, lambda: not flying.over and sends(flying))

    def _send(self, flying: Flying) -> bool:
        plan = flying.plan
        flying.went = self.now
        if plan.fate != "untold":
            self._tell_sent(flying)
        latest = self.now + self.pool.arrival_jitter
        ends = self.now + plan.latency
        if plan.fate != "hang":
            latest = min(latest, ends)
            self._at(ends, lambda: self._answer(flying))
            ends += plan.body
        lateness = plan.lateness
        if lateness == 3:
            lateness = 2 if all(gate.is_empty(self.now) for gate in self._gates_of(flying)) else 0
        self._at(self.now + (latest - self.now) * lateness // 2, lambda: self._arrive(flying))
        self._at(ends, lambda: not flying.over and self._end(flying))
        return plan.fate != "untold"

    def _tell_sent(self, flying: Flying) -> None:
        flying.told = self.now
        self.dispatcher.sent(flying.permit, self.now)

    def _gates_of(self, flying: Flying) -> list[Gate]:
        path = self._path_of(flying.permit)
        return [gate for gate in self._gates[flying.permit.key.index] if meets(path, gate.limit)]

    def _arrive(self, flying: Flying) -> bool:
        for gate in self._gates_of(flying):
            count = gate.arrive(self.now, flying.permit.cost)
            self.expect(count <= gate.limit.max, f"{count} arrivals in a window of {gate.limit}")
        return False

    def _answer(self, flying: Flying) -> bool:
        flying.answered = self.now
        return False

    def _end(self, flying: Flying) -> bool:
        permit = flying.permit
        flying.over = True
        if flying.went is not None and flying.told is None:
            self._tell_sent(flying)
        if flying.went is None:
            self._holding[permit.key.index].remove(flying)
        elif flying.answered is not None:
            flying.answer_told = self.now
        self._lands(permit, self._outcome(flying), flying.plan.again or 0)
        return True

    def _outcome(self, flying: Flying) -> Outcome:
        if flying.went is None:
            return NotSent(Cause.UNREACHABLE, "refused")
        if flying.answered is None:
            return Unknown("no answer")
        return Answer(200 if flying.plan.again is None else 404, NO_HEADERS, b"", flying.answered)

    # -- the naive model ----------------------------------------------------------------------

    def _held_until(self, flying: Flying, limit: Limit) -> int:
        """When the slot must be free again at the latest, by what the scheduler could know.

        Its instant is the answer or J after the sending. Flights and groups may each add a 128th of a window, and
        the window is kept longer by the drift.
        """
        if flying.told is None:
            return NEVER
        shortest = min(one.per for one in flying.permit.key.key.limits if one.paths == limit.paths)
        instant = flying.told + self.pool.arrival_jitter + shortest // 128
        if flying.answer_told is not None:
            instant = min(instant, flying.answer_told)
        return instant + limit.per + limit.per // 10_000 + 1 + limit.per // 128

    def _room_by(self, key: KeyState, path: str, cost: int) -> int:
        """When the key can pay for a call of this path and cost at the latest, if nothing else happens."""
        if self._in_flight[key.index] >= (key.key.max_in_flight or NEVER):
            return NEVER
        room_by = max(self.now, self._blocked[key.index], self.scheduler.breaker.ready_at(self.now))
        if room_by >= FAR:
            return NEVER  # a probe of the upstream is out
        holding = self._holding[key.index]
        for limit in key.key.limits:
            if not meets(path, limit):
                continue
            by_cost = limit.counts is Counts.COST
            those = [one for one in holding if meets(self._path_of(one.permit), limit)]
            ends = sorted((self._held_until(one, limit), one.permit.cost if by_cost else 1) for one in those)
            ends = [(end, amount) for end, amount in ends if end > self.now]
            over = sum(amount for _, amount in ends) + (cost if by_cost else 1) - limit.max
            for end, amount in ends:
                if over <= 0:
                    break
                over -= amount
                room_by = max(room_by, end)
            if over > 0:
                return NEVER
        for limit, pacer in self._pacers[key.index]:
            if meets(path, limit):
                room_by = max(room_by, pacer.ready_at(cost if limit.counts is Counts.COST else 1, self.now))
        return room_by

    def _prune(self) -> None:
        for key, holding in zip(self.pool.keys, self._holding, strict=True):
            holding[:] = [
                one
                for one in holding
                if one.told is None or any(self._held_until(one, limit) > self.now for limit in key.limits)
            ]

    def _check_wake(self, wake_at: int | None) -> None:
        """Never idle while a call waits, and never asleep past the instant at which one could go."""
        self._prune()
        retry_at = self._retry_at()
        head = self.scheduler.head
        may_go = self._may_go()
        self.expect((head is not None) == bool(may_go), "the queue forgot who waits, or names one who doesn't")
        if head is None or sum(self._in_flight) >= self.pool.max_connections:
            self.expect(wake_at == (None if retry_at == NEVER else retry_at), "no time to wake up at but a retry's")
            return
        # Where costs differ others may have to wait for a large one: then it is that one which must be paid for.
        kinds = {self.kind(path): path for path in may_go}
        waiting = [(path, 1) for path in kinds.values()]
        if self._by_cost:
            batch = head if isinstance(head, Batch) else head.batch
            waiting = [(batch.call_at(next_place(head)).path, next_cost(head))]
        latest = retry_at
        for path, cost in waiting:
            room_by = min(self._room_by(key, path, cost) for key in self.scheduler.keys)
            self.expect(room_by > self.now, f"idle, though a call of {path} waits and a key could pay")
            latest = min(latest, room_by)
        self.expect(wake_at is not None or latest == NEVER, f"no wake-up, though a call can go by {latest}")
        self.expect(wake_at is None or wake_at <= latest, f"wakes up at {wake_at}, though a call can go by {latest}")

    def _may_go(self) -> set[str]:
        """The paths of the calls that wait for a key and for nothing else."""
        found = set()
        for (id, place), number in self._next_number.items():
            batch = self.batches[id]
            if self._due.get((id, place), 0) <= self.now and (number > 1 or batch.started < batch.reach):
                found.add(batch.call_at(place).path)
        return found
