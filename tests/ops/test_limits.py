"""What one client can hold: a connection for ten seconds, a body as long as it comes, no more bytes than fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus

import pytest

from apiflux_grpc.ops import bodies
from apiflux_grpc.ops.bodies import LEAST_RATE, PATIENCE, Room, read
from apiflux_grpc.ops.problems import HttpRefused
from apiflux_grpc.server.defaults import Defaults
from tests.ops.ports import ops_served
from tests.server.serving import until

HEAD = b"POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BATCH = b'{"calls": [{}]}'


class Sender:
    """Sends so many bytes after so many seconds each; then it is silent."""

    def __init__(self, *parts: tuple[float, int]) -> None:
        self._parts = list(parts)

    async def readany(self) -> bytes:
        if not self._parts:
            await asyncio.Event().wait()
        after, size = self._parts.pop(0)
        await asyncio.sleep(after)
        return bytes(size)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ([(PATIENCE - 0.1, 0)], 0),
        ([(PATIENCE - 0.1, 1), (0, 0)], 1),
        ([(PATIENCE + 0.1, 1), (0, 0)], None),
        ([*[(1, LEAST_RATE)] * 100, (0, 0)], 100 * LEAST_RATE),
        ([*[(1, LEAST_RATE // 2)] * 21, (0, 0)], None),
        ([(0, 100 * LEAST_RATE), (PATIENCE + 99, 0)], 100 * LEAST_RATE),
        ([(0, 1)], None),
    ],
)
async def test_a_body_comes_at_a_least_rate(parts: Sequence[tuple[float, int]], size: int | None) -> None:
    """After ten seconds at once it has to be fast enough on the whole; None: it is given up."""
    taken: list[int] = []
    if size is not None:
        assert len(await read(Sender(*parts), taken.append)) == sum(taken) == size
        return
    with pytest.raises(HttpRefused) as caught:
        await read(Sender(*parts), taken.append)
    assert caught.value.problem.status is HTTPStatus.REQUEST_TIMEOUT


def test_bodies_have_a_bound_together() -> None:
    """Of one, and of all that are on their way; what was taken is free again, however it ended."""
    room = Room(10)
    with room.taken() as one, room.taken() as other:
        one(10)
        other(10)
        with pytest.raises(HttpRefused) as caught:
            one(1)
        assert caught.value.problem.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        with room.taken() as more, pytest.raises(HttpRefused) as caught:
            more(1)
        assert caught.value.problem.status is HTTPStatus.TOO_MANY_REQUESTS
    assert room.used == 0


async def status_of(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Of the answer that comes, which is the last one of its connection: its status and reason."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(await reader.readline())["reason"]


async def test_a_head_that_does_not_come_ends_the_connection() -> None:
    """Nothing at all, a byte now and then, or nothing after an answer: silence is what they get."""
    async with ops_served(head_within=0.2) as served:
        for sent in (b"", HEAD, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            async with served.raw(sent) as (reader, _):
                got = await reader.read()
                assert got.startswith(b"HTTP/1.1 200") == sent.endswith(b"\r\n\r\n")

        async def drip(writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"X-A: b\r\n")
                await asyncio.sleep(0.02)

        async with served.raw(HEAD) as (reader, writer):
            dripping = asyncio.ensure_future(drip(writer))
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass  # reset, for something was still on its way
            finally:
                dripping.cancel()


async def test_a_body_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and the connection ends; other requests are answered meanwhile."""
    monkeypatch.setattr(bodies, "PATIENCE", 0.2)
    async with ops_served() as served, served.raw(HEAD + b"Content-Length: 100\r\n\r\n{") as (reader, _):
        assert (await served.get("/livez")).status == 200
        assert await status_of(reader) == (408, "BODY_TOO_SLOW")


@pytest.mark.parametrize("length", [b"Content-Length: 4001", b"Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_large_is_not_read(length: bytes) -> None:
    """One that says so is refused before a byte of it; of another no more is kept than the bound."""
    async with ops_served(defaults=Defaults(max_batch_bytes=2_000)) as served:
        body = b"" if b":" not in length[:7] and b"4001" in length else b"fa1\r\n" + bytes(0xFA1) + b"\r\n"
        async with served.raw(HEAD + length + b"\r\n\r\n" + body) as (reader, _):
            assert await status_of(reader) == (413, "BATCH_TOO_LARGE")


async def test_who_waits_for_a_word_gets_it() -> None:
    """Expect: 100-continue is answered once the head is fine, and with the refusal if it isn't."""
    ask = b"Expect: 100-continue\r\nContent-Length: %d\r\n"
    async with ops_served() as served:
        async with served.raw(HEAD + ask % len(BATCH) + b"\r\n") as (reader, writer):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(BATCH)
            assert (await reader.readline()).split()[1] == b"200"
        async with served.raw(HEAD + ask % len(BATCH) + b"Origin: http://evil.example\r\n\r\n") as (reader, _):
            assert (await reader.readline()).split()[1] == b"403"


async def test_cut_in_the_middle_of_the_body() -> None:
    """Nothing was admitted and nothing is kept; the next one is served."""
    async with ops_served() as served:
        async with served.raw(HEAD + b"Content-Length: 1000\r\n\r\n" + BATCH) as (_, writer):
            writer.transport.abort()
        async with served.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nf\r\n" + BATCH + b"\r\n") as (_, writer):
            writer.write_eof()  # its half of the connection: the end of the body never came
        assert (await served.post(json.loads(BATCH))).status == 200
        assert served.server.engine.admission.batches == 0


async def test_connections_have_a_bound() -> None:
    """One more is closed without an answer; once another has ended there is room again."""
    async with ops_served(most_connections=2) as served, served.raw(HEAD) as (_, writer), served.raw(HEAD):
        async with served.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") as (reader, _):
            assert await reader.read() == b""
        writer.transport.abort()
        await until(lambda: served.port.connections < 2)
        async with served.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") as (reader, _):
            assert (await reader.readline()).split()[1] == b"200"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["tls", "http2", "long", "lengths", "smuggled", "star"],
)
async def test_what_is_no_request_gets_a_problem(sent: bytes) -> None:
    """And the end of its connection, without a word on what reads it; the server serves on."""
    async with ops_served() as served:
        async with served.raw(sent) as (reader, _):
            answer = await reader.read()
            assert answer.split()[1] == b"400"
            assert b"application/problem+json" in answer
            assert b"aiohttp" not in answer.lower()
            assert b"python" not in answer.lower()
        assert (await served.get("/livez")).status == 200
