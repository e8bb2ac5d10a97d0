"""Keys and groups of keys at work: their budgets, breakers and blocks.

Rule: what a 429 or a hint does to a key is carried out here, on that key alone; the keyring lists keys by what they
can pay. What several keys pay for together, or only some calls, is a budget beside the key's own: the limits of a
group, and those with the same `paths` of each owner. The key's *seat* for a path class names all that such a call pays
from.

Owner: the scheduler, on the engine's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.block import Owner
from apiflux_grpc.core.breaker import Breaker, State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.room import room_at
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.flight import Flight
    from apiflux_grpc.core.model import Key
    from apiflux_grpc.core.resources import Spent
    from apiflux_grpc.core.told import Mark

# A key that the upstream rejects: after so many in a row, lest one caller's forbidden path take it from
# all, tried again after 10 s, doubling up to 10 minutes.
KEY_BREAKER: Final = (3, 10 * SECOND, 600 * SECOND)


class GroupState(Owner):
    """A budget beside those of its keys: limits that they share, or that only some of their calls meet."""

    __slots__ = ("members", "paths")

    def __init__(self, budget: Budget, members: Sequence[KeyState] = (), paths: tuple[str, ...] = ()) -> None:
        super().__init__(budget)
        self.members = members
        self.paths = paths  # of its limits; empty: every call of its members meets them

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the keys that pay from it."""
        return tuple(member.key.label for member in self.members)

    def __repr__(self) -> str:
        return f"<GroupState of {len(self.members)} keys: {self.budget!r}>"


class Share:
    """What one permit takes of a budget beside its key's own."""

    __slots__ = ("cost", "flight", "mark", "owner", "taken_at")

    def __init__(self, owner: GroupState, cost: int, taken_at: int) -> None:
        self.owner = owner
        self.cost = cost
        self.taken_at = taken_at
        self.flight: Flight | None = None
        self.mark: Mark | None = None


class Seat:
    """A key as calls of one path class see it: they pay from its own budget and from those of `others`.

    `shifts`: other calls spend from these budgets too, so that its place in the heap may have become too good.
    """

    __slots__ = ("key", "listed", "number", "others", "shifts", "version")

    def __init__(self, key: KeyState, number: int) -> None:
        self.key = key
        self.number = number
        self.others: tuple[GroupState, ...] = ()
        self.shifts = False
        self.listed = False  # has a good entry in the heap of keys that can pay for this class
        self.version = 0  # the number of that entry

    def rank(self, now: int) -> tuple[float, int]:
        """(headroom, free calls) over all that such a call pays from; see Budget.rank."""
        share, free = self.key.budget.rank(now)
        for other in self.others:
            its_share, its_free = other.budget.rank(now)
            share, free = min(share, its_share), min(free, its_free)
        return share, free

    def usable_at(self, now: int) -> int:
        """When such a call may use the key, as far as blocks and its breaker go; see KeyState.usable_at."""
        at = self.key.usable_at(now)
        for other in self.others:
            if other.block is not None:
                at = max(at, other.block.ready_at(now))
        return at

    def takes(self, cost: int, now: int) -> bool:
        """Whether a call of `cost` ever fits, with these limits."""
        return all(room_at(owner.budget, cost, now) < FAR for owner in (self.key, *self.others))

    def fits_at(self, cost: int, now: int) -> int:
        """When a call of `cost` fits if nothing else is taken; FAR: never, as things stand."""
        at = max(self.usable_at(now), room_at(self.key.budget, cost, now))
        for other in self.others:
            at = max(at, room_at(other.budget, cost, now))
        return at

    def __repr__(self) -> str:
        return f"<Seat {self.number} of {self.key!r}>"


class KeyState(Owner):
    """A key at work: its own budget, and what the keyring knows of it.

    `group` has the limits that it shares and every call meets; `scoped` and `group_scoped` have the budgets of its own
    limits with paths and of its group's, by their paths.
    """

    __slots__ = (
        "attempts",
        "breaker",
        "cost_in_flight",
        "group",
        "group_scoped",
        "in_flight",
        "index",
        "key",
        "most",
        "paused_at",
        "rejected_with",
        "scoped",
        "seats",
        "secret_era",
        "spent",
        "spent_told_at",
        "unread_told",
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
        self.secret_era = 0  # of its breaker, in which it got its secret: calls of an earlier one go with another
        self.paused_at: int | None = None  # since when an administrator holds it back; None: nobody does
        self.rejected_with = 0  # the status with which it was last rejected
        self.spent_told_at: int | None = None  # when observers were told that nothing is left of a limit we don't know
        self.spent: dict[str, Spent] = {}  # what is used up for some calls only, by the upstream's name for it
        self.unread_told = False  # observers were told of a wait that can't be read
        self.scoped: dict[tuple[str, ...], GroupState] = {}
        self.group_scoped: dict[tuple[str, ...], GroupState] = {}
        self.seats: tuple[Seat, ...] = (Seat(self, 0),)  # by path class

    def rank(self, now: int) -> tuple[float, int]:
        """(headroom, free calls) over the limits that every call meets; see Budget.rank."""
        return self.seats[0].rank(now)

    def usable_at(self, now: int) -> int:
        """`now`, or when a block, its group's too, its breaker, or what the upstream says is left lets it be used; FAR:
        not before a probe ends, or somebody resumes it."""
        if self.paused_at is not None:
            return FAR
        at = max(now, self.breaker.ready_at(now))
        if self.budget.told is not None:
            at = max(at, self.budget.told.held_until(now))
        if self.block is not None:
            at = max(at, self.block.ready_at(now))
        if self.group is not None and self.group.block is not None:
            at = max(at, self.group.block.ready_at(now))
        return at

    @property
    def labels(self) -> tuple[str, ...]:
        """Its own."""
        return (self.key.label,)

    @property
    def is_open(self) -> bool:
        """It works and isn't blocked, or it is known until when it is, or who paused it will resume it."""
        if self.paused_at is not None:
            return True
        group = self.group
        return self.breaker.state is State.CLOSED and self.open_or_told and (group is None or group.open_or_told)

    @property
    def owners(self) -> Sequence[KeyState | GroupState]:
        """Who has the limits that bind it: itself, and its group."""
        return (self,) if self.group is None else (self, self.group)

    @property
    def path_owners(self) -> Sequence[GroupState]:
        """Who has the limits that only some of its calls meet."""
        if not self.scoped and not self.group_scoped:
            return ()
        return (*self.scoped.values(), *self.group_scoped.values())

    @property
    def calm(self) -> bool:
        """Nothing holds it back, and nothing went wrong: a success has nothing to say."""
        group = self.group
        return self.breaker.calm and self.block is None and (group is None or group.block is None)

    def __repr__(self) -> str:
        return f"<KeyState {self.key.label}: {self.in_flight} in flight, {self.budget!r}>"
