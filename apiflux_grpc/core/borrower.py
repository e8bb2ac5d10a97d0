"""One budget that is shared through a store, as its process knows it: what it spends, and how much of it it would have.

Rule: it is for what its calls can use within `reach`, and no more of a limit than flows in that time or can be sent at
once. Nothing is asked here, nor decided when to: see borrowing.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.words import NOTHING, Amounts
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.units import MILLISECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.fleet import Fleet
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.lease.ledger import Ledger
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.shared_blocks import SharedBlocks

REACH: Final = 4  # so often in the life of a lease something is asked for at least; ledgers may twice as often
LEAST_SHARE: Final = 0.05  # that is hoped for of what others use alone
NEAR_PORTION: Final = 50  # a process that is killed loses at most one of so many of each limit
NEAR_PACE: Final = 5 * MILLISECOND  # and asks so often for another


class Spending:
    """What was taken of late: in this slice of time, and in the one before."""

    __slots__ = ("_before", "_now", "_slice", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self._slice = -2
        self._now = self._before = NOTHING

    def add(self, cost: int, now: int) -> None:
        """A call was taken."""
        self._turn(now)
        self._now = Amounts(self._now.calls + 1, self._now.cost + cost)

    def lately(self, now: int) -> Amounts:
        """What was taken within about one slice."""
        self._turn(now)
        return max(self._before, self._now)

    def less_at(self, now: int) -> int:
        """When that will be less, if nothing more is taken; FAR: it's nothing."""
        return (now // self.length + 1) * self.length if self.lately(now).calls else FAR

    def _turn(self, now: int) -> None:
        number = now // self.length
        if number != self._slice:
            self._before = self._now if number == self._slice + 1 else NOTHING
            self._slice, self._now = number, NOTHING


class Borrower:
    """One budget that is shared through a store: whose it is, its ledger, and what was spent of it of late."""

    __slots__ = (
        "_used",
        "asked",
        "blocks",
        "by_cost",
        "chunk",
        "fleet",
        "kept_until",
        "lacks",
        "ledger",
        "most",
        "owner",
        "portion",
        "reach",
        "retired",
        "short_at",
        "spending",
        "tier",
        "wake",
    )

    def __init__(
        self, owner: KeyState | GroupState, ledger: Ledger, limits: Sequence[Limit], tier: Tier, portion: int = 1
    ) -> None:
        """No more than one of so many portions of a limit is borrowed at a time, or what flows within its reach."""
        self.owner = owner
        self.ledger = ledger
        self.tier = tier
        self.wake = FAR  # for Alarms
        self.fleet: Fleet | None = None  # what the others have of it, from the budget's beginning on
        self.blocks: SharedBlocks
        self.portion = portion
        self.retired = False  # its owner has no limits any more
        self.lacks = 0  # a call of this cost, or 1, found no lease with enough; 0: none did since it was granted one
        self.asked = 0  # calls that wait for what it has asked for
        self.kept_until = -FAR  # what it has is returned no sooner
        self.short_at = -FAR  # when it was last granted less than it wanted
        self.keep_to(limits)

    def keep_to(self, limits: Sequence[Limit]) -> None:
        """What follows from the limits, which its ledger has too."""
        life, portion = self.ledger.life, self.portion
        self._used = Spending(max(limit.per for limit in limits))
        self.reach = min(life, max(life // REACH, 50 * MILLISECOND))
        self.spending = Spending(self.reach)
        self.by_cost = any(limit.counts is Counts.COST for limit in limits)
        # Within its reach: the most that can be sent, and as much as the limits let through at an even pace.
        self.most = self._least(limits, lambda one, flow: min(_most(one, flow), max(1, flow, one.max // portion)))
        self.chunk = self._least(limits, lambda limit, flow: max(1, flow))

    def _least(self, limits: Sequence[Limit], amount: Callable[[Limit, int], int]) -> Amounts:
        calls, cost = (
            min((amount(one, one.max * self.reach // one.per) for one in limits if one.counts is counts), default=FAR)
            for counts in (Counts.CALLS, Counts.COST)
        )
        return Amounts(calls, cost)

    def part(self, waiting: int, most: int, mean: float) -> Amounts:
        """Its part of so many calls that wait, of which so many at the most can be sent; of this mean cost."""
        if not waiting or not most:
            return NOTHING
        each = max(mean, 1e-3)  # a cost may be 0
        chunk = min(self.chunk.calls, max(1, int(self.chunk.cost / each)))
        share = max(chunk, -(-min(waiting, most) // self.tier.lacking))
        calls = min(self.most.calls, max(1, int(self.most.cost / each)), most, share)
        return Amounts(calls, max(self.lacks, math.ceil(calls * mean)) if self.by_cost else 0)

    def spent(self, cost: int, now: int) -> None:
        """A call was taken."""
        self.spending.add(cost, now)
        self._used.add(cost, now)

    def share(self, now: int) -> float:
        """The part of its limits that is ours, 0 to 1: 1 as long as it gets all that it wants."""
        if now - self.short_at >= self._used.length:
            return 1.0
        used = self._used.lately(now)
        parts = (
            (used.calls if limit.counts is Counts.CALLS else used.cost) * limit.per / (limit.max * self._used.length)
            for limit in self.owner.budget.limits
        )
        # What others use can be seen where all is used: of the limit that binds.
        return min(1.0, max(LEAST_SHARE, *parts))

    def __repr__(self) -> str:
        return f"<Borrower {self.ledger!r}>"


class Tier:
    """The budgets of one kind: those of the keys themselves, those of groups, those of limits with the same paths. A
    call pays from at most one of them."""

    __slots__ = ("asked", "lacking", "paths", "short")

    def __init__(self, paths: tuple[str, ...] = ()) -> None:
        self.paths = paths
        self.short: dict[
            Borrower, None
        ] = {}  # those that lack a lease and have asked for none, in the order of finding
        self.lacking = 0  # those that lack one, asked or not
        self.asked = 0  # calls that wait for what was asked for


def _most(limit: Limit, flow: int) -> int:
    """What it lets through at once and in the time of `flow`."""
    return limit.depth + flow if limit.kind is Kind.BUCKET else min(limit.max, limit.depth + flow)
