"""A stream that outlives its server: over real connections, with servers that drain, fail and come back."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import (
    ApifluxError,
    Call,
    Client,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    PoolNotFound,
    Result,
    Stream,
    Unavailable,
)
from apiflux_grpc.core.model import MILLISECOND, SECOND, Limit
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from tests.server.serving import OPTIONS, serving

Handler = Callable[[Any, Any], AsyncIterator[pb.ProcessResponse]]


def posts(count: int) -> list[Call]:
    return [Call(f"/{number}", method="POST", id=f"c{number}") for number in range(count)]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def take_all(stream: Stream, into: list[Result]) -> None:
    """What comes before an error counts too."""
    async for one in stream:
        into.append(one)  # noqa: PERF401  # a comprehension would lose it


class Scripted(apiflux_pb2_grpc.FluxServiceServicer):
    """Each connection is handled by the next of its handlers, the last one by all that follow."""

    def __init__(self, *handlers: Handler) -> None:
        self._handlers = list(handlers)
        self.connections = 0

    Process = Estimate = GetInfo = None  # type: ignore[assignment]  # never asked for

    async def ProcessStream(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.ProcessResponse]:
        handler = self._handlers[min(self.connections, len(self._handlers) - 1)]
        self.connections += 1
        async for message in handler(request_iterator, context):
            yield message


@asynccontextmanager
async def scripted(*handlers: Handler) -> AsyncIterator[tuple[str, Scripted]]:
    service = Scripted(*handlers)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    apiflux_pb2_grpc.add_FluxServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call,unused-ignore]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        await server.stop(None)


def result(index: int) -> pb.CallResult:
    return pb.CallResult(index=index, response=pb.HttpResponse(status_code=200), key_label="a", attempts=1)


async def answers_all(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
    index = 0
    async for request in requests:
        for _call in request.calls:
            yield pb.ProcessResponse(results=[result(index)])
            index += 1
    yield pb.ProcessResponse(summary=pb.Summary(total=index, succeeded=index, correlation_id="theirs"))


def answers(count: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Handler:
    """So many, then the connection is lost."""

    async def handler(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        index = 0
        async for request in requests:
            for _ in request.calls:
                if index == count:
                    await context.abort(code, "gone")
                yield pb.ProcessResponse(results=[result(index)])
                index += 1
        await context.abort(code, "gone")

    return handler


async def test_a_drain_and_a_restart_cost_nothing() -> None:
    """Every call gets its answer, though none may run twice: the server said which ones it never sent."""
    port, stopped = free_port(), 0
    results: list[Result] = []
    async with Client(f"127.0.0.1:{port}") as client:
        stream = client.process_stream(posts(300), resume=True, window=100)
        async with serving(20 * MILLISECOND, limits=(Limit(50, 200 * MILLISECOND),), port=port):
            while len(results) < 60:
                results.append(await anext(stream))
            stopped = len(results)
        async with serving(port=port):
            await take_all(stream, results)
    assert stopped == 60
    assert sorted(one.index for one in results) == list(range(300))
    assert all(one.ok and one.id == f"c{one.index}" for one in results)
    assert stream.summary is not None
    assert (stream.summary.total, stream.summary.succeeded) == (300, 300)


async def test_a_lost_connection_brings_what_is_in_doubt_into_the_results() -> None:
    """Exactly those that were handed over and aren't idempotent; the rest goes over the next connection."""
    calls = [Call(f"/{number}", method="POST" if number % 2 else "GET") for number in range(50)]
    async with scripted(answers(7), answers_all) as (target, service), Client(target) as client:
        stream = client.process_stream(calls, resume=True, window=20, correlation_id="mine")
        results = [one async for one in stream]
    assert service.connections == 2
    assert sorted(one.index for one in results) == list(range(50))
    unknown = [one for one in results if not one.ok]
    assert {one.index for one in unknown} <= {number for number in range(7, 27) if number % 2}
    assert unknown
    assert all(one.error is not None and one.error.reason == "UNKNOWN" and one.error.may_have_run for one in unknown)
    assert stream.summary is not None
    assert stream.summary.failed_by_reason == {"UNKNOWN": len(unknown)}
    assert (stream.summary.total, stream.summary.correlation_id) == (50, "mine")
    assert stream.summary.calls_by_key == {"a": 50 - len(unknown)}


async def test_calls_that_a_draining_server_did_not_take_are_not_in_doubt() -> None:
    """Its summary says how many it took; what lay in the buffers between is sent to the next, whatever it is."""

    async def takes_two(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for request in requests:
            if request.calls:
                break
        yield pb.ProcessResponse(results=[result(0), result(1)], summary=pb.Summary(total=2))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async with scripted(takes_two, answers_all) as (target, service), Client(target) as client:
        results = [one async for one in client.process_stream(posts(10), resume=True)]
    assert service.connections == 2
    assert sorted(one.index for one in results) == list(range(10))
    assert all(one.ok for one in results)


async def test_progress_is_that_of_the_whole() -> None:
    """The server counts from 0 on every connection."""

    async def tells(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for request in requests:
            if request.calls:
                break
        count = len(request.calls)
        yield pb.ProcessResponse(progress=pb.Progress(done=0, total=count))
        yield pb.ProcessResponse(results=[result(0), result(1)], progress=pb.Progress(done=2, total=count))
        if count > 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        yield pb.ProcessResponse(summary=pb.Summary(total=2))

    async with scripted(tells) as (target, service), Client(target) as client:
        stream = client.process_stream([Call(f"/{number}") for number in range(6)], resume=True)
        told = [(progress.done, progress.total) async for _, progress in stream.messages() if progress is not None]
    assert service.connections == 3
    assert told == [(0, 6), (2, 6), (2, 6), (4, 6), (4, 6), (6, 6)]


async def test_a_stream_that_was_never_cut_has_the_summary_of_the_server() -> None:
    """As without resume."""
    async with scripted(answers_all) as (target, _), Client(target) as client:
        stream = client.process_stream([Call()], resume=True)
        assert [one.index async for one in stream] == [0]
        assert stream.summary is not None
        assert stream.summary.correlation_id == "theirs"


async def test_a_server_that_was_never_there_is_an_error_at_once() -> None:
    """Nothing was sent, and nothing is in doubt."""
    async with Client(f"127.0.0.1:{free_port()}") as client:
        stream = client.process_stream(posts(3), resume=True)
        with pytest.raises(Unavailable):
            await anext(stream)
        assert stream.unsent == []


async def test_it_gives_up_when_nothing_is_heard_for_long() -> None:
    """The last error comes out; the calls that may be sent again are named."""
    calls = [Call("/0"), Call("/1"), Call("/2", method="POST")]
    results: list[Result] = []
    async with scripted(answers(1)) as (target, _), Client(target) as client:
        stream = client.process_stream(calls, resume=True, give_up_after=0.0)
        with pytest.raises(Unavailable):
            await take_all(stream, results)
        assert [(one.index, one.ok) for one in results] == [(0, True), (2, False)]
        assert stream.unsent == [1]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.INTERNAL, InternalError), (grpc.StatusCode.UNKNOWN, ApifluxError)],
)
async def test_an_error_that_is_no_lost_connection_comes_out(code: grpc.StatusCode, kind: type[Exception]) -> None:
    """After the results that say what is in doubt."""
    results: list[Result] = []
    async with scripted(answers(1, code)) as (target, service), Client(target) as client:
        with pytest.raises(kind):
            await take_all(client.process_stream(posts(3), resume=True), results)
    assert service.connections == 1
    assert [(one.index, one.ok) for one in results] == [(0, True), (1, False), (2, False)]


async def test_a_refused_stream_leaves_nothing_in_doubt() -> None:
    """An unknown pool or bad options: the server took no call, and all of them can be sent elsewhere."""
    async with serving() as server, Client(server.address) as client:
        refused: list[tuple[type[ApifluxError], Any]] = [
            (PoolNotFound, {"pool": "nowhere"}),
            (InvalidRequest, {"priority": 9}),
        ]
        for kind, options in refused:
            results: list[Result] = []
            with pytest.raises(kind):
                await take_all(client.process_stream(posts(2_000), resume=True, **options), results)
            assert results == []


async def test_the_deadline_is_that_of_the_whole() -> None:
    """However often it was connected."""

    async def hangs(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
        await asyncio.sleep(30)
        yield pb.ProcessResponse()

    started = time.monotonic()
    async with scripted(answers(1), hangs) as (target, _), Client(target) as client:
        with pytest.raises(DeadlineExceeded):
            async for _one in client.process_stream([Call("/0"), Call("/1")], resume=True, timeout=1.0):
                pass
    assert time.monotonic() - started < 5


async def test_calls_are_told_before_they_are_handed_over() -> None:
    """Each time they are, and while it is being noted nothing goes out."""
    told: list[int] = []
    arrived: list[int] = []

    async def note(indexes: Any) -> None:
        await asyncio.sleep(0.01)
        told.extend(indexes)

    async def watches(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for request in requests:
            for call in request.calls:
                arrived.append(int(call.path[1:]))
                assert arrived[-1] in told
                if len(arrived) == 5:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if len(arrived) == 13:
                break
        yield pb.ProcessResponse(results=[result(index) for index in range(8)])
        async for _ in requests:  # to the end: before that nobody knows that those were all
            pass
        yield pb.ProcessResponse(summary=pb.Summary(total=8))

    async with scripted(watches) as (target, service), Client(target) as client:
        calls = (Call(f"/{number}") for number in range(8))
        seen = [one.index async for one in client.process_stream(calls, resume=True, before_send=note)]
    assert service.connections == 2
    assert sorted(seen) == list(range(8))
    assert sorted(told) == sorted([*range(8), *range(8)])


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_no_more_is_taken_than_the_window(asynchronous: bool) -> None:
    """The producer waits while calls have no result."""
    taken = 0

    def calls() -> Any:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield Call(f"/{number}")

    async def later() -> AsyncIterator[Call]:
        for call in calls():
            yield call

    async with serving(limits=(Limit(10, 3600 * SECOND),)) as server, Client(server.address) as client:
        async with client.process_stream(later() if asynchronous else calls(), resume=True, window=50) as stream:
            for _ in range(10):
                await anext(stream)
            await asyncio.sleep(0.3)
            assert server.engine.admission.calls == 50
            assert taken == 60 if not asynchronous else taken <= 60 + 502  # it reads ahead
        assert await server.engine.wait_idle(10)


async def test_a_producer_that_fails_ends_the_stream() -> None:
    """Its exception comes out."""

    async def calls() -> AsyncIterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    async with serving() as server, Client(server.address) as client:
        with pytest.raises(ZeroDivisionError):
            async for _ in client.process_stream(calls(), resume=True):
                pass
        assert await server.engine.wait_idle(10)


async def test_a_producer_that_is_slow_loses_nothing_when_the_connection_goes() -> None:
    """What was taken while there was none is sent over the next."""

    async def calls() -> AsyncIterator[Call]:
        for number in range(30):
            await asyncio.sleep(0.02)
            yield Call(f"/{number}")

    async with scripted(answers(5), answers(5), answers_all) as (target, service), Client(target) as client:
        seen = [one.index async for one in client.process_stream(calls(), resume=True, ordered=True)]
    assert service.connections == 3
    assert seen == list(range(30))


async def test_cancelling_ends_the_wait_for_a_server() -> None:
    """At once, however long it would still try."""
    async with scripted(answers(1), answers(0)) as (target, _), Client(target) as client:
        stream = client.process_stream([Call("/0"), Call("/1")], resume=True)
        assert (await anext(stream)).index == 0
        waiting = asyncio.create_task(take_all(stream, []))
        await asyncio.sleep(1.0)
        started = time.monotonic()
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert time.monotonic() - started < 0.5


async def test_dropping_the_stream_stops_its_work() -> None:
    """As without resume."""
    async with serving(50 * MILLISECOND) as server, Client(server.address) as client:
        async for _ in client.process_stream((Call(f"/{number}") for number in range(100_000)), resume=True):
            break
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0


async def test_bad_arguments_are_refused() -> None:
    """Before anything is connected."""
    async with Client("127.0.0.1:1", options=OPTIONS) as client:

        async def note(_: Any) -> None:
            pass

        with pytest.raises(ValueError, match="window"):
            client.process_stream([], resume=True, window=0)
        with pytest.raises(ValueError, match="before_send"):
            client.process_stream([], before_send=note)
