"""Around every RPC: one canonical log line, and a guard that lets no exception text out.

Rule: an unhandled exception becomes INTERNAL with an opaque id; its text, which may hold anything, goes to the log
alone. CancelledError and AbortError always go on: catching them leaks native memory, or hides an abort.

Handlers come in two forms each (coroutine with `context.write`, asynchronous generator), and both are wrapped in
`async def`: grpc.aio takes anything else for a blocking function. What takes one message is served as if it took a
stream: grpc would receive that message first, and then call the handler.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import uuid
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import EngineFailed, FluxError, InvalidRequest
from apiflux_grpc.server import status
from apiflux_grpc.server.door import arrived, caller_in, identity
from apiflux_grpc.server.memory import GivingBack
from apiflux_grpc.server.receiving import Receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from apiflux_grpc.server.receiving import Place

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
    """One log line per RPC: method, caller, code, milliseconds, and what the handler noted.

    `expect(method, bytes)` raises if such a request is to be refused before it is decoded; bytes are 0 before it was
    received.
    """

    def __init__(self, expect: Callable[[str, int], None] = lambda method, size: None) -> None:
        self._expect = expect
        self._requests = Receiving()
        self._probes = Receiving(2)  # so that health answers while requests wait for a place
        self._giving_back = GivingBack()

    # grpc's handlers are records of callables whose types no stub can tell; hence Any.
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        # Decoded by us: grpc makes UNKNOWN of what it can't decode, with a trace in the log, or nothing of a stream's.
        # And received by us, also where a method takes one message: grpc receives that before it calls the handler.
        if handler.request_streaming:
            incoming: _Stream | _One = _Stream(handler.request_deserializer)
        else:
            places = self._probes if method.startswith(_QUIET) else self._requests
            incoming = _One(handler.request_deserializer, method, self._expect, places, self._giving_back)
        if handler.response_streaming:
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make, wrapped = grpc.stream_stream_rpc_method_handler, _streaming(method, behavior, incoming)
        else:
            behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
            make, wrapped = grpc.stream_unary_rpc_method_handler, _unary(method, behavior, incoming)
        return make(wrapped, None, handler.response_serializer)


def _unary(method: str, behavior: Any, incoming: _Stream | _One) -> Any:
    async def wrapped(messages: Any, context: Any) -> Any:
        guard = _Guard(method, context)
        try:
            arrived(context)
            return await behavior(await incoming.take(messages, context, guard), context)
        except BaseException as error:
            await guard.caught(error)
            raise
        finally:
            incoming.over(guard)
            guard.log()

    return wrapped


def _streaming(method: str, behavior: Any, incoming: _Stream | _One) -> Any:
    if not inspect.isasyncgenfunction(behavior):
        return _unary(method, behavior, incoming)

    async def generated(messages: Any, context: Any) -> AsyncIterator[Any]:
        guard = _Guard(method, context)
        try:
            arrived(context)
            async for response in behavior(await incoming.take(messages, context, guard), context):
                yield response
        except BaseException as error:
            await guard.caught(error)
            raise
        finally:
            incoming.over(guard)
            guard.log()

    return generated


class _One:
    """The one message of a method that takes one. A method without a deserializer takes bytes, here and below."""

    def __init__(
        self, deserializer: Any, method: str, expect: Callable[[str, int], None], places: Receiving, back: GivingBack
    ) -> None:
        self._decode = partial(_decoded, deserializer)
        self._method = method
        self._expect = expect
        self._places = places
        self._back = back

    async def take(self, messages: object, context: Any, guard: _Guard) -> Any:
        """The message, once there was a place for it. Raises what `expect` does, TooManyAtOnce or InvalidRequest."""
        self._expect(self._method, 0)
        guard.place = place = await self._places.enter(context.peer(), guard.refuse)
        message = await context.read()
        if message is grpc.aio.EOF:
            raise InvalidRequest([Fault("request", "is missing; send a message of this method's type")])
        guard.size = len(message)
        if not self._places.received(place, guard.size):
            await self._places.turn(place)
        self._expect(self._method, guard.size)
        return self._decode(message)

    def over(self, guard: _Guard) -> None:
        """The RPC has ended."""
        if guard.place is not None:
            self._places.leave(guard.place)
        self._back.freed(guard.size)


class _Stream:
    """The messages of a method that takes a stream of them."""

    def __init__(self, deserializer: Any) -> None:
        self._deserializer = deserializer

    async def take(self, messages: Any, context: object, guard: object) -> Any:
        if self._deserializer is None:
            return messages
        return _Decoding(messages, partial(_decoded, self._deserializer))

    def over(self, guard: object) -> None:
        """Nothing is held."""


def _decoded(deserializer: Any, message: bytes) -> Any:
    """Raises InvalidRequest if it is no such message."""
    if deserializer is None:
        return message
    try:
        return deserializer(message)
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
        self._refusing: asyncio.Task[None] | None = None
        self.place: Place | None = None  # while its message is on its way in
        self.size = 0  # bytes of it
        _line.set(self._line)

    def refuse(self, error: FluxError) -> None:
        """End the RPC while its message is still coming. Its reading then ends with an AbortError.

        Reading can't be cancelled: the bytes would be written to where it waited for them.
        """
        self._line["reason"] = error.reason
        self._refusing = asyncio.get_running_loop().create_task(self._abort_alone(error))

    async def _abort_alone(self, error: FluxError) -> None:
        with suppress(grpc.aio.AbortError, grpc.aio.UsageError):  # or it has ended meanwhile
            await self._abort(error)

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
            failed = EngineFailed(error_id)
            failed.__context__ = error
            await self._abort(failed)

    async def _abort(self, error: FluxError) -> None:
        # grpc keeps the AbortError in a circle with the context, and that keeps what was being handled when it was
        # raised: with a traceback the whole request would stay, until the collector comes by.
        handled: BaseException | None = error
        while handled is not None:
            handled.__traceback__ = None
            handled = handled.__context__
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
        known = identity()  # of a certificate it is known only by now
        fields = {
            "method": self._method,
            "caller": self._caller if known is None else known.name,
            "code": code,
            "ms": round((time.monotonic() - self._start) * 1000, 1),
            **self._line,
        }
        _log.log(level, "rpc", extra=fields)


def _code_name(code: Any) -> str:
    if isinstance(code, int):
        return next((known.name for known in grpc.StatusCode if known.value[0] == code), str(code))
    return getattr(code, "name", None) or "OK"
