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

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import EngineFailed, FluxError, InvalidRequest
from apiflux_grpc.server import status
from apiflux_grpc.server.door import caller_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_log = logging.getLogger("apiflux.rpc")
_line: ContextVar[dict[str, object]] = ContextVar("_line")
# How early the end of an RPC may be for its deadline to be the cause: seconds, and a share of the time that it had.
_EARLY: Final = 0.05
_ROUNDED: Final = 0.01
_QUIET: Final = ("/grpc.health.", "/grpc.reflection.")


def note(**fields: object) -> None:
    """Add fields to the log line of the RPC that is being handled."""
    line = _line.get(None)
    if line is not None:
        line.update(fields)


def begin_line() -> dict[str, object]:
    """The fields that `note` adds from now on, in this task: of what isn't an RPC and does the same."""
    line: dict[str, object] = {}
    _line.set(line)
    return line


class CanonicalLine(grpc.aio.ServerInterceptor):
    """One log line per RPC: method, caller, code, milliseconds, and what the handler noted."""

    # grpc's handlers are records of callables whose types no stub can tell; hence Any.
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        # Decoded by us: grpc makes UNKNOWN of what it can't decode, with a trace in the log, or nothing of a stream's.
        decode = _Decode(handler.request_deserializer, handler.request_streaming)
        if handler.request_streaming and handler.response_streaming:
            make, behavior = grpc.stream_stream_rpc_method_handler, _streaming(method, handler.stream_stream, decode)
        elif handler.response_streaming:
            make, behavior = grpc.unary_stream_rpc_method_handler, _streaming(method, handler.unary_stream, decode)
        elif handler.request_streaming:
            make, behavior = grpc.stream_unary_rpc_method_handler, _unary(method, handler.stream_unary, decode)
        else:
            make, behavior = grpc.unary_unary_rpc_method_handler, _unary(method, handler.unary_unary, decode)
        return make(behavior, None, handler.response_serializer)


def _unary(method: str, behavior: Any, decode: _Decode) -> Any:
    async def wrapped(request: Any, context: Any) -> Any:
        guard = _Guard(method, context)
        try:
            return await behavior(decode(request), context)
        except BaseException as error:
            await guard.caught(error)
            raise
        finally:
            guard.log()

    return wrapped


def _streaming(method: str, behavior: Any, decode: _Decode) -> Any:
    if inspect.isasyncgenfunction(behavior):

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            guard = _Guard(method, context)
            try:
                async for response in behavior(decode(request), context):
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
            await behavior(decode(request), context)
        except BaseException as error:
            await guard.caught(error)
            raise
        finally:
            guard.log()

    return written


class _Decode:
    """Makes a message of bytes, or messages of a stream of them. Raises InvalidRequest if they are none.

    A method without a deserializer takes the bytes.
    """

    def __init__(self, deserializer: Any, streaming: bool) -> None:
        self._deserializer = deserializer
        self._streaming = streaming

    def __call__(self, request: Any) -> Any:
        if self._deserializer is None:
            return request
        return _Decoding(request, self.one) if self._streaming else self.one(request)

    def one(self, message: bytes) -> Any:
        try:
            return self._deserializer(message)
        except DecodeError:
            fault = Fault("request", "can't be decoded; send a message of this method's type")
            raise InvalidRequest([fault]) from None


class _Decoding:
    """The messages of a stream as they come. No generator: one that is left waiting must be closed."""

    def __init__(self, messages: AsyncIterator[bytes], decode: Callable[[bytes], Any]) -> None:
        self._messages = messages
        self._decode = decode

    def __aiter__(self) -> _Decoding:
        return self

    async def __anext__(self) -> Any:
        return self._decode(await anext(self._messages))


class _Guard:
    """What one RPC came to."""

    def __init__(self, method: str, context: Any) -> None:
        self._method = method
        self._context = context
        self._caller = caller_in(context)  # a context that was cancelled knows no peer any more
        self._start = time.monotonic()
        self._left: float | None = context.time_remaining()  # nor does it know its deadline
        self._line: dict[str, object] = {}
        self._code: str | None = None
        _line.set(self._line)

    async def caught(self, error: BaseException) -> None:
        """Returns if `error` must go on as it is. Else aborts, with its status or, for a fault of ours, INTERNAL."""
        task = asyncio.current_task()
        ours = isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()
        if isinstance(error, asyncio.CancelledError | GeneratorExit) and not ours:
            self._code = self._cancelled
        elif isinstance(error, grpc.aio.AbortError):
            pass  # the context knows the code
        elif isinstance(error, FluxError):
            note(reason=error.reason)
            if isinstance(error, InvalidRequest):
                note(violations=len(error.violations) + error.more)
            await self._abort(error)
        elif self._context.cancelled() or isinstance(error, grpc.aio.InternalError):
            # A cancel during a blocked write comes out of grpc as an error of its own.
            self._code = self._cancelled
            raise asyncio.CancelledError from error
        else:
            error_id = uuid.uuid4().hex[:12]
            _log.error("unhandled exception", exc_info=error, extra={"error_id": error_id, "method": self._method})
            note(error_id=error_id)
            await self._abort(EngineFailed(error_id))

    async def _abort(self, error: FluxError) -> None:
        told = rpc_status.to_status(status.status_of(error))
        left = None if self._left is None else self._left - (time.monotonic() - self._start)
        metadata = (*told.trailing_metadata, status.pushback(error, left))
        await self._context.abort(told.code, told.details, metadata)

    @property
    def _cancelled(self) -> str:
        """What a cancellation is: grpc cancels a handler whose deadline has passed as it does one whose client left.

        A client resets its stream when its own timer rings, and rounds the deadline that it sends up by at most a
        hundredth; so what ends that close to the deadline has ended by it.
        """
        if self._left is None:
            return "CANCELLED"
        late = time.monotonic() - self._start >= self._left - max(_EARLY, self._left * _ROUNDED)
        return "DEADLINE_EXCEEDED" if late else "CANCELLED"

    def log(self) -> None:
        quiet = self._method.startswith(_QUIET)
        level = logging.DEBUG if quiet else logging.INFO
        if not _log.isEnabledFor(level):
            return
        code = self._code or _code_name(self._context.code())
        fields = {
            "method": self._method,
            "caller": self._caller,
            "code": code,
            "ms": round((time.monotonic() - self._start) * 1000, 1),
            **self._line,
        }
        _log.log(level, "rpc", extra=fields)


def _code_name(code: Any) -> str:
    if isinstance(code, int):
        return next((known.name for known in grpc.StatusCode if known.value[0] == code), str(code))
    return getattr(code, "name", None) or "OK"
