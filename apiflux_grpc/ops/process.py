"""POST /process: the RPC Process over HTTP. proto3 JSON of ProcessRequest in, a JSON line for each ProcessResponse out.

Rule: the service does it, with an `Exchange` where gRPC has its context; so the one writer, the back-pressure of a slow
reader and the end by a caller who goes away are those of the RPC. An answer that has begun can't become a problem any
more: its last line is an `error` then, and the connection is cut before the end that chunked encoding has, so no client
takes it for whole.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from apiflux_grpc.core.errors import Draining
from apiflux_grpc.ops.bodies import read
from apiflux_grpc.ops.connections import HEADERS
from apiflux_grpc.ops.decoding import Decoding
from apiflux_grpc.ops.guards import plain
from apiflux_grpc.ops.lines import line_of
from apiflux_grpc.ops.problems import HttpRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.ops.bodies import Room
    from apiflux_grpc.ops.problems import Problem
    from apiflux_grpc.server.service import FluxService
    from apiflux_grpc.v1 import apiflux_pb2 as pb

CONTENT_TYPE: Final = "application/x-ndjson"
CUT_WITHIN: Final = 5.0  # seconds
LARGE: Final = 1 << 20  # bytes; larger bodies are decoded one by one, for a value can take four times as many


class Exchange:
    """What the service asks of an RPC's context."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._answer = web.StreamResponse(headers={**HEADERS, "Content-Type": CONTENT_TYPE})

    def peer(self) -> str:
        """As gRPC writes it, so that a caller is the same one at both ports."""
        assert self._request.transport is not None
        host, port, *_ = self._request.transport.get_extra_info("peername")
        address = plain(host)
        return f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"

    def time_remaining(self) -> float | None:
        """A request has no deadline: whoever waits no longer closes the connection."""
        return None

    @property
    def has_begun(self) -> bool:
        return self._answer.prepared

    async def write(self, response: pb.ProcessResponse) -> None:
        """Returns when there is room for the next one."""
        if not self._answer.prepared:
            await self._answer.prepare(self._request)
        await self._answer.write(line_of(response))
        await self._request.writer.drain()  # else it waits only after 64 KiB, and at the end without a bound
        await asyncio.sleep(0)  # a write that finds room returns at once, and results may wait already

    async def end(self) -> web.StreamResponse:
        """The answer is whole."""
        await self._answer.write_eof()
        return self._answer

    async def cut(self, problem: Problem, within: float) -> web.StreamResponse:
        """End an answer that has begun, so that nobody takes it for whole; who reads it in time is told why."""
        transport = self._request.transport
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0):
                await self._answer.write(b'{"error": %b}\n' % problem.document())
        self._request.protocol.force_close()
        if transport is not None:  # which waits until all was read, were it for ever
            asyncio.get_running_loop().call_later(within, transport.abort)
        return self._answer


class Process:
    """Answers POST /process."""

    def __init__(self, service: FluxService, is_draining: Callable[[], bool], max_calls: int, room: Room) -> None:
        self._service = service
        self._is_draining = is_draining
        self._max_calls = max_calls
        self._room = room
        self._large = asyncio.Lock()

    async def run(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Until the batch is over. Raises HttpRefused, FluxError."""
        check_type(request)
        if self._is_draining():
            raise Draining()  # before a body is read that nobody will take
        await self._service.Process(await self._message(request), exchange)
        return await exchange.end()

    async def _message(self, request: web.BaseRequest) -> pb.ProcessRequest:
        with self._room.taken() as take:
            if (length := request.content_length) is not None and length > self._room.most:
                take(length)
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # no answer has begun by that
            body = await read(request.content, take)
            if len(body) <= LARGE:
                return await self._decoded(body)
            async with self._large:
                return await self._decoded(body)

    async def _decoded(self, body: bytearray) -> pb.ProcessRequest:
        decoding = Decoding(body, max_calls=self._max_calls)
        body.clear()
        for _ in decoding.slices():
            await asyncio.sleep(0)
        return decoding.request


def check_type(request: web.BaseRequest) -> None:
    """Raises HttpRefused unless the body is JSON, as it is. A form can send other types from any site, but not that."""
    types = request.headers.getall("Content-Type", [])
    kind, _, parameters = (types[0] if len(types) == 1 else "").partition(";")
    charset = parameters.replace('"', "").replace(" ", "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        text = "send the request as Content-Type: application/json, in UTF-8"
        raise HttpRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "NOT_JSON", text, {"Accept": "application/json"})
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        text = "send the body uncompressed"
        raise HttpRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "COMPRESSED", text, {"Accept-Encoding": "identity"})
