"""The asynchronous client's stream with `resume`: its producer, its window, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Call, Client, Result, Stream
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import answers, answers_all, gets, result, scripted
from tests.server.serving import serving


async def take_all(stream: Stream, into: list[Result]) -> None:
    """What comes before an error counts too."""
    async for one in stream:
        into.append(one)  # noqa: PERF401  # a comprehension would lose it


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
        stream = client.process_stream(gets(6), resume=True)
        told = [(progress.done, progress.total) async for _, progress in stream.messages() if progress is not None]
    assert service.connections == 3
    assert told == [(0, 6), (2, 6), (2, 6), (4, 6), (4, 6), (6, 6)]


async def settled(server: Server, calls: int, client: Client) -> None:
    """Wait until the server has so many open calls; whatever else was written to it then has arrived too."""
    while server.engine.admission.calls < calls:
        await client.info()
    for _ in range(10):  # over the same connection, so each answer comes after what was written before
        await client.info()


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
            await settled(server, 50, client)
            assert server.engine.admission.calls == 50
            assert taken == 60 if not asynchronous else taken <= 60 + 502  # it reads ahead
        assert await server.engine.wait_idle(10)


async def test_a_producer_that_is_slow_loses_nothing_when_the_connection_goes() -> None:
    """What was taken while there was none is sent over the next."""
    async with scripted(answers(5), answers(5), answers_all) as (target, service), Client(target) as client:

        async def calls() -> AsyncIterator[Call]:
            for number in range(30):
                if number in (6, 12):  # the connection is lost with the call before, and waits for this one
                    await service.connected(number // 6 + 1)
                yield Call(f"/{number}")

        seen = [one.index async for one in client.process_stream(calls(), resume=True, ordered=True)]
    assert service.connections == 3
    assert seen == list(range(30))


async def test_cancelling_ends_the_wait_for_a_server() -> None:
    """At once, though the server said that it comes back in an hour."""
    async with scripted(answers(1, back_in=3600)) as (target, service), Client(target) as client:
        stream = client.process_stream(gets(2), resume=True, give_up_after=10_000)
        assert (await anext(stream)).index == 0
        waiting = asyncio.create_task(take_all(stream, []))
        await service.ended.wait()
        await asyncio.wait({waiting}, timeout=0.05)  # time to hear of it; cancelled before, it ends as well
        assert not waiting.done()
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert service.connections == 1


async def test_dropping_the_stream_stops_its_work() -> None:
    """As without resume."""
    async with serving(50 * MILLISECOND) as server, Client(server.address) as client:
        async for _ in client.process_stream((Call(f"/{number}") for number in range(100_000)), resume=True):
            break
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0
