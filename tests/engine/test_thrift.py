"""What processes that share budgets ask of their store, and what that costs them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.engine.sharing import Api, J, Shared

if TYPE_CHECKING:
    from apiflux_grpc.engine.ports import Attempt

LIFE = 50 * MILLISECOND


class Varying(Api):
    """Answers each call after another time."""

    def begin(self, attempt: Attempt) -> None:
        self.latency = self._luck.uniform(0.01, 0.05)
        super().begin(attempt)


class Various(Shared):
    """Its processes have such an upstream."""

    def make_api(self) -> Varying:
        return Varying(self.arrivals, Random(len(self.processes)), self.latency)


def mean_cycle(shared: Shared, most: int) -> float:
    """How long (ns) it takes from a call until as many as the limit of its key have followed."""
    late = [sorted(at for at, _ in arrivals)[-3 * most :] for arrivals in shared.arrivals.values()]
    cycles = [after - at for ordered in late for at, after in zip(ordered, ordered[most:], strict=False)]
    return sum(cycles) / len(cycles)


@pytest.mark.looptime(noop_cycles=2)
async def test_round_trips_are_a_tenth_of_the_calls() -> None:
    """Of eight processes on short windows whose calls come back at any time; each has its share in each second, and all
    of the limits is used."""
    shared = Various(Limit(300, SECOND), keys=4)
    processes = await shared.start(8)
    for _ in range(25):  # all through a first window, so that they come back all through each
        for process in processes:
            process.submit(6)
        await asyncio.sleep(0.04)
    for process in processes:
        process.submit(1_000)
    await asyncio.sleep(1.5)
    exchanges, arrived = shared.store.exchanges, shared.arrived()
    begun = [len(process.api.begun) for process in processes]
    await asyncio.sleep(2 * (SECOND + J + LIFE) / SECOND)
    assert shared.store.exchanges - exchanges <= 0.1 * (shared.arrived() - arrived)
    assert mean_cycle(shared, 300) <= (SECOND + J + LIFE) / 0.97
    shares = [len(process.api.begun) - before for process, before in zip(processes, begun, strict=True)]
    assert min(shares) >= 0.8 * max(shares)
    shared.check()
    await shared.stop()
