"""The blocking client's stream that outlives its server: the rules are those of test_resume.py."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import (
    ApifluxError,
    Call,
    DeadlineExceeded,
    InternalError,
    PoolNotFound,
    Result,
    SyncClient,
    SyncStream,
    Unavailable,
)
from apiflux_grpc.client.feed import TOGETHER
from apiflux_grpc.core.model import MILLISECOND, SECOND, Limit
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.test_resume import answers, answers_all, free_port, posts, result, scripted
from tests.client.test_sync import in_thread
from tests.server.serving import serving


def all_of(stream: SyncStream, into: list[Result]) -> SyncStream:
    """What comes before an error counts too."""
    for one in stream:
        into.append(one)  # noqa: PERF402  # a copy would lose it
    return stream


async def test_a_drain_and_a_restart_cost_nothing() -> None:
    """Every call gets its answer, though none may run twice: the server said which ones it never sent."""
    port = free_port()
    results: list[Result] = []
    some = threading.Event()

    def work(client: SyncClient) -> SyncStream:
        client.wait_ready()
        stream = client.process_stream(posts(300), resume=True, window=100)
        for one in stream:
            results.append(one)
            if len(results) == 60:
                some.set()
        return stream

    async with serving(20 * MILLISECOND, limits=(Limit(50, 200 * MILLISECOND),), port=port):
        working = asyncio.create_task(in_thread(f"127.0.0.1:{port}", work))
        assert await asyncio.to_thread(some.wait, 20)
    async with serving(port=port):
        stream = await working
    assert sorted(one.index for one in results) == list(range(300))
    assert all(one.ok and one.id == f"c{one.index}" for one in results)
    assert stream.summary is not None
    assert (stream.summary.total, stream.summary.succeeded) == (300, 300)


async def test_a_lost_connection_brings_what_is_in_doubt_into_the_results() -> None:
    """Exactly those that were handed over and aren't idempotent; the rest goes over the next connection, in order."""
    calls = [Call(f"/{number}", method="POST" if number % 2 else "GET") for number in range(50)]
    results: list[Result] = []

    def work(client: SyncClient) -> SyncStream:
        return all_of(client.process_stream(calls, resume=True, window=20, ordered=True), results)

    async with scripted(answers(7), answers_all) as (target, service):
        stream = await in_thread(target, work)
    assert service.connections == 2
    assert [one.index for one in results] == list(range(50))
    unknown = [one for one in results if not one.ok]
    assert unknown
    assert {one.index for one in unknown} <= {number for number in range(7, 27) if number % 2}
    assert all(one.error is not None and one.error.reason == "UNKNOWN" and one.error.may_have_run for one in unknown)
    assert stream.summary is not None
    assert stream.summary.failed_by_reason == {"UNKNOWN": len(unknown)}


@pytest.mark.parametrize(
    ("code", "kind", "again"),
    [(grpc.StatusCode.UNAVAILABLE, Unavailable, [1]), (grpc.StatusCode.INTERNAL, InternalError, [1])],
)
async def test_an_end_for_good_comes_out_after_the_results(
    code: grpc.StatusCode, kind: type[Exception], again: list[int]
) -> None:
    """Those that say what is in doubt; the calls that may be sent again are named."""
    calls = [Call("/0"), Call("/1"), Call("/2", method="POST")]
    results: list[Result] = []

    def work(client: SyncClient) -> SyncStream:
        stream = client.process_stream(calls, resume=True, give_up_after=0.0)
        with pytest.raises(kind):
            all_of(stream, results)
        return stream

    async with scripted(answers(1, code)) as (target, service):
        stream = await in_thread(target, work)
    assert service.connections == 1
    assert [(one.index, one.ok) for one in results] == [(0, True), (2, False)]
    assert stream.unsent == again


async def test_a_refused_stream_leaves_nothing_in_doubt() -> None:
    """The server took no call; and one that was never there took none either."""
    results: list[Result] = []

    def refused(client: SyncClient) -> None:
        with pytest.raises(PoolNotFound):
            all_of(client.process_stream(posts(2_000), resume=True, pool="nowhere"), results)

    def nobody(client: SyncClient) -> None:
        with pytest.raises(Unavailable):
            all_of(client.process_stream(posts(3), resume=True), results)

    async with serving() as server:
        await in_thread(server.address, refused)
    await in_thread(f"127.0.0.1:{free_port()}", nobody)
    assert results == []


async def test_a_producer_that_waits_does_not_hold_up_what_is_sent_again() -> None:
    """It was asked before the connection was lost; what it gives at last goes over the next one, and once."""
    came = threading.Event()

    def calls() -> Iterator[Call]:
        yield Call("/0")
        time.sleep(2 * TOGETHER)  # else it is gathered with the next
        yield Call("/1")
        assert came.wait(30)
        yield Call("/2")

    def work(client: SyncClient) -> list[int]:
        seen = []
        for one in client.process_stream(calls(), resume=True):
            seen.append(one.index)
            if len(seen) == 2:  # the one that was lost with its connection
                came.set()
        return seen

    async with scripted(answers(1), answers_all) as (target, service):
        seen = await in_thread(target, work)
    assert service.connections == 2
    assert seen == [0, 1, 2]


async def test_a_producer_that_fails_ends_the_stream() -> None:
    """Its exception comes out, and so does that of before_send; the server has nothing left to do."""

    def calls() -> Iterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    def note(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    def work(client: SyncClient) -> None:
        for stream in (
            client.process_stream(calls(), resume=True),
            client.process_stream([Call()], resume=True, before_send=note),
        ):
            with pytest.raises(ZeroDivisionError):
                list(stream)

    async with serving() as server:
        await in_thread(server.address, work)
        assert await server.engine.wait_idle(10)


async def test_calls_are_told_before_they_are_handed_over() -> None:
    """Each time they are."""
    told: list[int] = []
    arrived: list[int] = []

    async def watches(requests: Any, context: Any) -> Any:
        async for request in requests:
            for call in request.calls:
                arrived.append(int(call.path[1:]))
                assert arrived[-1] in told
                if len(arrived) == 5:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if len(arrived) == 13:
                break
        results = [pb.CallResult(index=index, response=pb.HttpResponse(status_code=200)) for index in range(8)]
        yield pb.ProcessResponse(results=results)
        async for _ in requests:  # to the end: before that nobody knows that those were all
            pass
        yield pb.ProcessResponse(summary=pb.Summary(total=8))

    def work(client: SyncClient) -> list[int]:
        calls = [Call(f"/{number}") for number in range(8)]
        return [one.index for one in client.process_stream(calls, resume=True, before_send=told.extend)]

    async with scripted(watches) as (target, service):
        seen = await in_thread(target, work)
    assert service.connections == 2
    assert sorted(seen) == list(range(8))
    assert set(told) == set(range(8))
    assert len(told) > 8


async def test_a_call_that_was_told_too_late_goes_over_the_next_connection() -> None:
    """It was not handed over yet when the connection was lost, so a POST isn't in doubt."""
    again = threading.Event()

    async def answers_one(requests: Any, context: Any) -> Any:
        async for request in requests:
            if request.calls:
                break
        yield pb.ProcessResponse(results=[result(0)])
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async def comes_back(requests: Any, context: Any) -> Any:
        again.set()
        async for message in answers_all(requests, context):
            yield message

    def note(indexes: Sequence[int]) -> None:
        if 1 in indexes:
            assert again.wait(30)

    def work(client: SyncClient) -> list[tuple[int, bool]]:
        stream = client.process_stream(posts(2), resume=True, before_send=note)
        return [(one.index, one.ok) for one in stream]

    async with scripted(answers_one, comes_back) as (target, service):
        assert await in_thread(target, work) == [(0, True), (1, True)]
    assert service.connections == 2


async def test_no_more_is_handed_over_than_the_window() -> None:
    """A producer that is fast is read ahead of by one message at most."""
    taken = 0

    def calls() -> Iterator[Call]:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield Call(f"/{number}")

    def work(client: SyncClient) -> int:
        with client.process_stream(calls(), resume=True, window=50) as stream:
            for _ in range(10):
                next(stream)
            time.sleep(0.3)
            return client.info().open_calls

    async with serving(limits=(Limit(10, 3600 * SECOND),)) as server:
        assert await in_thread(server.address, work) == 50
        assert taken <= 60 + 502
        assert await server.engine.wait_idle(10)


async def test_the_deadline_is_that_of_the_whole() -> None:
    """However often it was connected."""

    async def hangs(requests: Any, _: Any) -> Any:
        await asyncio.sleep(30)
        yield pb.ProcessResponse()

    def work(client: SyncClient) -> None:
        with pytest.raises(DeadlineExceeded):
            list(client.process_stream([Call("/0"), Call("/1")], resume=True, timeout=1.0))

    started = time.monotonic()
    async with scripted(answers(1), hangs) as (target, _):
        await in_thread(target, work)
    assert time.monotonic() - started < 10


async def test_cancelling_ends_it_whatever_it_waits_for() -> None:
    """A server that doesn't come back, a result, a producer that gives nothing: an error says that it was cancelled."""
    held = threading.Event()

    def nothing() -> Iterator[Call]:
        yield Call("/0")
        held.wait(30)

    def work(calls: Callable[[], Any]) -> Callable[[SyncClient], None]:
        def run(client: SyncClient) -> None:
            stream = client.process_stream(calls(), resume=True)
            assert next(stream).index == 0
            timer = threading.Timer(0.8, stream.cancel)
            timer.start()
            started = time.monotonic()
            with pytest.raises(ApifluxError) as caught:
                list(stream)
            assert time.monotonic() - started < 10
            assert caught.value.code is grpc.StatusCode.CANCELLED
            timer.join()

        return run

    async with scripted(answers(1), answers(0)) as (target, _):
        await in_thread(target, work(lambda: [Call("/0"), Call("/1")]))
    async with serving(limits=(Limit(1, 3600 * SECOND),)) as server:
        await in_thread(server.address, work(lambda: [Call("/0"), Call("/1")]))
        assert await server.engine.wait_idle(10)
    async with serving() as server:
        await in_thread(server.address, work(nothing))
        assert await server.engine.wait_idle(10)
    held.set()


def threads() -> list[threading.Thread]:
    """Those that run, but for the ones that asyncio keeps for `to_thread`."""
    return [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]


async def test_dropping_the_stream_stops_its_work() -> None:
    """As without resume; no thread is left."""

    def work(client: SyncClient) -> None:
        for _ in client.process_stream((Call(f"/{number}") for number in range(100_000)), resume=True):
            break
        gc.collect()

    before = len(threads())
    async with serving(50 * MILLISECOND) as server:
        await in_thread(server.address, work)
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0
    for _ in range(200):
        if len(threads()) <= before:
            break
        await asyncio.sleep(0.05)
    assert len(threads()) <= before


def test_bad_arguments_are_refused() -> None:
    """Before anything is connected."""
    with SyncClient("127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="window"):
            client.process_stream([], resume=True, window=0)
        with pytest.raises(ValueError, match="before_send"):
            client.process_stream([], before_send=lambda _: None)
