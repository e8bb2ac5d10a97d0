"""A lease store in the memory of this process: for pools that share a budget and keep it nowhere.

Rule: the very functions that every store runs, on the process's own clock. It ends with the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.terms import LEAST_LIFE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.lease.entry import Entry
    from apiflux_grpc.core.lease.words import Reply, Round


class MemoryLeaseStore:
    """`clock` is the engine's, in ns."""

    least_life = LEAST_LIFE
    is_near = False  # nobody is killed but all

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}

    async def exchange(self, rounds: Sequence[Round]) -> list[Reply]:
        """See LeaseStore; it is never gone."""
        return [serve(self._entries, round, self._clock(), "memory", steady=True) for round in rounds]

    async def close(self) -> None:
        """Nothing is open."""

    def __repr__(self) -> str:
        return f"<MemoryLeaseStore of {len(self._entries)} budgets>"
