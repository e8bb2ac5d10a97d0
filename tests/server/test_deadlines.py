"""What takes too long is said before anything is sent: infeasible deadlines, estimates; and readers who stall."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from apiflux_grpc.client import Client, DeadlineInfeasible, InvalidRequest, PoolNotFound
from apiflux_grpc.core.model import MILLISECOND, SECOND, Limit
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from tests.server.serving import OPTIONS, serving

TIGHT = (Limit(100, 10 * SECOND),)


async def test_a_deadline_that_cannot_be_kept_is_refused_at_once() -> None:
    """With the time that it takes, and when the same deadline would do; nothing was sent, and the counts are back."""
    async with serving(limits=TIGHT) as server, Client(server.address) as client:
        with pytest.raises(DeadlineInfeasible) as caught:
            await anext(client.repeat(1000, timeout=30))
        assert 85 <= float(caught.value.metadata["eta_seconds"]) <= 95  # 100 at once, then 9 windows
        assert caught.value.retry_delay is not None
        assert 55 <= caught.value.retry_delay <= 65
        info = await client.info()
        assert (info.open_batches, info.open_calls) == (0, 0)
        assert info.pools[0].keys[0].attempts == 0
        assert len([result async for result in client.repeat(100, timeout=30)]) == 100
        with pytest.raises(DeadlineInfeasible):
            await anext(client.repeat(100, timeout=5))  # the window is spent


async def test_the_status_of_an_infeasible_deadline() -> None:
    """RESOURCE_EXHAUSTED with ErrorInfo and RetryInfo, as programs in other languages see it."""
    async with serving(limits=TIGHT) as server, grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
        stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Process(pb.ProcessRequest(repeat=pb.RepeatedCall(count=500)), timeout=10):
                pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("DEADLINE_INFEASIBLE", "apiflux.v1")
    assert retry.retry_delay.seconds >= 1


async def test_a_feasible_deadline_is_kept_waiting_for_nothing() -> None:
    """A batch that fits is admitted, whatever else waits."""
    async with serving(limits=TIGHT) as server, Client(server.address) as client, client.repeat(5000) as other:
        assert (await anext(other)).ok
        # Its own share would take long, but a lower bound is what counts at the door.
        stream = client.repeat(50, timeout=15)
        await asyncio.sleep(0.2)
        assert (await client.info()).open_batches == 2
        stream.cancel()


async def test_an_estimate_is_what_it_takes() -> None:
    """Makespan and the limit that binds; from the same arithmetic as the ETA."""
    limits = (Limit(20, SECOND),)
    async with serving(10 * MILLISECOND, limits=limits) as server, Client(server.address) as client:
        await asyncio.gather(*[anext(client.repeat(1)) for _ in range(20)])
        await asyncio.sleep(1.1)
        estimate = await client.estimate(60)
        assert estimate.binding_limit == "20 calls per 1 s"
        assert estimate.makespan is not None
        assert 1.9 <= estimate.makespan <= 2.3
        alone = await client.estimate(20)
        assert alone.makespan is not None
        assert alone.makespan < 0.1
        assert alone.binding_limit == ""


async def test_an_estimate_with_others_at_work_is_that_of_a_fair_share() -> None:
    """As much of the others' work goes before as fair queueing lets."""
    async with serving(limits=TIGHT) as server, Client(server.address) as client:
        first = await client.estimate(100)
        async with client.repeat(10_000) as other:
            assert (await anext(other)).ok
            await asyncio.sleep(0.2)
            second = await client.estimate(100)
    assert first.makespan is not None
    assert second.makespan is not None
    assert first.makespan < 1
    assert 15 <= second.makespan <= 25  # its 100 and 100 of the other, behind a window that is spent


async def test_bad_estimates_are_refused() -> None:
    """Each with its field."""
    async with serving() as server, Client(server.address) as client:
        for calls, cost, field in ((0, 0, "calls"), (-1, 0, "calls"), (5, -1, "cost_per_call")):
            with pytest.raises(InvalidRequest) as caught:
                await client.estimate(calls, cost=cost)
            assert [place for place, _ in caught.value.violations] == [field]
        with pytest.raises(PoolNotFound):
            await client.estimate(5, pool="nowhere")


async def test_a_reader_that_stalls_ends_its_own_stream_alone() -> None:
    """After the bound its batch is stopped and its places are free; another stream on the connection goes on."""
    defaults = Defaults(write_timeout=2.0)
    async with (
        serving(defaults=defaults) as server,
        grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel,
        Client(server.address) as client,
    ):
        stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
        stalled = stub.Process(pb.ProcessRequest(repeat=pb.RepeatedCall(count=50_000)))
        await stalled.read()
        for _ in range(300):
            if not server.engine.admission.batches:
                break
            await asyncio.sleep(0.05)
        assert server.engine.admission.batches == 0
        assert server.engine.admission.calls == 0
        assert len([result async for result in client.repeat(1000)]) == 1000
        assert len([result async for result in client.repeat(1000)]) == 1000
        stalled.cancel()


async def test_get_info_tells_what_the_margin_costs() -> None:
    """The share that arrival_jitter takes, the round trips seen, and the state of each key."""
    async with serving(50 * MILLISECOND, limits=(Limit(1000, SECOND),)) as server, Client(server.address) as client:
        assert len([result async for result in client.repeat(100)]) == 100
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
            pool = (await stub.GetInfo(pb.GetInfoRequest())).pools[0]
    assert 0.04 <= pool.arrival_jitter_cost <= 0.15
    assert 50_000_000 <= pool.round_trip_p50.ToNanoseconds() <= pool.round_trip_p99.ToNanoseconds()
    assert pool.keys[0].state == "usable"
    assert not pool.upstream_failing
    assert pool.advice == ""
