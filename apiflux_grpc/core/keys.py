"""Keys and groups of keys at work.

Owner: the scheduler, on the engine's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.breaker import Breaker
from apiflux_grpc.core.budget import FAR
from apiflux_grpc.core.model import SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.budget import Budget, Flight
    from apiflux_grpc.core.model import Key

# A key that the upstream rejects (401, 403): after so many in a row, lest one caller's forbidden path take it from
# all, tried again after 10 s, doubling up to 10 minutes.
KEY_BREAKER: Final = (3, 10 * SECOND, 600 * SECOND)


class GroupState:
    """Keys that share limits, at work."""

    __slots__ = ("budget", "members", "wake")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.members: list[KeyState] = []
        self.wake = FAR

    def __repr__(self) -> str:
        return f"<GroupState of {len(self.members)} keys: {self.budget!r}>"


class Share:
    """What one permit takes of its key's group."""

    __slots__ = ("cost", "flight", "taken_at")

    def __init__(self, cost: int, taken_at: int) -> None:
        self.cost = cost
        self.taken_at = taken_at
        self.flight: Flight | None = None


class KeyState:
    """A key at work: its budget, and what the scheduler knows of it."""

    __slots__ = (
        "attempts",
        "blocked_until",
        "breaker",
        "budget",
        "cost_in_flight",
        "drawn_429",
        "group",
        "in_flight",
        "index",
        "key",
        "listed",
        "most",
        "version",
        "wake",
    )

    def __init__(self, index: int, key: Key, budget: Budget, group: GroupState | None = None) -> None:
        self.index = index
        self.key = key
        self.budget = budget
        self.group = group
        self.breaker = Breaker(*KEY_BREAKER)
        self.most = FAR if key.max_in_flight is None else key.max_in_flight
        self.in_flight = 0
        self.cost_in_flight = 0
        self.attempts = 0
        self.blocked_until = 0
        self.drawn_429 = 0  # in a row
        self.listed = False  # has a good entry in the heap of keys that can pay
        self.version = 0  # the number of that entry
        self.wake = FAR  # the earliest instant in the heap of wake-ups that is meant for it

    def rank(self, now: int) -> tuple[float, int]:
        """(headroom, free calls), its group's limits included; see Budget.rank."""
        share, free = self.budget.rank(now)
        if self.group is not None:
            its_share, its_free = self.group.budget.rank(now)
            return min(share, its_share), min(free, its_free)
        return share, free

    def usable_at(self, now: int) -> int:
        """`now`, or when a block or its breaker lets it be used again."""
        return max(now, self.blocked_until, self.breaker.ready_at(now))

    def __repr__(self) -> str:
        return f"<KeyState {self.key.label}: {self.in_flight} in flight, {self.budget!r}>"
