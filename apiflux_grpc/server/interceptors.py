"""Around every RPC: one canonical log line, and a guard that lets no exception text out.

Rule: an unhandled exception becomes INTERNAL with an opaque id; its text, which may hold anything, goes to the log
alone. CancelledError and AbortError always go on: catching them leaks native memory, or hides an abort.

Handlers come in two forms each (coroutine with `context.write`, asynchronous generator), and both are wrapped in
`async def`: grpc.aio takes anything else for a blocking function.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from apiflux_grpc.core.errors import InvalidRequest
from apiflux_grpc.server import status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_log = logging.getLogger("apiflux.rpc")
_line: ContextVar[dict[str, object]] = ContextVar("_line")
_QUIET: Final = ("/grpc.health.", "/grpc.reflection.")


def note(**fields: object) -> None:
    """Add fields to the log line of the RPC that is being handled."""
    line = _line.get(None)
    if line is not None:
        line.update(fields)


def caller_of(peer: str) -> str:
    """The peer's address without its port: `ipv4:10.1.2.3:4711` -> `10.1.2.3`. Who asks, until callers have names."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind or "unknown"
    host, _, _ = address.replace("%5B", "[").replace("%5D", "]").rpartition(":")
    return host.strip("[]") or address


class CanonicalLine(grpc.aio.ServerInterceptor):
    """One log line per RPC: method, caller, code, milliseconds, and what the handler noted."""

    # grpc's handlers are records of callables whose types no stub can tell; hence Any.
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        decode = handler.request_deserializer
        if not handler.request_streaming:
            # Decoded by us: grpc makes UNKNOWN of what it can't decode, with a trace in the log.
            handler = handler._replace(request_deserializer=None)
        if handler.request_streaming and handler.response_streaming:
            make, behavior = grpc.stream_stream_rpc_method_handler, _streaming(method, handler.stream_stream)
        elif handler.response_streaming:
            make, behavior = grpc.unary_stream_rpc_method_handler, _streaming(method, handler.unary_stream, decode)
        elif handler.request_streaming:
            make, behavior = grpc.stream_unary_rpc_method_handler, _unary(method, handler.stream_unary)
        else:
            make, behavior = grpc.unary_unary_rpc_method_handler, _unary(method, handler.unary_unary, decode)
        return make(behavior, handler.request_deserializer, handler.response_serializer)


def _unary(method: str, behavior: Any, decode: Any = None) -> Any:
    async def wrapped(request: Any, context: Any) -> Any:
        guard = _Guard(method, context)
        try:
            return await behavior(await _decoded(request, decode, context), context)
        except BaseException as error:
            await guard.caught(error)
            raise
        finally:
            guard.log()

    return wrapped


def _streaming(method: str, behavior: Any, decode: Any = None) -> Any:
    if inspect.isasyncgenfunction(behavior):

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            guard = _Guard(method, context)
            try:
                async for response in behavior(await _decoded(request, decode, context), context):
                    yield response
            except BaseException as error:
                await guard.caught(error)
                raise
            finally:
                guard.log()

        return generated

    async def written(request: Any, context: Any) -> None:
        guard = _Guard(method, context)
        try:
            await behavior(await _decoded(request, decode, context), context)
        except BaseException as error:
            await guard.caught(error)
            raise
        finally:
            guard.log()

    return written


async def _decoded(request: Any, decode: Any, context: Any) -> Any:
    """The message; `request` itself where there is nothing to decode. Aborts where it is none."""
    if decode is None:
        return request
    try:
        return decode(request)
    except DecodeError:
        note(reason=InvalidRequest.reason)
        error = InvalidRequest([("request", "is not a message of this method: its bytes can't be decoded")])
        await context.abort_with_status(rpc_status.to_status(status.status_of(error)))


class _Guard:
    """What one RPC came to."""

    def __init__(self, method: str, context: Any) -> None:
        self._method = method
        self._context = context
        self._start = time.monotonic()
        self._line: dict[str, object] = {}
        self._code: str | None = None
        _line.set(self._line)

    async def caught(self, error: BaseException) -> None:
        """Returns where `error` is to go on as it is; aborts with INTERNAL where it is a fault of ours."""
        task = asyncio.current_task()
        ours = isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()
        if isinstance(error, asyncio.CancelledError | GeneratorExit) and not ours:
            self._code = "CANCELLED"
        elif isinstance(error, grpc.aio.AbortError):
            pass  # the context knows the code
        elif self._context.cancelled() or isinstance(error, grpc.aio.InternalError):
            # A cancel during a blocked write comes out of grpc as an error of its own.
            self._code = "CANCELLED"
            raise asyncio.CancelledError from error
        else:
            error_id = uuid.uuid4().hex[:12]
            _log.error("unhandled exception", exc_info=error, extra={"error_id": error_id, "method": self._method})
            note(error_id=error_id)
            await self._context.abort_with_status(rpc_status.to_status(status.internal(error_id)))

    def log(self) -> None:
        quiet = self._method.startswith(_QUIET)
        level = logging.DEBUG if quiet else logging.INFO
        if not _log.isEnabledFor(level):
            return
        code = self._code or _code_name(self._context.code())
        fields = {
            "method": self._method,
            "caller": caller_of(self._context.peer()),
            "code": code,
            "ms": round((time.monotonic() - self._start) * 1000, 1),
            **self._line,
        }
        _log.log(level, "rpc", extra=fields)


def _code_name(code: Any) -> str:
    if isinstance(code, int):
        return next((known.name for known in grpc.StatusCode if known.value[0] == code), str(code))
    return getattr(code, "name", None) or "OK"
