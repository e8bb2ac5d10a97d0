"""A lease store for tests, with all that can happen to a real one.

Rule: it fulfils LeaseStore with the very functions that the stores run. Its clock is handed in, and may be stepped;
what a failover or a flush takes away is said by the test.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.terms import LEAST_LIFE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.lease.entry import Entry
    from apiflux_grpc.core.lease.words import Reply, Round


class FakeLeaseStore:
    """`clock` gives the server's time in ns. `step` is added to it; `rounds` counts those that were served."""

    least_life = LEAST_LIFE
    is_near = False

    def __init__(self, clock: Callable[[], int], *, steady: bool = False) -> None:
        self.entries: dict[str, Entry] = {}
        self.run_id = "run-1"
        self.step = 0
        self.rounds = 0
        self.gone = False
        self._clock = clock
        self._steady = steady
        self._runs = 1

    async def exchange(self, rounds: Sequence[Round]) -> list[Reply]:
        """The replies to these rounds, in their order. Raises ConnectionError while the store is gone."""
        return [self.serve(round) for round in rounds]

    async def close(self) -> None:
        """Nothing is open."""

    def serve(self, round: Round) -> Reply:
        """The same for one round, at once."""
        if self.gone:
            raise ConnectionError("the store is gone")
        self.rounds += 1
        return serve(self.entries, round, self._clock() + self.step, self.run_id, steady=self._steady)

    def flush(self) -> None:
        """FLUSHALL: everything is gone, and the server runs on."""
        self.entries = {}

    def saved(self) -> dict[str, Entry]:
        """What it knows now, as a replica of the server would have it."""
        return deepcopy(self.entries)

    def fail_over(self, entries: dict[str, Entry], *, same_run: bool = False) -> None:
        """Another server takes over with what it has. `same_run`: its run_id doesn't tell."""
        self.entries = deepcopy(entries)
        if not same_run:
            self._runs += 1
            self.run_id = f"run-{self._runs}"

    def __repr__(self) -> str:
        return f"<FakeLeaseStore {self.run_id}: {len(self.entries)} budgets>"
