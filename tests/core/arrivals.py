"""A pool with limits of every kind at work on virtual time; and a naive model that counts at the arrival side.

Rule: a limit holds for the calls that were taken under it. So after a change a window of the new limit that has such a
call in it holds at most the new `max`, whatever went out before; a window without one is the old limit's affair.

The model counts per *owner*, a key or a group of keys. It knows more kinds of limits than that of work.py, and less
exactly: a key that was cut, told to wait or changed is excused for as long as it may take.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from heapq import heappop
from itertools import cycle
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR, largest
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.fields import HeaderField
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Counts, Kind, Limit, Pool
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Unknown
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.world import NEVER, World, next_cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.outcome import Outcome

MINUTE: Final = 60 * SECOND
ULPS: Final = 2 * MICROSECOND
COST: Final = HeaderField("x-cost")
LARGEST: Final = 8  # the largest cost; some key always takes it


@dataclass(frozen=True)
class Plan:
    """What becomes of one attempt. Lengths of time are ns."""

    fate: str = "answer"  # or: hang, refused (never sent), 429, rejected (401)
    delay: int = 0  # permit -> sent
    latency: int = 10 * MILLISECOND
    lateness: int = 2  # it arrives at once (0), half way (1), or at the last moment it can (2)
    share: int = 4  # quarters of the declared cost that it really takes
    again: int | None = None
    told: tuple[Counts, int, int] | None = None  # a hint in the answer: what is left, for how long


@dataclass(eq=False)
class Flying:
    """An attempt, as the naive model keeps it."""

    permit: Permit
    plan: Plan
    actual: int
    eras: tuple[int, ...]  # of each owner, when it was taken
    went: int | None = None
    answered: int | None = None
    over: bool = False


@dataclass
class Owner:
    """A key or a group on the upstream's side: every arrival, and the limits that held in each era."""

    limits: list[tuple[Limit, ...]]
    excused_until: int = 0
    told: bool = False  # an answer said what is left of its limits
    arrived: list[tuple[int, int, int]] = field(default_factory=list)  # (at, cost, era)
    levels: dict[Limit, tuple[int, float, int]] = field(
        default_factory=dict
    )  # of buckets: (era of its start, level, at)
    holding: list[Flying] = field(default_factory=list)

    @property
    def era(self) -> int:
        return len(self.limits) - 1

    def change(self, limits: tuple[Limit, ...]) -> None:
        self.limits.append(limits)
        self.levels = {limit: level for limit, level in self.levels.items() if limit in limits}

    def arrive(self, at: int, cost: int, era: int) -> str | None:
        """Returns what is wrong with it."""
        self.arrived.append((at, cost, era))
        for number in range(max(0, self.era - 2), self.era + 1):
            for limit in self.limits[number]:
                if limit.kind is Kind.WINDOW:
                    inside = [one for one in self.arrived if one[0] > at - limit.per and one[2] <= number]
                    total = len(inside) if limit.counts is Counts.CALLS else sum(one[1] for one in inside)
                    if any(one[2] == number for one in inside) and total > limit.max:
                        return f"{total} in a window of {limit}, era {number} of {self.era}"
        for limit in self.limits[self.era]:
            if limit.kind is Kind.BUCKET:
                start, level, last = self.levels.get(limit, (self.era, 0.0, at))
                if era >= start:
                    level = max(0.0, level - (at - last) * limit.max / limit.per)
                    level += 1 if limit.counts is Counts.CALLS else cost
                    if level > limit.depth + 1e-6:
                        return f"{level} in a bucket of {limit}"
                    self.levels[limit] = (start, level, at)
        return None

    def forget(self, now: int) -> None:
        longest = max((limit.per for limits in self.limits[-3:] for limit in limits), default=0)
        self.arrived = [one for one in self.arrived if one[0] > now - longest]


class Work(World[Flying]):
    """Pump, network and upstream of one pool in one, on virtual time."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, Dispatcher(pool, FakePacer))
        self.plans: Iterator[Plan] = cycle([Plan()])
        self.owners = [Owner([key.limits]) for key in pool.keys]
        self.owners += [Owner([group.limits]) for group in pool.groups]
        self._owners_of = [
            (place, *(len(pool.keys) + other for other, group in enumerate(pool.groups) if key.label in group.keys))
            for place, key in enumerate(pool.keys)
        ]

    # -- what a test does ---------------------------------------------------------------------

    def add(self, caller: str, total: int, weight: float, costs: list[int] | None) -> None:
        self._admit(caller, total, weight, costs)
        self.ask()

    def run(self, length: int) -> None:
        """Let `length` ns pass."""
        end = self.now + length
        while (at := self._next_at()) <= end:
            self.now = at
            while self._events and self._events[0][0] <= at:
                heappop(self._events)[2]()
            self.ask()
        self.now = end

    def ask(self) -> None:
        """One pass of the pump, and what it must leave behind."""
        permits, wake_at = self.dispatcher.assign(self.now, FAR)
        for permit in permits:
            self._start(permit)
        self._wake_at = wake_at
        self.expect(wake_at is None or wake_at > self.now, f"wake_at {wake_at} is not after now")
        self._check_counts()
        self._check_wake(wake_at)

    def cancel(self, batch: Batch) -> None:
        """The caller went away; what is in flight is stopped at once."""
        for flying in self._cancel(batch):
            self._end(flying)
        self._forget_if_over(batch)
        self.ask()

    def stop(self, batch: Batch) -> None:
        """The caller has had enough; what is in flight goes on."""
        self._stop(batch)
        self.ask()

    def change(self, place: int, limits: tuple[Limit, ...]) -> None:
        """Other limits for a key, if some key still takes the largest cost."""
        now_of = [owner.limits[-1] for owner in self.owners]
        if door([limits if other == place else own for other, own in enumerate(now_of)], self) < LARGEST:
            return
        owner = self.owners[place]
        owner.change(limits)
        # What it can't know counts as used, for the longest of the new windows; its pacers are full at worst.
        self.dispatcher.change_limits(place, limits, self.now)
        owner.excused_until = max(owner.excused_until, self.now + 2 * sum(map(self._kept, limits)))
        self.ask()

    def drain(self) -> None:
        """Run until every call has its result; no time may be without end."""
        started, calls = self.now, len(self._next_number) + len(self._flying)
        plans = self.plans  # in the end no call is refused for a limit any more: such calls come back for ever
        self.plans = (replace(plan, fate="answer") if plan.fate == "429" else plan for plan in plans)
        for _ in range(200_000):
            if not (self._next_number or self._flying):
                break
            at = self._next_at()
            self.expect(at < NEVER, "calls wait, and nothing will ever happen")
            self.run(at - self.now)
        self.expect(not (self._next_number or self._flying), f"no end of {calls} calls since {started}")
        self.expect(not self.batches, "a batch was never over")
        for _ in range(50):  # a cut comes back in steps
            self.run(2 * MINUTE)
            self.scheduler.advance(self.now)
            for budget in self._budgets():
                budget.advance(self.now)
        for budget in self._budgets():
            for window in (*budget.windows, *budget.cost_windows):
                self.expect((window.used, window.max) == (0, window.nominal), f"not as it began: {window!r}")
            self.expect(budget.next_change() == FAR, "something is still on its way")
        self.expect(self.scheduler.in_flight == self.scheduler.waiting == 0, "the counts are not back at 0")

    def _budgets(self) -> list[Budget]:
        return [key.budget for key in self.scheduler.keys] + [group.budget for group in self.scheduler.groups]

    # -- the upstream -------------------------------------------------------------------------

    def _of(self, permit: Permit) -> list[Owner]:
        return [self.owners[place] for place in self._owners_of[permit.key.index]]

    def _start(self, permit: Permit) -> None:
        plan = next(self.plans)
        flying = Flying(permit, plan, permit.cost * plan.share // 4, tuple(one.era for one in self._of(permit)))
        self._takes_off(permit, flying)
        for owner in self._of(permit):
            owner.holding.append(flying)
        late = self._has_bucket(permit) and plan.delay > self.pool.arrival_jitter // 2  # after send_by: not written
        sends = self._end if plan.fate == "refused" or late else self._send
        self._at(self.now + plan.delay, lambda: None if flying.over else sends(flying))

    def _has_bucket(self, permit: Permit) -> bool:
        return any(limit.kind is Kind.BUCKET for owner in self._of(permit) for limit in owner.limits[-1])

    def _send(self, flying: Flying) -> None:
        plan, permit = flying.plan, flying.permit
        flying.went = self.now
        self.dispatcher.sent(permit, self.now)
        latest = self.now + self.pool.arrival_jitter
        if self._has_bucket(permit):
            latest = min(latest, permit.taken_at + self.pool.arrival_jitter)
        if plan.fate != "hang":
            latest = min(latest, self.now + plan.latency)
        self._at(self.now + max(0, latest - self.now) * plan.lateness // 2, lambda: self._arrive(flying))
        self._at(self.now + plan.latency, lambda: None if flying.over else self._answer(flying))

    def _arrive(self, flying: Flying) -> None:
        for owner, era in zip(self._of(flying.permit), flying.eras, strict=True):
            wrong = owner.arrive(self.now, flying.actual, era)
            self.expect(wrong is None, f"over: {wrong}")

    def _answer(self, flying: Flying) -> None:
        plan, key = flying.plan, flying.permit.key
        if plan.fate != "hang":
            flying.answered = self.now
        self._end(flying)
        owners = self._of(flying.permit)
        if plan.fate == "429":
            self._blocked[key.index] = max(self._blocked[key.index], self.now + SECOND)
            for owner in owners:
                steps = 22 * max(map(self._kept, owner.limits[-1]), default=0)  # a twentieth comes back each time
                owner.excused_until = max(owner.excused_until, self.now + steps)
        if plan.told is not None and plan.fate == "answer":
            for owner in owners:
                # What others take is held for a period and J, or leaks out of a bucket; then one call goes alone.
                holds = max((self._holds(limit) for limit in owner.limits[-1]), default=0)
                owner.excused_until = max(owner.excused_until, self.now + max(plan.told[2], holds))
                owner.told = True

    def _end(self, flying: Flying) -> None:
        permit = flying.permit
        flying.over = True
        if flying.went is None:
            for owner in self._of(permit):
                owner.holding.remove(flying)
        self._lands(permit, self._outcome(flying), flying.plan.again or 0)

    def _outcome(self, flying: Flying) -> Outcome:
        plan = flying.plan
        if flying.went is None:
            return NotSent(Cause.UNREACHABLE, "refused")
        if flying.answered is None:
            return Unknown("no answer")
        headers = {} if plan.share == 4 else {"x-cost": str(flying.actual)}
        if plan.fate == "429":
            return Answer(429, Headers.of({**headers, "retry-after": "1"}), b"", flying.answered)
        if plan.fate == "rejected":
            return Answer(401, Headers.of(headers), b"", flying.answered)
        if plan.told is not None:
            counts, left, lasts = plan.told
            unit = "requests" if counts is Counts.CALLS else "tokens"
            told = {f"x-ratelimit-remaining-{unit}": str(left), f"x-ratelimit-reset-{unit}": f"{lasts // SECOND}s"}
            headers = {**headers, **told}
        return Answer(200 if plan.again is None else 404, Headers.of(headers), b"", flying.answered)

    # -- the naive model ----------------------------------------------------------------------

    def _holds(self, limit: Limit) -> int:
        """How long a word on what is left of this limit may hold it back."""
        return self._kept(limit) + (limit.depth * limit.per // limit.max if limit.kind is Kind.BUCKET else 0)

    def _kept(self, limit: Limit) -> int:
        return self.pool.arrival_jitter + limit.per + limit.per // 10_000 + limit.per // 64 + 2

    def _held_until(self, flying: Flying, limit: Limit, limits: Sequence[Limit]) -> int:
        if flying.went is None:
            return NEVER
        shortest = min(one.per for one in limits if one.kind is Kind.WINDOW)  # buckets keep no log
        instant = flying.went + self.pool.arrival_jitter + shortest // 128
        if flying.answered is not None:
            instant = min(instant, flying.answered)
        return instant + limit.per + limit.per // 10_000 + 1 + limit.per // 128

    def _room_by(self, key: KeyState, cost: int) -> int:
        """When the key can pay for a call of this cost at the latest, if nothing else happens."""
        if self._in_flight[key.index] >= (key.key.max_in_flight or NEVER):
            return NEVER
        breakers = (key.breaker.ready_at(self.now), self.scheduler.breaker.ready_at(self.now))
        room_by = max(self.now, self._blocked[key.index], *breakers)
        budgets = [key.budget] if key.group is None else [key.budget, key.group.budget]
        mine = {place for place in self._owners_of[key.index] if self.owners[place].told}
        if any(mine.intersection(self._owners_of[one.permit.key.index]) for one in self._flying.values()):
            return NEVER  # it may be that its answer is waited for
        for owner, budget in zip((self.owners[place] for place in self._owners_of[key.index]), budgets, strict=True):
            room_by = max(room_by, self._owner_room_by(owner, budget, cost))
        return room_by

    def _owner_room_by(self, owner: Owner, budget: Budget, cost: int) -> int:
        limits = owner.limits[-1]
        room_by = owner.excused_until
        for limit in limits:
            by_cost = limit.counts is Counts.COST
            if by_cost and cost > largest(limit, self.pool.arrival_jitter):
                return NEVER
            if limit.kind is Kind.BUCKET:
                continue
            ends = [
                (
                    self._held_until(one, limit, limits),
                    (one.permit.cost if one.answered is None else one.actual) if by_cost else 1,
                )
                for one in owner.holding
            ]
            ends = sorted(end for end in ends if end[0] > self.now)
            over = sum(amount for _, amount in ends) + (max(1, cost) if by_cost else 1) - limit.max
            for end, amount in ends:
                if over <= 0:
                    break
                over -= amount
                room_by = max(room_by, end)
            if over > 0:
                return NEVER
        for amount, pacers in ((1, budget._pacers), (cost, budget._cost_pacers)):
            for pacer in pacers:
                room_by = max(room_by, pacer.ready_at(amount, self.now))
        return room_by

    def _prune(self) -> None:
        for owner in self.owners:
            limits = [limit for limit in owner.limits[-1] if limit.kind is Kind.WINDOW]
            owner.holding = [
                one
                for one in owner.holding
                if one.went is None or any(self._held_until(one, limit, limits) > self.now for limit in limits)
            ]
            owner.forget(self.now)

    def _check_wake(self, wake_at: int | None) -> None:
        """Never idle while a call waits that a key could pay for, and never asleep past the instant it could."""
        self._prune()
        retry_at = self._retry_at()
        head = self.scheduler.head
        if head is None or sum(self._in_flight) >= self.pool.max_connections:
            return
        cost = next_cost(head)
        room_by = min(self._room_by(key, cost) for key in self.scheduler.keys)
        if wake_at is not None and wake_at <= self.now + ULPS:
            return  # a pacer's floats
        self.expect(room_by > self.now, f"idle, though a call of {cost} waits and a key could pay")
        latest = min(room_by, retry_at)
        self.expect(wake_at is not None or latest >= FAR, f"no wake-up, though a call can go by {latest}")
        self.expect(
            wake_at is None or wake_at <= latest + ULPS, f"wakes up at {wake_at}, though a call can go by {latest}"
        )


def door(limits: Sequence[tuple[Limit, ...]], world: Work) -> int:
    """The largest cost that some key takes."""
    return max(
        min((_takes(limit, world.pool.arrival_jitter) for place in places for limit in limits[place]), default=FAR)
        for places in world._owners_of
    )


def _takes(limit: Limit, jitter: int) -> int:
    return largest(limit, jitter) if limit.counts is Counts.COST else FAR
