"""The door in: what the server tells the engine, and the counts that decide at the door.

Rule: whether a batch is admitted is decided by counts, on the server's side and at once; what was admitted is
never shed. Counts fall as results are received, and by the rest when a batch is over. An unknown batch is ignored
on the other side: a cancel may cross the batch's end.

Owner: the server's loop owns Admission and the specs until they are posted; then they are the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiflux_grpc.core.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.model import Call, RetryPolicy


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """A batch that was found valid. `calls` may make its items only when they are asked for; `size` is bytes held."""

    pool: str
    caller: str
    calls: Sequence[Call]
    retry: RetryPolicy
    size: int = 0
    costs: Sequence[int] | None = None
    weight: float = 1.0
    caller_weight: float = 1.0
    ordered: bool = False
    fed: bool = False  # its calls come later, by Feed, until End
    deadline: int | None = None  # ns from the submission, after which nobody waits for it


@dataclass(frozen=True, slots=True)
class Submit:
    id: int
    spec: BatchSpec


@dataclass(frozen=True, slots=True)
class Feed:
    """More calls of a batch that is fed: (index, call, cost), or (index, what is wrong with it)."""

    id: int
    calls: Sequence[tuple[int, Call, int]]
    wrong: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class End:
    """No more calls will be fed."""

    id: int


@dataclass(frozen=True, slots=True)
class EndUnsent:
    """No more calls come, and those that wait end as STOPPED."""

    id: int


@dataclass(frozen=True, slots=True)
class Credit:
    """The reader has taken so many results, of so many bytes."""

    id: int
    results: int
    size: int


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """No new work: what was never sent ends as DRAINING, what is in flight finishes within `grace` ns."""

    grace: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Are you there? `detail`: tell the state of every key too."""

    detail: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """How long would so many calls of this cost take for this caller, if they came now?"""

    id: int
    pool: str
    caller: str
    calls: int
    cost: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel everything and end."""


Inbound = Submit | Feed | End | EndUnsent | Credit | Cancel | Drain | Beat | Ask | Stop


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be open at once."""

    batches: int = 2_000
    calls: int = 2_000_000
    size: int = 1 << 30


class Admission:
    """What is open, against the bounds."""

    __slots__ = ("batches", "bounds", "calls", "size")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.batches = 0
        self.calls = 0
        self.size = 0

    def admit(self, calls: int, size: int, retry_after: int) -> None:
        """Count one more batch, or raise Overloaded; `retry_after` is the drain time (ns) that it then tells."""
        bounds = self.bounds
        for reason, what, have, more, bound in (
            ("TOO_MANY_BATCHES", "batches", self.batches, 1, bounds.batches),
            ("TOO_MANY_CALLS", "queued calls", self.calls, calls, bounds.calls),
            ("TOO_MANY_BYTES", "bytes of queued requests", self.size, size, bounds.size),
        ):
            if have + more > bound:
                message = f"{have} {what} are open, and {more} more would exceed the bound of {bound}"
                raise Overloaded(reason, message, limit=bound, retry_after=retry_after)
        self.batches += 1
        self.calls += calls
        self.size += size

    def received(self, results: int) -> None:
        self.calls -= results

    def over(self, rest: int, size: int) -> None:
        self.batches -= 1
        self.calls -= rest
        self.size -= size

    def __repr__(self) -> str:
        return f"<Admission {self.batches} batches, {self.calls} calls, {self.size} bytes>"
