"""Servers that do what a test says, on real connections, and the calls that tests give to them.

Rule: a server does its next step when a message comes, never after a time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from apiflux_grpc.client import Call
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

Handler = Callable[[Any, Any], AsyncIterator[pb.ProcessResponse]]


def posts(count: int) -> list[Call]:
    """Calls that may not run twice."""
    return [Call(f"/{number}", method="POST", id=f"c{number}") for number in range(count)]


def gets(count: int) -> list[Call]:
    """Calls that may."""
    return [Call(f"/{number}") for number in range(count)]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def result(index: int) -> pb.CallResult:
    return pb.CallResult(index=index, response=pb.HttpResponse(status_code=200), key_label="a", attempts=1)


class Scripted(apiflux_pb2_grpc.FluxServiceServicer):
    """Each connection is handled by the next of its handlers, the last one by all that follow.

    `ended` is set when a handler is through.
    """

    def __init__(self, *handlers: Handler) -> None:
        self._handlers = list(handlers)
        self._begun = asyncio.Condition()
        self.connections = 0
        self.ended = asyncio.Event()

    Process = Estimate = None  # type: ignore[assignment]  # never asked for

    async def GetInfo(self, request: Any, context: Any) -> pb.GetInfoResponse:  # noqa: N802
        return pb.GetInfoResponse()

    async def ProcessStream(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:  # noqa: N802
        handler = self._handlers[min(self.connections, len(self._handlers) - 1)]
        async with self._begun:
            self.connections += 1
            self._begun.notify_all()
        await context.send_initial_metadata(())  # the greeting of a server that takes the stream
        try:
            async for message in handler(request_iterator, context):
                yield message
        finally:
            self.ended.set()

    async def connected(self, times: int) -> None:
        """Wait for so many connections."""
        async with self._begun:
            await self._begun.wait_for(lambda: self.connections >= times)


@asynccontextmanager
async def scripted(*handlers: Handler, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, Scripted]]:
    """(target, the service behind it)"""
    service = Scripted(*handlers)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    apiflux_pb2_grpc.add_FluxServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call,unused-ignore]
    port = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield f"{host}:{port}", service
    finally:
        await server.stop(None)


# -- handlers ------------------------------------------------------------------------------------


async def answers_all(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
    """Each call as it comes, and at their end the summary."""
    index = 0
    async for request in requests:
        for _call in request.calls:
            yield pb.ProcessResponse(results=[result(index)])
            index += 1
    yield pb.ProcessResponse(summary=pb.Summary(total=index, succeeded=index, correlation_id="theirs"))


def answers(count: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, *, back_in: int | None = None) -> Handler:
    """So many, then the connection is lost; `back_in` is in how many seconds the server says it will be back."""

    async def handler(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        index = 0
        async for request in requests:
            for _ in request.calls:
                if index == count:
                    await context.abort(code, "gone", trailers(back_in))
                yield pb.ProcessResponse(results=[result(index)])
                index += 1
        await context.abort(code, "gone", trailers(back_in))

    return handler


def trailers(back_in: int | None) -> tuple[tuple[str, bytes], ...]:
    """RetryInfo, as the server's trailers have it; None: no trailers."""
    if back_in is None:
        return ()
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = back_in
    status = status_pb2.Status()
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


async def hangs(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
    """Takes what comes, and says nothing."""
    async for _request in requests:
        pass
    await asyncio.Event().wait()
    yield pb.ProcessResponse()
