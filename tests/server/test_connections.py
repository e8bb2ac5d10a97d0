"""Ports, connections and what floods them: one client's misuse of HTTP/2 is nobody else's loss."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.client import Client
from apiflux_grpc.server import lifecycle
from apiflux_grpc.server.lifecycle import MAX_STREAMS, PortInUse, Server
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.serving import SERVING, Held, connected, health_of, repeated, serving, stub_of, until

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


async def test_a_second_server_on_the_port_fails() -> None:
    """Without SO_REUSEPORT two servers can't share a port in silence."""
    async with serving() as server:
        with pytest.raises(PortInUse, match=str(server.port)):
            async with serving(port=server.port):
                pass


async def test_a_port_cannot_be_shared_by_a_program_that_asks_for_it() -> None:
    """SO_REUSEPORT is off on our side, so whoever sets it gets an error and not half of our clients."""
    async with serving() as server:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", server.port))


async def test_a_full_connection_takes_nothing_from_others() -> None:
    """One connection has so many streams at once; another is served meanwhile."""
    async with serving(upstream=Held()) as server, connected(server, OWN_CONNECTION) as channel:
        calls = [stub_of(channel).Process(repeated(1)) for _ in range(MAX_STREAMS + 50)]
        await until(lambda: server.engine.admission.batches >= MAX_STREAMS)
        async with connected(server, OWN_CONNECTION) as other:
            for _ in range(20):
                assert await health_of(other) == SERVING
        assert server.engine.admission.batches == MAX_STREAMS
        for call in calls:
            call.cancel()
        assert await server.engine.wait_idle(30)


async def test_streams_beyond_those_of_a_connection_wait_and_are_served() -> None:
    """Nothing on a connection is refused because others of it have just ended: each stream gets its turn."""
    held = Held()
    async with serving(upstream=held) as server, connected(server, OWN_CONNECTION) as channel:

        async def run() -> str:
            call = stub_of(channel).Process(repeated(1))
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
            return "served"

        runs = [asyncio.create_task(run()) for _ in range(2 * MAX_STREAMS)]
        await until(lambda: server.engine.admission.batches == MAX_STREAMS)
        held.release()
        assert Counter(await asyncio.gather(*runs)) == {"served": 2 * MAX_STREAMS}


# HTTP/2 by hand, for what no client of grpc's does: RFC 9113, section 4.1.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4
CANCEL, ENHANCE_YOUR_CALM = 8, 11


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def request_frames(stream: int, request: pb.ProcessRequest) -> bytes:
    """A whole Process request; the headers are literals, which every decoder of HPACK takes."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/apiflux.v1.FluxService/Process",
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())
    message = request.SerializeToString()
    data = struct.pack(">BI", 0, len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, data)


async def test_rapid_resets_starve_nobody() -> None:
    """A connection that opens streams and resets them at once leaves nothing behind; another client is served."""
    async with serving() as server, Client(server.address) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        reset = struct.pack(">I", CANCEL)

        async def flood() -> int:
            for number in range(3_000):
                stream = 2 * number + 1
                writer.write(request_frames(stream, repeated(50)) + frame(RST_STREAM, 0, stream, reset))
                if number % 50 == 49:
                    try:
                        await writer.drain()
                    except ConnectionError:  # the server may end such a connection
                        return number
                    await asyncio.sleep(0)
            return 3_000

        async def drop() -> None:
            while await reader.read(65_536):
                pass

        async def run() -> int:
            return len([result async for result in client.repeat(20)])

        dropping = asyncio.create_task(drop())
        flooding = asyncio.create_task(flood())
        assert [await run() for _ in range(30)] == [20] * 30
        assert await flooding >= 50
        writer.close()
        await asyncio.gather(dropping, return_exceptions=True)
        assert await server.engine.wait_idle(30)
        assert (server.engine.admission.batches, server.engine.admission.calls) == (0, 0)
        assert await run() == 20


async def test_a_flood_of_pings_ends_that_connection_alone() -> None:
    """A few are answered; a flood gets GOAWAY. Other clients don't notice."""
    async with serving() as server, Client(server.address) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"12345678"))
        seen: list[tuple[int, bytes]] = []
        while not any(kind == PING for kind, _ in seen):
            seen.append(await next_frame(reader))
        assert seen[-1] == (PING, b"12345678")
        writer.write(frame(PING, 0, 0, b"flooding") * 100)
        while seen[-1][0] != GOAWAY:
            seen.append(await next_frame(reader))
        _, code = struct.unpack(">II", seen[-1][1][:8])
        assert code == ENHANCE_YOUR_CALM
        assert seen[-1][1][8:] == b"too_many_pings"
        writer.close()
        assert (await anext(client.repeat(1))).ok


def test_a_client_may_ping_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while no stream is open, and though pings that were delayed on their way come closer together."""
    asked: dict[str, object] = {}

    def make_server(*, interceptors: object, options: list[tuple[str, object]]) -> None:
        asked.update(options)
        raise NotImplementedError

    monkeypatch.setattr(lifecycle, "make_server", make_server)
    engine: Any = SimpleNamespace(pools={})
    service: Any = SimpleNamespace(expect=None)
    with pytest.raises(NotImplementedError):
        Server(engine, service, engine, host="", port=0, max_batch_bytes=1, with_reflection=False, grace=1)
    assert asked["grpc.keepalive_permit_without_calls"] == 1
    assert asked["grpc.http2.min_ping_interval_without_data_ms"] == 5_000


async def test_one_connection_too_many_is_closed() -> None:
    """Each takes a file; who comes when another has left is served."""
    async with serving(max_connections=2) as server, connected(server, OWN_CONNECTION) as first:
        assert await health_of(first) == SERVING
        async with connected(server, OWN_CONNECTION) as second:
            assert await health_of(second) == SERVING
            async with connected(server, OWN_CONNECTION) as third:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await health_of(third)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with connected(server, OWN_CONNECTION, ("grpc.initial_reconnect_backoff_ms", 100)) as fourth:
            stub: Any = health_pb2_grpc.HealthStub(fourth)
            await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)


async def next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(20):
        head = await reader.readexactly(9)
        return head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))
