"""What bites in grpc.aio, each with the answer that the server gives to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from apiflux_grpc.client import Client, InternalError, InvalidRequest, Overloaded
from apiflux_grpc.core.model import MILLISECOND, SECOND
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.interceptors import caller_of
from apiflux_grpc.server.lifecycle import PortInUse
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from tests.server.serving import OPTIONS, serving

if TYPE_CHECKING:
    pass


async def test_an_unhandled_exception_says_nothing_but_an_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is INTERNAL with an opaque id that the log has too; its text stays here."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("canary text")

    monkeypatch.setattr(FluxService, "_admit", broken)
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InternalError) as caught:
            await anext(client.repeat(1))
    assert "canary" not in str(caught.value)
    error_id = caught.value.metadata["error_id"]
    assert any(getattr(record, "error_id", None) == error_id for record in caplog.records)


async def test_a_second_server_on_the_port_fails() -> None:
    """Without SO_REUSEPORT two servers can't share a port in silence."""
    async with serving() as server:
        with pytest.raises(PortInUse, match=str(server.port)):
            async with serving(port=server.port):
                pass


async def test_over_the_maximum_is_said_by_us_and_far_over_by_the_transport() -> None:
    """A batch with too many calls or bytes is INVALID_ARGUMENT and names the maximum; the server goes on."""
    small = Defaults(max_batch_calls=10, max_batch_bytes=100_000)
    async with serving(defaults=small) as server, Client(server.address) as client:
        for request in (
            pb.ProcessRequest(calls=[pb.Call()] * 11),
            pb.ProcessRequest(calls=[pb.Call(body=bytes(110_000))]),
            pb.ProcessRequest(repeat=pb.RepeatedCall(count=11)),
        ):
            with pytest.raises(InvalidRequest, match="at most") as caught:
                await anext(client.send(request))
            assert caught.value.reason == "BATCH_TOO_LARGE"
        with pytest.raises(Overloaded, match="larger than max"):
            await anext(client.send(pb.ProcessRequest(calls=[pb.Call(body=bytes(300_000))])))
        assert (await anext(client.repeat(1))).ok


async def test_a_full_queue_is_refused_with_a_delay_and_health_still_answers() -> None:
    """RESOURCE_EXHAUSTED comes with RetryInfo and the bound that was hit."""
    async with serving(SECOND, bounds=Bounds(batches=1)) as server, Client(server.address) as client:
        first = client.repeat(5)
        waiting = asyncio.create_task(anext(first))
        for _ in range(500):
            if (await client.info()).open_batches:
                break
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as caught:
            await anext(client.repeat(1))
        assert caught.value.reason == "TOO_MANY_BATCHES"
        assert caught.value.retry_delay is not None
        assert caught.value.retry_delay >= 1
        assert (await waiting).ok


async def test_a_deadline_stops_the_work() -> None:
    """When the RPC's deadline passes, the batch is gone from the engine too."""
    async with serving(5 * SECOND) as server:
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
            call = stub.Process(pb.ProcessRequest(repeat=pb.RepeatedCall(count=50)), timeout=0.2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await server.engine.wait_idle(5)
        state = await server.engine.look()
        assert state is not None
        assert state.pools["default"].in_flight == 0


async def test_a_stalled_reader_is_cut_loose_by_a_cancel() -> None:
    """A client that stops reading and then cancels, while the server's write is blocked, leaves nothing behind."""
    async with serving() as server:
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
            calls = [stub.Process(pb.ProcessRequest(repeat=pb.RepeatedCall(count=50_000))) for _ in range(3)]
            for call in calls:
                await call.read()
            await asyncio.sleep(0.3)
            for call in calls:
                call.cancel()
            assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0
        async with Client(server.address) as client:
            assert (await anext(client.repeat(1))).ok


async def test_reflection_finds_a_method() -> None:
    """ghz looks up the method as a symbol; an unknown one is still not found."""
    async with serving() as server, grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # it takes both kinds
        names = ("apiflux.v1.FluxService", "apiflux.v1.FluxService.Process", "apiflux.v1.FluxService.Nothing")
        requests = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert [answer.HasField("file_descriptor_response") for answer in answers] == [True, True, False]


async def test_every_refusal_carries_an_error_info() -> None:
    """Programs tell errors apart by reason and domain."""
    async with serving() as server, grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
        stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
        for request, reason in (
            (pb.ProcessRequest(), "INVALID_REQUEST"),
            (pb.ProcessRequest(pool="no", repeat=pb.RepeatedCall(count=1)), "POOL_NOT_FOUND"),
            (pb.ProcessRequest(calls=[pb.Call()], repeat=pb.RepeatedCall(count=1)), "INVALID_REQUEST"),
            (pb.ProcessRequest(repeat=pb.RepeatedCall(count=-1)), "INVALID_REQUEST"),
            (pb.ProcessRequest(calls=[pb.Call()], priority=4), "INVALID_REQUEST"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Process(request):
                    pass
            status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
            assert status is not None
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert (info.reason, info.domain) == (reason, "apiflux.v1")


async def test_results_come_in_pieces_of_the_asked_size() -> None:
    """No message has more results than BATCH_SIZE, and the summary is in the last one alone."""
    defaults = Defaults(batch_size=10)
    async with serving(MILLISECOND, defaults=defaults) as server, Client(server.address) as client:
        request = pb.ProcessRequest(repeat=pb.RepeatedCall(count=95), ordered=True)
        messages = [message async for message in client.send(request).raw()]
    assert max(len(message.results) for message in messages) <= 10
    assert [result.index for message in messages for result in message.results] == list(range(95))
    assert [message.HasField("summary") for message in messages] == [False] * (len(messages) - 1) + [True]


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:10.1.2.3:4711", "10.1.2.3"),
        ("ipv6:[::1]:4711", "::1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("unix:", "unix"),
        ("", "unknown"),
    ],
)
def test_a_caller_is_the_address_without_its_port(peer: str, caller: str) -> None:
    """Two connections of one client are one caller."""
    assert caller_of(peer) == caller
