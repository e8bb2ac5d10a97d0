"""The run of a plan is the engine's."""

from __future__ import annotations

import asyncio
import random

import pytest

from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.events import Event
from apiflux_grpc.core.model import SECOND, Limit, RetryPolicy
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.engine.ticket import Ticket
from apiflux_grpc.plan.question import Arrival, Question
from apiflux_grpc.plan.simulation import simulate
from apiflux_grpc.testing import FakePacer, SilentObserver
from tests.plan.asked import TEN_A_SECOND, question


class _Silent(SilentObserver):
    def tell(self, pool: str, event: Event) -> None:
        raise AssertionError("the simulator refuses nothing")

    def crashed(self, error: BaseException, error_id: str) -> None:
        raise error


async def _served(asked: Question) -> int:
    """How long (ns) the engine takes for it on the simulator."""
    loop = asyncio.get_running_loop()

    def clock() -> int:
        return int(loop.time() * 1e9)

    def upstream() -> SimulatedUpstream:
        return SimulatedUpstream(asked.latency, clock=clock, random=random.Random(7))

    async def read(ticket: Ticket) -> None:
        while (message := await ticket.next(100)).over is None:
            ticket.credit(len(message.items), message.size)

    async def send(arrival: Arrival) -> None:
        await asyncio.sleep(arrival.at / 1e9)
        calls = [Call()] * arrival.size
        await read(engine.submit(BatchSpec(asked.pool.name, "caller", calls, RetryPolicy(), size=arrival.size)))

    engine = Engine([PoolParts(asked.pool, upstream, FakePacer)], _Silent(), clock=clock)
    await engine.start(own_thread=False)
    start = clock()
    await asyncio.gather(*map(send, asked.arrivals))
    took = clock() - start
    await engine.stop()
    return took


@pytest.mark.looptime
@pytest.mark.parametrize(
    "asked",
    [
        question(Limit(100, 5 * SECOND), keys=3, sizes=(Arrival(200),) * 10, latency=(10_000_000, 50_000_000)),
        question(Limit(100, 5 * SECOND), keys=2, sizes=(Arrival(100),) * 8, latency=(500_000_000, 3_000_000_000)),
        question(TEN_A_SECOND, Limit(60, 20 * SECOND), sizes=(Arrival(200), Arrival(9, 4 * SECOND))),
        question(Limit(50, SECOND), most=4, sizes=(Arrival(1000),), latency=(200_000_000, 400_000_000)),
        question(Limit(500, SECOND), keys=2, max_connections=20, sizes=(Arrival(3000),), latency=(0, 200_000_000)),
        question(Limit(20, 2 * SECOND, burst=3), sizes=(Arrival(100),), latency=(20_000_000, 20_000_000)),
    ],
    ids=["fast answers", "slow answers", "two limits", "in flight", "connections", "bursts"],
)
async def test_a_plan_agrees_with_the_engine(asked: Question) -> None:
    """The engine over a simulated upstream takes as long as planned, within 5 %."""
    assert await _served(asked) == pytest.approx(simulate(asked).ended, rel=0.05)
