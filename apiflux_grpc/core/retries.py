"""Calls that wait to be attempted again, in the order in which they fall due.

Rule: a retry waits here and not in a task or a timer of its own; when it is due it stands first in its batch.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import FAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apiflux_grpc.core.batch import Again, Batch


class Retries:
    """The retries of one pool that are not due yet. Instants are ns."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Batch, Again]] = []
        self._sequence = 0

    def add(self, batch: Batch, again: Again, at: int) -> None:
        """Not before `at`."""
        self._sequence += 1
        heappush(self._heap, (at, self._sequence, batch, again))
        batch.retrying += 1

    def due(self, now: int) -> Iterator[tuple[Batch, Again]]:
        """Those whose time has come, taken out."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, batch, again = heappop(heap)
            batch.retrying -= 1
            yield batch, again

    def drop(self, batch: Batch) -> list[Again]:
        """Those of a batch that nothing more is to be assigned of, taken out."""
        if not batch.retrying:
            return []
        dropped = [entry[3] for entry in self._heap if entry[2] is batch]
        self._heap = [entry for entry in self._heap if entry[2] is not batch]
        heapify(self._heap)
        batch.retrying = 0
        return dropped

    def of(self, batch: Batch) -> list[Again]:
        """Those of a batch."""
        return [entry[3] for entry in self._heap if entry[2] is batch] if batch.retrying else []

    def take(self, batch: Batch, wanted: Callable[[Again], bool]) -> list[Again]:
        """Those of a batch that are wanted, taken out."""
        taken = [entry[3] for entry in self._heap if entry[2] is batch and wanted(entry[3])] if batch.retrying else []
        if taken:
            self._heap = [entry for entry in self._heap if entry[2] is not batch or not wanted(entry[3])]
            heapify(self._heap)
            batch.retrying -= len(taken)
        return taken

    def first_of_each(self) -> dict[int, int]:
        """When the next one of each batch falls due, by its id. All are gone through."""
        first: dict[int, int] = {}
        for at, _, batch, _ in self._heap:
            if at < first.get(batch.id, FAR):
                first[batch.id] = at
        return first

    def next_at(self) -> int:
        """When the next one falls due; FAR: there is none."""
        return self._heap[0][0] if self._heap else FAR

    def __repr__(self) -> str:
        return f"<Retries {len(self._heap)}>"
