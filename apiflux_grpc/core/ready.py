"""The keys that can pay now for calls of one path class, best first.

Rule: a heap of entries, of which each key has at most one good one: the entry with its seat's latest `version`. A
change pushes a new entry and leaves the old one, which is dropped when it comes up, so a change costs O(log keys) and
nothing is searched for. `listed` says that a key has a good entry.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiflux_grpc.core.keys import Seat

# (-headroom, -free calls, in flight, place in the pool, version, seat): the order of choice. The place makes it total,
# so that two drivers of the same calls get the same permits.
Entry = tuple[float, int, int, int, int, "Seat"]


class Ready:
    """`heap` is for the keyring alone, which looks at its top for every permit."""

    __slots__ = ("_most", "heap")

    def __init__(self, keys: int) -> None:
        self.heap: list[Entry] = []
        self._most = 2 * keys + 64

    def list(self, seat: Seat, now: int) -> None:
        """The key can pay; or its place is another now."""
        # Stale entries go when they come up; those that never do are swept out before they are the most.
        if len(self.heap) > self._most:
            self.heap[:] = [entry for entry in self.heap if entry[4] == entry[5].version]
            heapify(self.heap)
        seat.listed = True
        seat.version += 1
        share, free = seat.rank(now)
        key = seat.key
        heappush(self.heap, (-share, -free, key.in_flight, key.index, seat.version, seat))

    def unlist(self, seat: Seat) -> None:
        """The key can't pay."""
        seat.listed = False
        seat.version += 1

    def relist_top(self, seat: Seat, now: int) -> None:
        """The key on top has paid and can pay more. One heap operation; `list` and a pop are two."""
        key = seat.key
        share, free = seat.rank(now) if seat.others else key.budget.rank(now)
        seat.version = version = seat.version + 1
        heapreplace(self.heap, (-share, -free, key.in_flight, key.index, version, seat))

    def unlist_top(self, seat: Seat) -> None:
        """The key on top has paid and can't pay more now."""
        heappop(self.heap)
        seat.listed = False

    def __repr__(self) -> str:
        return f"<Ready {len(self.heap)} entries>"
