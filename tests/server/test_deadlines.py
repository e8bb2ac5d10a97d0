"""A batch that can't finish before its deadline is refused before anything of it is sent."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from apiflux_grpc.client import Client
from apiflux_grpc.client import DeadlineInfeasible as RefusedForItsDeadline
from apiflux_grpc.core.errors import DeadlineInfeasible
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from tests.server.direct import Context, direct
from tests.server.serving import Held, connected, repeated, serving, stub_of, until

TIGHT = Limit(100, 10 * SECOND)


@pytest.mark.looptime
async def test_a_deadline_that_cannot_be_kept_is_refused_at_once() -> None:
    """With the time that it takes, and when the same deadline would do; nothing was sent, and the counts are back."""
    async with direct(TIGHT) as service:
        with pytest.raises(DeadlineInfeasible) as caught:
            await service.process(1000, Context(timeout=30))
        assert caught.value.eta == pytest.approx(90 * SECOND, rel=0.001)  # 100 at once, then 9 windows
        assert caught.value.retry_after == pytest.approx(60 * SECOND, rel=0.001)
        info = await service.info()
        assert (info.open_batches, info.open_calls, info.pools[0].keys[0].attempts) == (0, 0, 0)
        assert len(await service.process(100, Context(timeout=30))) == 100
        with pytest.raises(DeadlineInfeasible):
            await service.process(100, Context(timeout=5))  # the window is spent


@pytest.mark.looptime
async def test_a_deadline_is_judged_as_if_the_batch_were_alone() -> None:
    """Its fair share would take longer, but others may leave: only what no share could do is refused."""
    async with direct(TIGHT) as service:
        other = asyncio.create_task(service.process(5000))
        await asyncio.sleep(1)
        assert len(await service.process(50, Context(timeout=15))) == 50
        assert not other.done()
        other.cancel()


async def test_the_status_of_an_infeasible_deadline() -> None:
    """RESOURCE_EXHAUSTED with ErrorInfo and RetryInfo, for programs in other languages and for our client."""
    async with serving(limits=(TIGHT,)) as server, connected(server) as channel, Client(server.address) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel).Process(repeated(5000), timeout=60).read()
        with pytest.raises(RefusedForItsDeadline) as told:
            await anext(client.repeat(5000, timeout=60))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("DEADLINE_INFEASIBLE", "apiflux.v1")
    assert float(info.metadata["eta_seconds"]) == float(told.value.metadata["eta_seconds"]) > 490
    assert retry.retry_delay.seconds >= 420
    assert told.value.retry_delay is not None
    assert told.value.retry_delay >= 420


async def test_a_deadline_that_passes_stops_the_work(caplog: pytest.LogCaptureFixture) -> None:
    """The batch is gone from the engine too, and the log doesn't say that somebody cancelled it."""
    caplog.set_level(logging.INFO, "apiflux.rpc")
    held = Held()
    async with serving(upstream=held) as server, connected(server) as channel:
        call = stub_of(channel).Process(repeated(50), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await server.engine.wait_idle(30)
        await until(lambda: len(held.cancelled) == len(held.begun))
        assert server.engine.admission.calls == 0
    assert [getattr(record, "code", None) for record in caplog.records] == ["DEADLINE_EXCEEDED"]
