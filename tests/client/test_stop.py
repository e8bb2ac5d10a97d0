"""A stream that is stopped: what ran has its result, what didn't is known, and the producer is let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Call, Client, DeadlineExceeded, Result, SyncClient
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import posts, scripted
from tests.client.scripted import result as answered
from tests.client.test_accounts import answer, opened, send
from tests.server.serving import serving

LIMITS = (Limit(20, 60 * SECOND),)


async def test_a_stopped_batch_knows_what_never_ran() -> None:
    """With resume: 20 ran and have their answer, the others are unsent and handed out to nobody."""
    async with serving(50 * MILLISECOND, limits=LIMITS) as server, Client(server.address) as client:
        stream = client.process_stream(posts(300), resume=True, window=100)
        results = [await anext(stream)]
        stream.stop()
        results += [one async for one in stream]
        assert server.engine.admission.calls == 0
    assert all(one.ok for one in results)
    assert len(results) == 20
    assert sorted([*stream.unsent, *(one.index for one in results)]) == list(range(100))
    assert stream.summary is not None


async def test_a_batch_can_be_stopped_when_all_its_calls_were_sent() -> None:
    """Without resume too; then a call that never ran has the error STOPPED."""
    async with serving(50 * MILLISECOND, limits=LIMITS) as server, Client(server.address) as client:
        stream = client.process_stream(posts(60))
        results = [await anext(stream)]
        stream.stop()
        results += [one async for one in stream]
    assert sorted(one.index for one in results) == list(range(60))
    stopped = [one.error for one in results if one.error is not None]
    assert len(stopped) == 40
    assert {(error.reason, error.may_have_run) for error in stopped} == {("STOPPED", False)}
    assert stream.summary is not None
    assert (stream.summary.succeeded, stream.summary.cancelled) == (20, 40)


@pytest.mark.parametrize("resume", [True, False])
async def test_the_blocking_client_stops_too(resume: bool) -> None:
    """From another thread, or between two results."""

    def work(target: str) -> tuple[list[Result], list[int]]:
        with SyncClient(target) as client:
            stream = client.process_stream(posts(60), resume=resume)
            results = [next(stream)]
            stopping = threading.Thread(target=stream.stop)
            stopping.start()
            results += list(stream)
            stopping.join()
            return results, stream.unsent

    async with serving(50 * MILLISECOND, limits=LIMITS) as server:
        results, unsent = await asyncio.to_thread(work, server.address)
    assert sum(one.ok for one in results) == 20
    assert len(unsent) == (40 if resume else 0)
    assert sorted([*unsent, *(one.index for one in results)]) == list(range(60))


@pytest.mark.parametrize("resume", [True, False])
async def test_a_producer_that_waits_does_not_hold_back_a_stop(resume: bool) -> None:
    """What it has given is finished; its generator is closed."""
    closed = asyncio.Event()

    async def calls() -> AsyncIterator[Call]:
        try:
            yield Call("/1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with serving() as server, Client(server.address) as client:
        stream = client.process_stream(calls(), resume=resume)
        assert (await anext(stream)).ok
        stream.stop()
        assert [one async for one in stream] == []
        await asyncio.wait_for(closed.wait(), 10)
    assert stream.summary is not None
    assert stream.summary.total == 1


async def test_stopped_before_it_began_nothing_is_sent() -> None:
    """And nobody is connected to."""
    async with Client("127.0.0.1:1") as client:
        stream = client.process_stream(posts(3), resume=True)
        stream.stop()
        assert [one async for one in stream] == []
    assert stream.summary is not None
    assert stream.summary.total == 0


async def test_only_a_stream_of_calls_can_be_stopped() -> None:
    """Of a whole batch the server has all it needs."""
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(RuntimeError, match="cancel"):
            client.process(posts(1)).stop()


async def test_a_connection_that_is_lost_after_the_stop_is_not_made_again() -> None:
    """The error comes out, and what was in flight is in doubt."""

    async def leaves(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for request in requests:
            if request.calls:
                yield pb.ProcessResponse(results=[answered(0)])
            if request.stop:
                return

    async with scripted(leaves) as (target, service), Client(target) as client:
        stream = client.process_stream(posts(3), resume=True)
        assert (await anext(stream)).ok
        stream.stop()
        doubtful = [one async for one in stream]
    assert service.connections == 1
    assert [(one.index, one.error is not None and one.error.may_have_run) for one in doubtful] == [(1, True), (2, True)]
    assert stream.unsent == []


def test_in_order_what_ran_after_a_gap_is_not_lost() -> None:
    """The call before it has no result, and never will: it comes at the end."""
    books, accounts = opened(ordered=True)
    books.take([Call("/0", method="POST"), Call("/1", method="POST")])
    send(books, accounts)
    books.stopped = True
    assert accounts.results([answer(1)]) == []
    assert [result.index for result in books.rest()] == [1]
    assert books.rest() == []


@pytest.mark.parametrize("how", ["deadline", "leaving", "dropping"])
async def test_a_stream_that_ends_lets_its_producer_go(how: str) -> None:
    """Whatever ends it, the generator of the calls is closed, and no task of it is left."""
    closed = asyncio.Event()

    async def calls() -> AsyncIterator[Call]:
        try:
            yield Call("/1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def late(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for request in requests:
            if request.calls:
                yield pb.ProcessResponse(results=[answered(0)])
                if how == "deadline":
                    await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "late")

    before = asyncio.all_tasks()
    async with scripted(late) as (target, _):
        async with Client(target) as client:
            stream = client.process_stream(calls())
            assert (await anext(stream)).ok
            if how == "deadline":
                with pytest.raises(DeadlineExceeded):
                    await anext(stream)
            elif how == "leaving":
                stream.cancel()
            else:
                del stream
            await asyncio.wait_for(closed.wait(), 10)
        names = {str(task.get_coro()) for task in asyncio.all_tasks() - before}
    assert not any("_fill" in name or "_requests" in name for name in names), names


def test_a_blocked_thread_of_an_ended_stream_goes_on() -> None:
    """The blocking client keeps the way open for a stop; when the RPC is over nobody waits there."""

    def calls() -> Iterator[Call]:
        yield Call("/1")

    with SyncClient("127.0.0.1:1") as client:
        before = threading.active_count()
        stream = client.process_stream(calls())
        with pytest.raises(Exception, match="UNAVAILABLE"):
            next(stream)
        for thread in threading.enumerate()[before:]:
            thread.join(10)
            assert not thread.is_alive()
