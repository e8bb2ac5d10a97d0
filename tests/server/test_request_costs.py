"""What a request may cost before anybody knows what it says."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from apiflux_grpc.client import Client
from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import InvalidRequest, TooManyCalls
from apiflux_grpc.engine.admission import KEPT_FOR_SMALL, SMALL, Admission, Bounds
from apiflux_grpc.server import receiving
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.http2 import DATA, END_HEADERS, HEADERS, PREFACE, PSEUDO, SETTINGS, frame, literal
from tests.server.serving import SERVING, Held, connected, health_of, repeated, serving, stub_of, until

PROCESS = "/apiflux.v1.FluxService/Process"


async def refusal_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """The code, and the first detail's reason or else the text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    return caught.value.code(), caught.value.details() or "" if status is None else status.details[0].value.decode()


async def test_a_compressed_request_is_refused() -> None:
    """A thousandth of its size could be sent, and nobody knows how large it is before it is decoded; uncompressed it
    is served, and so is a compressed one where that is allowed."""
    for allowed in (False, True):
        async with serving(compressed_requests=allowed) as server, connected(server) as channel:
            process = stub_of(channel).Process
            if allowed:
                assert [message async for message in process(repeated(1), compression=grpc.Compression.Gzip)]
            else:
                code, text = await refusal_of(process(repeated(1), compression=grpc.Compression.Gzip))
                assert (code, text) == (
                    grpc.StatusCode.UNIMPLEMENTED,
                    "Compression algorithm 'gzip' is disabled.",
                )
            assert [message async for message in process(repeated(1))]


async def test_when_the_queue_is_full_a_request_is_refused_before_it_is_decoded() -> None:
    """Also if it couldn't be decoded: whatever it says, it would be refused."""
    held = Held()
    async with (
        serving(bounds=Bounds(calls=3), upstream=held) as server,
        connected(server) as channel,
        Client(server.address) as client,
    ):
        first = asyncio.ensure_future(anext(client.repeat(3)))
        await until(lambda: server.engine.admission.calls == 3)
        process: Any = channel.unary_stream(PROCESS)
        code, reason = await refusal_of(process(b"\xff\xff no such message"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "TOO_MANY_CALLS" in reason
        held.release()
        await first


async def test_a_request_without_a_message_is_refused() -> None:
    """gRPC's own server leaves such an RPC without an answer."""

    async def nothing() -> Any:
        for _ in range(0):
            yield b""

    async with serving() as server, connected(server) as channel:
        for method in ("Process", "Estimate"):
            call: Any = channel.stream_stream(f"/apiflux.v1.FluxService/{method}")(nothing())
            code, reason = await refusal_of(call)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "INVALID_REQUEST" in reason


async def test_a_sender_that_is_too_slow_is_refused_while_its_message_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a status, and nobody else hears of it."""
    monkeypatch.setattr(receiving, "PATIENCE", 0.0)
    monkeypatch.setattr(receiving, "MOST_SLOW", 0)
    async with serving() as server, connected(server) as channel:
        connections = []
        for _ in range(receiving.PLACES + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            block = b"".join(literal(name, value) for name, value in PSEUDO.items())
            begun = frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1, b"\0\0\x10\0\0begun")
            writer.write(PREFACE + frame(SETTINGS, 0, 0) + begun)
            connections.append((reader, writer))
        assert [message async for message in stub_of(channel).Process(repeated(1))]

        async def refusal(reader: asyncio.StreamReader) -> None:
            await reader.readuntil(b"on their way in")  # a connection that ends has not been told

        hearing = [asyncio.create_task(refusal(reader)) for reader, _ in connections]
        # Which of them came first is the system's to say.
        done, _ = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
        assert [task.exception() for task in done] == [None] * len(done)
        for task in hearing:
            task.cancel()
        for _, writer in connections:
            writer.close()


async def test_health_answers_whatever_others_ask_it() -> None:
    """Large requests, which hold a place while they are handled, are refused: two that watch would keep all probes out
    for as long as they like, without a token."""
    async with serving() as server, connected(server) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = [stub.Watch(health_pb2.HealthCheckRequest(service="x" * 70_000)) for _ in range(2)]
        for watch in watching:
            with pytest.raises(grpc.aio.AioRpcError, match="at most 1024"):
                await watch.read()
        assert await health_of(channel) == SERVING


async def test_a_request_that_is_no_batch_is_small() -> None:
    """Before it is decoded: labels of keys, or of what nobody knows yet, would come by millions."""
    async with serving() as server, connected(server) as channel:
        call: Any = channel.unary_unary("/apiflux.v1.AdminService/ListKeys")
        with pytest.raises(grpc.aio.AioRpcError, match="has 1048578 bytes; use at most 1048576"):
            await call(b"\x12\x00" * (1 + (1 << 19)))
        with pytest.raises(grpc.aio.AioRpcError, match="there is no key ''"):
            await call(b"\x12\x00" * (1 << 19))


def test_large_batches_leave_room_for_small_ones() -> None:
    """However many of them come, who sends a few calls is served."""
    admission = Admission(Bounds(calls=2_000_000))
    for _ in range(36):
        admission.admit(50_000, 0, lambda: 0)
    with pytest.raises(TooManyCalls):
        admission.admit(SMALL + 1, 0, lambda: 0)
    for _ in range(KEPT_FOR_SMALL // SMALL):
        admission.admit(SMALL, 0, lambda: 0)
    with pytest.raises(TooManyCalls):
        admission.admit(1, 0, lambda: 0)


class Kept:
    """Stands for all that is held while a request is handled."""


class Refusing(FluxService):
    """Refuses every batch, with something large at hand."""

    kept: weakref.ref[Kept]

    async def Process(  # type: ignore[override]  # noqa: N802  # as FluxService
        self, request: pb.ProcessRequest, context: Any
    ) -> None:
        large = Kept()
        Refusing.kept = weakref.ref(large)
        raise InvalidRequest([Fault("calls", "are wrong")])


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
async def test_a_refused_request_is_given_up_at_once() -> None:
    """grpc keeps an abort's exception in a circle, and what its traceback holds would wait for the collector."""
    async with serving(service=Refusing) as server, connected(server) as channel:
        await refusal_of(stub_of(channel).Process(repeated(1)))
    assert Refusing.kept() is None  # what was handled has ended with the server, at the latest
