"""Keys and groups of keys at work: their budgets, breakers and blocks.

Rule: what a 429 or a hint does to a key is carried out here, on that key alone; the scheduler lists keys by what they
can pay.

Owner: the scheduler, on the engine's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.block import LONGEST_GUESS, Owner
from apiflux_grpc.core.breaker import Breaker, State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.flight import Flight
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.model import Key, Limit

# A key that the upstream rejects (401, 403): after so many in a row, lest one caller's forbidden path take it from
# all, tried again after 10 s, doubling up to 10 minutes.
KEY_BREAKER: Final = (3, 10 * SECOND, 600 * SECOND)


class GroupState(Owner):
    """Keys that share limits, at work."""

    __slots__ = ("members",)

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.members: list[KeyState] = []

    def __repr__(self) -> str:
        return f"<GroupState of {len(self.members)} keys: {self.budget!r}>"


class Share:
    """What one permit takes of its key's group."""

    __slots__ = ("cost", "flight", "taken_at")

    def __init__(self, cost: int, taken_at: int) -> None:
        self.cost = cost
        self.taken_at = taken_at
        self.flight: Flight | None = None


class KeyState(Owner):
    """A key at work: its budget, and what the scheduler knows of it."""

    __slots__ = (
        "attempts",
        "breaker",
        "cost_in_flight",
        "group",
        "in_flight",
        "index",
        "key",
        "listed",
        "most",
        "rejected_with",
        "unread_told",
        "version",
    )

    def __init__(self, index: int, key: Key, budget: Budget, group: GroupState | None = None) -> None:
        super().__init__(budget)
        self.index = index
        self.key = key
        self.group = group
        self.breaker = Breaker(*KEY_BREAKER)
        self.most = FAR if key.max_in_flight is None else key.max_in_flight
        self.in_flight = 0
        self.cost_in_flight = 0
        self.attempts = 0
        self.rejected_with = 0  # the status with which it was last rejected
        self.unread_told = False  # observers were told of a wait that can't be read
        self.listed = False  # has a good entry in the heap of keys that can pay
        self.version = 0  # the number of that entry

    def rank(self, now: int) -> tuple[float, int]:
        """(headroom, free calls), its group's limits included; see Budget.rank."""
        share, free = self.budget.rank(now)
        if self.group is not None:
            its_share, its_free = self.group.budget.rank(now)
            return min(share, its_share), min(free, its_free)
        return share, free

    def usable_at(self, now: int) -> int:
        """`now`, or when a block, its group's too, or its breaker lets it be used; FAR: not before a probe ends."""
        at = max(now, self.breaker.ready_at(now))
        if self.block is not None:
            at = max(at, self.block.ready_at(now))
        if self.group is not None and self.group.block is not None:
            at = max(at, self.group.block.ready_at(now))
        return at

    @property
    def is_open(self) -> bool:
        """It works and isn't blocked, or it is known until when it is."""
        group = self.group
        return self.breaker.state is State.CLOSED and self.open_or_told and (group is None or group.open_or_told)

    @property
    def owners(self) -> Sequence[KeyState | GroupState]:
        """Who has the limits that bind it: itself, and its group."""
        return (self,) if self.group is None else (self, self.group)

    @property
    def calm(self) -> bool:
        """Nothing holds it back, and nothing went wrong: a success has nothing to say."""
        group = self.group
        return self.breaker.calm and self.block is None and (group is None or group.block is None)

    def fits_at(self, cost: int, now: int) -> int:
        """When a call of `cost` fits if nothing else is taken; FAR: never, as things stand."""
        at = max(self.usable_at(now), self.budget.room_at(cost, now))
        return at if self.group is None else max(at, self.group.budget.room_at(cost, now))

    @property
    def send_within(self) -> int | None:
        """How long (ns) after its permit a call may still be written; None: as long as its timeout.

        A bucket's pacer counts from the permit, so the wait for a connection is a part of the arrival margin.
        """
        paced = self.budget.buckets or (self.group is not None and self.group.budget.buckets)
        return self.budget.jitter // 2 if paced else None

    def cut(self, now: int, taken_at: int, told: Sequence[Hint]) -> Limit | None:
        """It was refused though every limit was kept: allow less of the limit that the hints name, else of the
        tightest, its group's included. Returns it, or None if nothing was cut (anew)."""
        owner = self.budget
        if self.group is not None and self.group.budget.rank(now) < owner.rank(now):
            owner = self.group.budget
        spent = next(((hint.counts, hint.per) for hint in told if not hint.remaining), (None, None))
        return owner.cut(now, taken_at, *spent)

    def hear(self, told: Sequence[Hint], now: int) -> None:
        """What is left of its limits, less what is on its way, is the most that may still go until they reset."""
        for hint in told:
            counts = hint.counts or self._meant(hint)
            flying = self.in_flight if counts is Counts.CALLS else self.cost_in_flight
            periods = [limit.per for limit in self.budget.limits if limit.counts is counts]
            lasts = hint.reset_in if hint.reset_in is not None else hint.per or min(periods, default=LONGEST_GUESS)
            self.budget.ceilings.tighten(counts, max(0, hint.remaining - flying), now + lasts)

    def _meant(self, hint: Hint) -> Counts:
        """What a hint that doesn't say so counts: as the limit that it means, else the only kind that the key has."""
        limits = self.budget.limits
        for limit in limits:
            if hint.max == limit.max and hint.per in (None, limit.per):
                return limit.counts
        kinds = {limit.counts for limit in limits}
        return kinds.pop() if len(kinds) == 1 else Counts.CALLS

    def __repr__(self) -> str:
        return f"<KeyState {self.key.label}: {self.in_flight} in flight, {self.budget!r}>"


def sizes(keys: Sequence[KeyState], groups: Sequence[GroupState]) -> tuple[float, float]:
    """What one call, and one unit of cost, takes of the pool's dominant resource, in seconds of the whole pool.

    The dominant share of Ghodsi et al., "Dominant Resource Fairness" (NSDI 2011): a call's size is the larger of
    the two. 0 if nothing limits that kind.
    """
    rates = []
    for counts in Counts:
        total = sum(_rate(key.budget.limits, counts) for key in keys if key.group is None)
        for group in groups:
            members = sum(_rate(key.budget.limits, counts) for key in group.members)
            total += min(members, _rate(group.budget.limits, counts))
        rates.append(1 / total if 0 < total < float("inf") else 0.0)
    calls, cost = rates
    return calls or (1e-9 if cost else 1.0), cost  # a call of cost 0 takes its turn too


def _rate(limits: Sequence[Limit], counts: Counts) -> float:
    """Per second, by the tightest limit of this kind; infinite without one."""
    return min((limit.max * 1e9 / limit.per for limit in limits if limit.counts is counts), default=float("inf"))
