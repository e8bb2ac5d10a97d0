"""What surrounds every RPC: no exception's text gets out, and a cancellation or an abort is never swallowed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Client, InternalError, InvalidRequest
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server.door import caller_of
from apiflux_grpc.server.interceptors import CanonicalLine
from tests.server.serving import serving


class Context:
    """What the guard asks of a context."""

    def __init__(self, cancelled: bool = False, left: float | None = None) -> None:
        self._cancelled = cancelled
        self._left = left
        self.aborted: list[Any] = []

    def cancelled(self) -> bool:
        return self._cancelled

    def code(self) -> None:
        return None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return self._left

    async def read(self) -> str:
        return "request"

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        self.aborted.append((code, details, trailing_metadata))
        raise grpc.aio.AbortError("aborted")


async def guarded(handler: Any) -> Any:
    """The handler as the server calls it."""

    async def continuation(_: Any) -> Any:
        return handler

    details: Any = SimpleNamespace(method="/a.B/C")
    return await CanonicalLine().intercept_service(continuation, details)


def handlers(error: BaseException | None) -> dict[str, Any]:
    """One handler of each form; they answer, or raise `error`."""

    async def unary(request: Any, context: Any) -> str:
        if isinstance(error, asyncio.CancelledError):  # as grpc does: it cancels the task
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        if error is not None:
            raise error
        return f"{request} answered"

    async def written(request: Any, context: Any) -> None:
        await unary(request, context)

    async def generated(request: Any, context: Any) -> AsyncIterator[str]:
        yield await unary(request, context)

    return {
        "unary_unary": grpc.unary_unary_rpc_method_handler(unary),
        "stream_unary": grpc.stream_unary_rpc_method_handler(unary),
        "unary_stream": grpc.unary_stream_rpc_method_handler(written),
        "stream_stream": grpc.stream_stream_rpc_method_handler(generated),
        "generated": grpc.unary_stream_rpc_method_handler(generated),
    }


FORMS = pytest.mark.parametrize("form", ["unary_unary", "stream_unary", "unary_stream", "stream_stream", "generated"])


async def called(form: str, context: Context, error: BaseException | None = None) -> Any:
    """Call the wrapped handler of this form, and give what it returned or yielded.

    Its one message is received by us, so it is served as if it took a stream.
    """
    one = {"unary_unary": "stream_unary", "unary_stream": "stream_stream", "generated": "stream_stream"}
    behavior = getattr(await guarded(handlers(error)[form]), one.get(form, form))
    if inspect.isasyncgenfunction(behavior):
        return [message async for message in behavior("request", context)]
    assert inspect.iscoroutinefunction(behavior)
    return await behavior("request", context)


@FORMS
async def test_wrapped_handlers_stay_asynchronous(form: str) -> None:
    """grpc takes whatever is no coroutine function and no asynchronous generator for a blocking handler."""
    answer = {"unary_stream": None, "stream_stream": ["request answered"], "generated": ["request answered"]}
    assert await called(form, Context()) == answer.get(form, "request answered")
    assert await guarded(None) is None  # a method that nobody serves


@FORMS
async def test_the_guard_lets_no_text_out(form: str) -> None:
    """An unhandled exception is INTERNAL with an id and nothing else, in every form of handler."""
    context = Context()
    with pytest.raises(grpc.aio.AbortError):
        await called(form, context, ValueError("canary text"))
    ((code, details, metadata),) = context.aborted
    assert code is grpc.StatusCode.INTERNAL
    assert "canary" not in repr((details, metadata))


@FORMS
@pytest.mark.parametrize(
    ("error", "cancelled", "comes_out"),
    [
        (grpc.aio.AbortError("ours"), False, grpc.aio.AbortError),
        (asyncio.CancelledError(), True, asyncio.CancelledError),
        (grpc.aio.InternalError("a blocked write"), False, asyncio.CancelledError),
        (RuntimeError("after the end"), True, asyncio.CancelledError),
    ],
    ids=["abort", "cancel", "blocked-write", "after-cancel"],
)
async def test_the_guard_lets_aborts_and_cancellations_pass(
    caplog: pytest.LogCaptureFixture, form: str, error: BaseException, cancelled: bool, comes_out: type[BaseException]
) -> None:
    """An abort keeps its status, and whatever a cancelled RPC raises ends as a cancellation; neither is an error."""
    context = Context(cancelled)
    with pytest.raises(comes_out):
        await asyncio.create_task(called(form, context, error))
    assert context.aborted == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@FORMS
@pytest.mark.parametrize(
    ("left", "code"), [(None, "CANCELLED"), (60.0, "CANCELLED"), (-1.0, "DEADLINE_EXCEEDED")], ids=str
)
async def test_a_passed_deadline_is_logged_as_one(
    caplog: pytest.LogCaptureFixture, form: str, left: float | None, code: str
) -> None:
    """grpc cancels the handler in both cases: an RPC whose deadline has passed is no client that went away."""
    caplog.set_level(logging.INFO, "apiflux")
    for error in (asyncio.CancelledError(), grpc.aio.InternalError("a blocked write")):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(called(form, Context(cancelled=True, left=left), error))
    assert [getattr(record, "code", None) for record in caplog.records] == [code] * 2


async def test_an_unhandled_exception_says_nothing_but_an_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is INTERNAL with an opaque id that the log has too; its text stays here."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("canary text")

    monkeypatch.setattr(Engine, "submit", broken)
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InternalError) as caught:
            await anext(client.repeat(1))
    assert "canary" not in str(caught.value)
    error_id = caught.value.metadata["error_id"]
    assert any(getattr(record, "error_id", None) == error_id for record in caplog.records)


async def test_refusals_are_no_errors_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An abort is how a request is refused, not an exception that nobody handled."""
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InvalidRequest):
            await anext(client.process([]))
        with pytest.raises(InvalidRequest):
            await anext(client.repeat(-1))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


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
