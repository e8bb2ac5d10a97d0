"""What is to happen by itself, in the order of its instants.

Rule: each sleeper knows the earliest instant that is meant for it (`wake`), and only that one counts: an earlier one
that is set later leaves the old entry in the heap, which is dropped when it comes up. So setting costs O(log n), and
nothing is ever searched for. Old entries that are far off are swept out before they are the most.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from apiflux_grpc.core.bucket import FAR

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sleeper(Protocol):
    """Whoever is to be woken."""

    wake: int


S = TypeVar("S", bound=Sleeper)
_FEW: Final = 64


class Alarms(Generic[S]):
    """The alarms of many sleepers. Instants are ns."""

    __slots__ = ("_heap", "_most", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, S]] = []
        self._most = _FEW
        self._sequence = 0

    def set(self, one: S, at: int) -> None:
        """Wake it at `at` and at no other instant."""
        one.wake = at
        self._sequence += 1
        heap = self._heap
        heappush(heap, (at, self._sequence, one))
        if len(heap) > self._most:
            heap[:] = [entry for entry in heap if entry[0] == entry[2].wake]
            heapify(heap)
            self._most = 2 * len(heap) + _FEW

    def ring(self, now: int) -> Iterator[S]:
        """Those whose instant has come; each may be set anew meanwhile."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, one = heappop(heap)
            if at == one.wake:
                one.wake = FAR
                yield one

    def next_at(self) -> int:
        """The next instant that counts; FAR: there is none."""
        heap = self._heap
        while heap and heap[0][0] != heap[0][2].wake:
            heappop(heap)  # an earlier or a later one was meant since
        return heap[0][0] if heap else FAR

    def __len__(self) -> int:
        """Entries, those that don't count any more included."""
        return len(self._heap)

    def __repr__(self) -> str:
        return f"<Alarms {len(self._heap)}>"
