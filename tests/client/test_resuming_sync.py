"""The blocking client's stream with `resume`: two threads, a producer that may block, and what ends it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import ApifluxError, Call, Client, SyncClient, feed
from apiflux_grpc.client.resume import Resumption
from apiflux_grpc.client.whole import End
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import answers, answers_all, gets, posts, result, scripted
from tests.client.test_sync import in_thread
from tests.server.serving import serving


async def test_a_producer_that_waits_does_not_hold_up_what_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked before the connection was lost; what it gives at last goes over the next one, and once."""
    monkeypatch.setattr(feed, "TOGETHER", -1.0)  # each call goes alone, so the second doesn't wait for the third
    came = threading.Event()

    def calls() -> Iterator[Call]:
        yield Call("/0")
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
            while client.info().open_calls < 50:
                pass
            for _ in range(10):  # over the same connection, so each answer comes after what was written before
                client.info()
            return client.info().open_calls

    async with serving(limits=(Limit(10, 3600 * SECOND),)) as server:
        assert await in_thread(server.address, work) == 50
        assert taken <= 60 + 502
        assert await server.engine.wait_idle(10)


def cancelled_when(ready: threading.Event, calls: Callable[[], Any]) -> Callable[[SyncClient], None]:
    """Reads one result, and on until the stream is cancelled by another thread, which waits for `ready`."""

    def work(client: SyncClient) -> None:
        stream = client.process_stream(calls(), resume=True, give_up_after=10_000)
        assert next(stream).index == 0

        def cancel() -> None:
            assert ready.wait(30)
            stream.cancel()

        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        with pytest.raises(ApifluxError) as caught:
            list(stream)
        assert caught.value.code is grpc.StatusCode.CANCELLED
        cancelling.join()

    return work


async def test_cancelling_ends_the_wait_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It said that it comes back in an hour; an error says that the stream was cancelled, and it isn't asked again."""
    ready = threading.Event()
    connections: list[float] = []
    connect, end = Resumption.connect, Resumption.end

    def counted(batch: Resumption, now: float) -> float | None:
        connections.append(now)
        return connect(batch, now)

    def waits(batch: Resumption, error: ApifluxError | None, now: float) -> End:
        decided = end(batch, error, now)
        ready.set()
        return decided

    monkeypatch.setattr(Resumption, "connect", counted)
    monkeypatch.setattr(Resumption, "end", waits)
    async with scripted(answers(1, back_in=3600)) as (target, _):
        await in_thread(target, cancelled_when(ready, lambda: gets(2)))
    assert len(connections) == 1


async def test_cancelling_ends_the_wait_for_a_result() -> None:
    """And the call that it was to be of."""
    ready = threading.Event()
    async with serving(limits=(Limit(1, 3600 * SECOND),)) as server, Client(server.address) as client:
        working = asyncio.create_task(in_thread(server.address, cancelled_when(ready, lambda: gets(2))))
        while (await client.info()).open_calls == 0:
            pass
        ready.set()
        await working
        assert await server.engine.wait_idle(10)


async def test_cancelling_ends_the_wait_for_a_producer() -> None:
    """One that gives nothing more; its thread ends when it does."""
    held, ready = threading.Event(), threading.Event()

    def calls() -> Iterator[Call]:
        yield Call("/0")
        ready.set()
        held.wait(30)

    async with serving() as server:
        await in_thread(server.address, cancelled_when(ready, calls))
        assert await server.engine.wait_idle(10)
    held.set()


def own_threads() -> set[threading.Thread]:
    """Those that run, but for the ones that asyncio keeps for `to_thread`."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_dropping_the_stream_stops_its_work() -> None:
    """As without resume; no thread is left."""

    def work(client: SyncClient) -> None:
        for _ in client.process_stream((Call(f"/{number}") for number in range(100_000)), resume=True):
            break
        gc.collect()

    async with serving(50 * MILLISECOND) as server:
        before = own_threads()  # with the one that polls for the server
        await in_thread(server.address, work)
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0
    for thread in own_threads() - before:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
