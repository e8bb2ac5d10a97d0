"""The calls of one request, as the scheduler sees them.

Rule: calls are known by index only: the request message stays packed until a call's turn comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.outcome import Reason


@dataclass(slots=True)
class Again:
    """A call that waits to be attempted again; with another key than `avoid`, if there is one."""

    index: int
    number: int
    queue_time: int
    avoid: KeyState | None = None


class Costs(Protocol):
    """What each call of a batch costs, by its place."""

    def __getitem__(self, place: int, /) -> int: ...


class Batch:
    """The calls of one Process request, as the scheduler sees them.

    `costs` is None where every call costs 1. `room` is how many first attempts may still be assigned before the
    reader has taken results; its outbox keeps it up to date. Calls are known by index only: the request message
    stays packed until a call's turn comes.
    """

    __slots__ = (
        "admitted_at",
        "again",
        "caller",
        "costs",
        "done",
        "finish",
        "id",
        "in_flight",
        "next_index",
        "owed",
        "parked",
        "queued",
        "retrying",
        "room",
        "since",
        "total",
        "weight",
    )

    def __init__(
        self,
        id: int,
        caller: str,
        total: int,
        *,
        admitted_at: int,
        weight: float = 1.0,
        costs: Costs | None = None,
        room: int = 1 << 60,
    ) -> None:
        self.id = id
        self.caller = caller
        self.total = total
        self.admitted_at = admitted_at
        self.weight = weight
        self.costs = costs
        self.since: Costs | None = None  # when each call came, where that is not when the batch did
        self.room = room
        self.next_index = 0
        self.in_flight = 0
        self.done = 0
        self.again: deque[Again] = deque()  # retries that are due
        self.retrying = 0  # retries that are not due yet
        # Written by the fair queue alone:
        self.queued = False
        self.parked = False  # left out of the turns for now
        self.finish = 0.0
        self.owed = 0.0  # size that it took beyond what it was charged

    @property
    def next_cost(self) -> int:
        """What the call whose turn is next costs: a retry that is due, else the next first attempt."""
        if self.costs is None:
            return 1
        return self.costs[self.again[0].index if self.again else self.next_index]

    @property
    def waiting(self) -> int:
        """Calls without a permit and without a result, retries included."""
        return self.total - self.next_index + len(self.again) + self.retrying

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {self.caller}: {self.done}/{self.total} done, {self.in_flight} in flight>"


@dataclass(slots=True)
class Tally:
    """What became of a batch's calls so far; the summary's figures. Times are ns."""

    total: int
    succeeded: int = 0
    cancelled: int = 0
    retries: int = 0
    time_waiting: int = 0
    time_in_calls: int = 0
    failed: dict[Reason, int] = field(default_factory=dict)
    calls_by_key: dict[str, int] = field(default_factory=dict)
