"""What the service tells of time: estimates, and the state of its pools."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.client import Client, InvalidRequest, PoolNotFound
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.direct import direct
from tests.server.serving import serving


@pytest.mark.looptime
async def test_an_estimate_is_what_it_takes() -> None:
    """Makespan and the limit that binds: the batch then takes just as long."""
    async with direct(Limit(20, SECOND), latency=10 * MILLISECOND) as service:
        await service.process(20)  # until an answer came, latency is not known
        await asyncio.sleep(1.1)
        estimate = await service.estimate(60)
        assert estimate.binding_limit == "20 calls per 1s"
        alone = await service.estimate(20)
        assert 0 < alone.makespan.ToNanoseconds() <= 10 * MILLISECOND
        assert alone.binding_limit == ""
        start = asyncio.get_running_loop().time()
        await service.process(60)
        took = asyncio.get_running_loop().time() - start
        assert estimate.makespan.ToNanoseconds() / 1e9 == pytest.approx(took, abs=0.02)
        assert took == pytest.approx(2.01, abs=0.02)


@pytest.mark.looptime
async def test_an_estimate_with_others_at_work_is_that_of_a_fair_share() -> None:
    """As much of the others' work goes before as fair queueing lets."""
    async with direct(Limit(100, 10 * SECOND)) as service:
        first = await service.estimate(100)
        other = asyncio.create_task(service.process(10_000))
        await asyncio.sleep(1)
        second = await service.estimate(100)
        other.cancel()
    assert first.makespan.ToNanoseconds() < 10 * MILLISECOND
    # Its 100 and 100 of the other, behind a window that is spent for 9 s more.
    assert second.makespan.ToNanoseconds() == pytest.approx(19 * SECOND, rel=0.01)


async def test_bad_estimates_are_refused() -> None:
    """Each with its field."""
    async with serving() as server, Client(server.address) as client:
        for calls, cost, field in ((0, 0, "calls"), (-1, 0, "calls"), (5, -1, "cost_per_call")):
            with pytest.raises(InvalidRequest) as caught:
                await client.estimate(calls, cost=cost)
            assert [place for place, _ in caught.value.violations] == [field]
        with pytest.raises(PoolNotFound):
            await client.estimate(5, pool="nowhere")
        estimate = await client.estimate(5)
        assert (estimate.makespan is not None, estimate.binding_limit) == (True, "")


@pytest.mark.looptime
async def test_get_info_tells_what_the_margin_costs() -> None:
    """The share that arrival_jitter takes, the round trips seen, and the state of each key."""
    async with direct(Limit(1000, SECOND), latency=50 * MILLISECOND, jitter=250 * MILLISECOND) as service:
        assert len(await service.process(100)) == 100
        pool = (await service.info()).pools[0]
    assert pool.arrival_jitter_cost == pytest.approx(0.05, rel=0.3)  # round trips are known by classes
    assert 50 * MILLISECOND <= pool.round_trip_p50.ToNanoseconds() == pool.round_trip_p99.ToNanoseconds() < SECOND // 10
    assert (pool.keys[0].state, pool.upstream_failing, pool.advice) == (pb.KEY_STATE_USABLE, False, "")
