"""How much may be open at once, and how much is.

Rule: whether a batch is admitted is decided by counts, on the server's side and at once; what was admitted is
never shed. Counts fall as results are received, and by the rest when a batch is over.

Owner: the server's loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.errors import TooManyBatches, TooManyBytes, TooManyCalls

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL: Final = 1_000  # calls of a batch
KEPT_FOR_SMALL: Final = 200_000  # calls, a tenth of the default bound


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be open at once; `size` is bytes."""

    batches: int = 2_000
    calls: int = 2_000_000
    size: int = 1 << 30


class Admission:
    """What is open, against the bounds. `size` is bytes of request messages that are kept."""

    __slots__ = ("batches", "bounds", "calls", "size")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.batches = 0
        self.calls = 0
        self.size = 0

    def check(self, calls: int, size: int, retry_after: Callable[[], int]) -> None:
        """Raise Overloaded, with the drain time (ns) as `retry_after`, if such a batch isn't admitted now."""
        bounds = self.bounds
        for error, have, more, bound in (
            (TooManyBatches, self.batches, 1, bounds.batches),
            (TooManyCalls, self.calls, calls, self._calls_for(calls)),
            (TooManyBytes, self.size, size, bounds.size),
        ):
            if have + more > bound:
                raise error(have, more, limit=bound, retry_after=retry_after())

    def _calls_for(self, calls: int) -> int:
        """The last few places in the queue are for small batches: large ones alone can't fill it."""
        bound = self.bounds.calls
        return bound if calls <= SMALL else bound - min(bound // 10, KEPT_FOR_SMALL)

    def admit(self, calls: int, size: int, retry_after: Callable[[], int]) -> None:
        """Count one more batch, or raise Overloaded."""
        self.check(calls, size, retry_after)
        self.batches += 1
        self.calls += calls
        self.size += size

    def fed(self, calls: int) -> None:
        """More calls of a batch that was admitted; how many is the feeder's to bound."""
        self.calls += calls

    def received(self, results: int) -> None:
        """Results of an open batch have come: their calls are no longer queued."""
        self.calls -= results

    def over(self, rest: int, size: int) -> None:
        """A batch has ended, `rest` of its calls without a result."""
        self.batches -= 1
        self.calls -= rest
        self.size -= size

    def __repr__(self) -> str:
        return f"<Admission {self.batches} batches, {self.calls} calls, {self.size} bytes>"
