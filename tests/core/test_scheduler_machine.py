"""The scheduler over virtual hours, against a naive model.

Rule: whatever the keys, the callers and the upstream do, no window of a key ever holds more arrivals than its limit,
no call is lost or made twice at once, and no key that could pay is left idle while a call waits.

`Work` is pump, network and upstream in one, on an event queue. It knows nothing of groups, flights or heaps: it
keeps every attempt and counts. What the scheduler may be late by is written out once, in `_held_until`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Counts, Key, Limit, Pool
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Unknown
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import block
from tests.core.world import NEVER, World, next_cost

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        self._pacers: list[list[tuple[Counts, FakePacer]]] = []
        if paced:
            left = iter(built)  # a budget makes the pacers of its call limits first
            for key in pool.keys:
                ordered = sorted(key.limits, key=lambda limit: limit.counts is Counts.COST)
                self._pacers.append([(limit.counts, next(left)) for limit in ordered])
        else:
            self._pacers = [[] for _ in pool.keys]
        self._gates = [[Gate(limit) for limit in key.limits] for key in pool.keys]
        self._holding: list[list[Flying]] = [[] for _ in pool.keys]  # attempts that may still fill a slot
        self._undisturbed = False  # nothing was told to the scheduler since it was last asked
        self._in_vain = 0  # wake-ups in a row that changed nothing

    # -- what a test does ---------------------------------------------------------------------

    def add(self, caller: str, total: int, weight: float, costs: list[int] | None, room: int) -> None:
        self._admit(caller, total, weight, costs, room)
        self._tell()

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
            for window in (*key.budget.windows, *key.budget.cost_windows):
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
            gates = self._gates[flying.permit.key.index]
            lateness = 2 if all(gate.is_empty(self.now) for gate in gates) else 0
        self._at(self.now + (latest - self.now) * lateness // 2, lambda: self._arrive(flying))
        self._at(ends, lambda: not flying.over and self._end(flying))
        return plan.fate != "untold"

    def _tell_sent(self, flying: Flying) -> None:
        flying.told = self.now
        self.dispatcher.sent(flying.permit, self.now)

    def _arrive(self, flying: Flying) -> bool:
        for gate in self._gates[flying.permit.key.index]:
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
        shortest = min(limit.per for limit in flying.permit.key.key.limits)
        instant = flying.told + self.pool.arrival_jitter + shortest // 128
        if flying.answer_told is not None:
            instant = min(instant, flying.answer_told)
        return instant + limit.per + limit.per // 10_000 + 1 + limit.per // 128

    def _room_by(self, key: KeyState, cost: int) -> int:
        """When the key can pay for a call of this cost at the latest, if nothing else happens."""
        if self._in_flight[key.index] >= (key.key.max_in_flight or NEVER):
            return NEVER
        room_by = max(self.now, self._blocked[key.index], self.scheduler.breaker.ready_at(self.now))
        if room_by >= FAR:
            return NEVER  # a probe of the upstream is out
        holding = self._holding[key.index]
        for limit in key.key.limits:
            by_cost = limit.counts is Counts.COST
            ends = sorted((self._held_until(one, limit), one.permit.cost if by_cost else 1) for one in holding)
            ends = [(end, amount) for end, amount in ends if end > self.now]
            over = sum(amount for _, amount in ends) + (cost if by_cost else 1) - limit.max
            for end, amount in ends:
                if over <= 0:
                    break
                over -= amount
                room_by = max(room_by, end)
            if over > 0:
                return NEVER
        for counts, pacer in self._pacers[key.index]:
            room_by = max(room_by, pacer.ready_at(cost if counts is Counts.COST else 1, self.now))
        return room_by

    def _prune(self) -> None:
        for key, holding in zip(self.pool.keys, self._holding, strict=True):
            holding[:] = [
                one for one in holding if any(self._held_until(one, limit) > self.now for limit in key.limits)
            ]

    def _check_wake(self, wake_at: int | None) -> None:
        """Never idle while a call waits, and never asleep past the instant at which one could go."""
        self._prune()
        retry_at = self._retry_at()
        head = self.scheduler.head
        may_go = any(batch.again or batch.started < min(batch.reach, batch.total) for batch in self.batches.values())
        self.expect((head is not None) == may_go, "the queue forgot who waits, or names one who doesn't")
        if head is None or sum(self._in_flight) >= self.pool.max_connections:
            self.expect(wake_at == (None if retry_at == NEVER else retry_at), "no time to wake up at but a retry's")
            return
        cost = next_cost(head)
        room_by = min(self._room_by(key, cost) for key in self.scheduler.keys)
        self.expect(room_by > self.now, "idle, though a call waits and a key could pay")
        latest = min(room_by, retry_at)
        self.expect(wake_at is not None or latest == NEVER, f"no wake-up, though a call can go by {latest}")
        self.expect(wake_at is None or wake_at <= latest, f"wakes up at {wake_at}, though a call can go by {latest}")


# -- strategies ----------------------------------------------------------------------------------

pers = st.sampled_from([100, 1_000_003, SECOND, 10 * SECOND, MINUTE, HOUR])
call_limits = st.builds(Limit, st.integers(1, 12), pers)
cost_limits = st.builds(Limit, st.integers(3, 30), pers, st.just(Counts.COST))
some_limits = st.lists(call_limits, min_size=1, max_size=3)
mixed_limits = st.lists(call_limits | cost_limits, min_size=1, max_size=3)
ceilings = st.none() | st.integers(1, 4)
moments = st.sampled_from(
    [0, 1, MILLISECOND, JITTER // 3, JITTER - 1, JITTER, JITTER + 1, SECOND, 9 * SECOND, 90 * SECOND]
)
stretches = st.sampled_from([1, MILLISECOND, JITTER, SECOND, 10 * SECOND, MINUTE, 10 * MINUTE, HOUR])
plans = st.builds(
    Plan,
    fate=st.sampled_from(["answer", "answer", "answer", "hang", "hang", "refused", "untold"]),
    delay=moments,
    latency=moments | st.sampled_from([MINUTE, HOUR]),
    body=st.sampled_from([0, 0, 0, MILLISECOND, SECOND]),
    lateness=st.sampled_from([3, 3, 0, 1, 2]),
    again=st.none() | moments,
)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    limits = draw(st.sampled_from([some_limits, mixed_limits]))
    keys = [
        Key(f"key-{place}", "secret", tuple(draw(limits)), draw(ceilings)) for place in range(draw(st.integers(1, 5)))
    ]
    jitter = draw(st.sampled_from([0, MILLISECOND, JITTER]))
    return Pool("pool", tuple(keys), jitter, max_connections=draw(st.sampled_from([1000, 1000, 3])))


def largest_cost(pool: Pool) -> int:
    """What the key that takes the largest call takes."""
    each = [[limit.max for limit in key.limits if limit.counts is Counts.COST] for key in pool.keys]
    return max(min(own, default=20) for own in each)


class SchedulerMachine(RuleBasedStateMachine):
    """Everything that may happen to a pool, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world: Work | None = None

    @property
    def at_work(self) -> Work:
        assert self.world is not None
        return self.world

    @initialize(
        pool=pools(),
        paced=st.booleans(),
        most=st.sampled_from([1 << 30, 1 << 30, 2]),
        slack=moments.filter(lambda at: at < SECOND),
    )
    def begin(self, pool: Pool, paced: bool, most: int, slack: int) -> None:
        by_cost = any(limit.counts is Counts.COST for key in pool.keys for limit in key.limits)
        self.world = Work(pool, paced=paced and not by_cost, most=most)
        self.world.slack = slack

    @precondition(lambda self: self.at_work.scheduler.waiting < 200)
    @rule(
        caller=st.sampled_from("abc"),
        total=st.integers(1, 60),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
        costs=st.none() | st.lists(st.integers(0, 100), min_size=1, max_size=4),
        room=st.sampled_from([1 << 30, 1 << 30, 5]),
    )
    def add(self, caller: str, total: int, weight: float, costs: list[int] | None, room: int) -> None:
        world = self.at_work
        if costs is not None:
            largest = largest_cost(world.pool)
            around = cycle(1 + cost % largest for cost in costs)
            costs = [next(around) for _ in range(total)]
        world.add(caller, total, weight, costs, room)

    @rule(upstream=st.lists(plans, min_size=1, max_size=5))
    def behave(self, upstream: list[Plan]) -> None:
        self.at_work.plans = cycle(upstream)

    @rule(length=stretches)
    def run_on(self, length: int) -> None:
        self.at_work.run(length)

    @rule(length=stretches)
    def ask_at_any_time(self, length: int) -> None:
        self.at_work.run(length)
        self.at_work.ask()

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99), cut=st.booleans())
    def cancel(self, which: int, cut: bool) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.cancel(batches[which % len(batches)], cut)

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99))
    def stop(self, which: int) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.stop(batches[which % len(batches)])

    @rule(which=st.integers(0, 4), length=stretches)
    def block(self, which: int, length: int) -> None:
        self.at_work.block(which % len(self.at_work.pool.keys), length)

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99), room=st.integers(1, 10))
    def give_room(self, which: int, room: int) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.give_room(batches[which % len(batches)], room)

    def teardown(self) -> None:
        if self.world is not None and not self.world.broken:
            self.world.drain()


TestSchedulerMachine: Any = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(deadline=None, max_examples=100, stateful_step_count=30, print_blob=True)
TestSchedulerMachine.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
