"""The blocking client over several servers: that its threads do what the tasks of the asynchronous one do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import ApifluxError, Call, SyncClient, Unavailable
from apiflux_grpc.client import roster as in_roster
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import answers, answers_all, free_port, gets, posts, scripted
from tests.client.test_names import Names, port_of
from tests.client.test_resuming_sync import own_threads
from tests.client.test_spreading import answers_after
from tests.server.serving import Held, serving, until

HOUR = 3600 * SECOND


async def in_thread(targets: Sequence[str] | str, work: Callable[[SyncClient], Any]) -> Any:
    def run() -> Any:
        with SyncClient(targets) as client:
            return work(client)

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("ordered", [False, True])
async def test_each_server_takes_calls_and_every_call_has_one_result(ordered: bool) -> None:
    """Both have calls before either answers; in order if they are to be."""
    barrier = asyncio.Barrier(2)

    def work(client: SyncClient) -> list[int]:
        stream = client.process_stream(gets(2_000), resume=True, ordered=ordered)
        seen = [one.index for one in stream]
        assert stream.summary is not None
        assert stream.summary.total == 2_000
        return seen

    both = (answers_after(barrier.wait), answers_after(barrier.wait))
    async with scripted(both[0]) as (a, first), scripted(both[1]) as (b, second):
        seen = await in_thread([a, b], work)
    assert first.connections == second.connections == 1
    assert (seen if ordered else sorted(seen)) == list(range(2_000))


async def test_a_lost_server_costs_what_may_have_run_and_nothing_else() -> None:
    """Each call has one result, and the others are done by who is left."""
    told: list[tuple[str, bool]] = []
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(target: str, error: ApifluxError | None) -> None:
        told.append((target, error is None))
        loop.call_soon_threadsafe(lost.set)

    def work(client: SyncClient) -> list[Any]:
        calls = [Call(f"/{number}", method="POST" if number % 2 else "GET") for number in range(500)]
        return list(client.process_stream(calls, resume=True, window=40, on_target=tell))

    async with scripted(answers(7), answers_all) as (a, _), scripted(answers_after(lost.wait)) as (b, _):
        results = await in_thread([a, b], work)
    assert sorted(one.index for one in results) == list(range(500))
    unknown = [one for one in results if not one.ok]
    assert len(unknown) <= 20
    assert all(one.error.reason == "UNKNOWN" and one.index % 2 for one in unknown)
    assert told[:1] == [(a, False)]


async def test_stopping_leaves_what_did_not_run() -> None:
    """What each server had begun is answered, and everything else is named."""
    upstreams, limits = (Held(), Held()), (Limit(4, HOUR),)
    streams: list[Any] = []

    def work(client: SyncClient) -> list[Any]:
        stream = client.process_stream(posts(60), resume=True)
        streams.append(stream)
        return list(stream)

    async with serving(limits=limits, upstream=upstreams[0]) as one, serving(limits=limits, upstream=upstreams[1]) as b:
        reading = asyncio.create_task(in_thread([one.address, b.address], work))
        await until(lambda: all(len(upstream.open) == 4 for upstream in upstreams))
        streams[0].stop()
        for upstream in upstreams:
            upstream.release()
        results = await reading
    assert len(results) == 8
    assert all(item.ok for item in results)
    assert not {item.index for item in results} & set(streams[0].unsent)
    assert streams[0].summary.total == 8


async def test_dropping_the_stream_stops_the_work_everywhere() -> None:
    """And no thread is left."""

    def work(client: SyncClient) -> None:
        for _ in client.process_stream((Call(f"/{number}") for number in range(1_000_000)), resume=True):
            break

    async with serving(50 * MILLISECOND) as one, serving(50 * MILLISECOND) as other:
        before = own_threads()
        await in_thread([one.address, other.address], work)
        for server in (one, other):
            assert await server.engine.wait_idle(10)
            assert server.engine.admission.calls == 0
    for thread in own_threads() - before:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_what_a_producer_raises_comes_out() -> None:
    """And what before_send does, which is told of each call before a server has it."""
    noted: list[int] = []

    def calls() -> Iterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    def fails(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    def work(client: SyncClient) -> None:
        with pytest.raises(ZeroDivisionError):
            list(client.process_stream(calls(), resume=True))
        with pytest.raises(ZeroDivisionError):
            list(client.process_stream(gets(1), resume=True, before_send=fails))
        for one in client.process_stream(gets(100), resume=True, window=10, before_send=noted.extend):
            assert one.index in noted

    async with scripted(answers_all) as (a, _), scripted(answers_all) as (b, _):
        await in_thread(f"{a},{b}", work)
    assert sorted(noted) == list(range(100))


async def test_cancelling_ends_the_wait_for_a_result() -> None:
    """It comes from another thread; the reader is told."""
    begun = threading.Event()
    streams: list[Any] = []

    async def silent(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for _request in requests:
            begun.set()
        yield pb.ProcessResponse()

    def work(client: SyncClient) -> None:
        streams.append(client.process_stream(gets(2), resume=True))
        with pytest.raises(ApifluxError) as caught:
            list(streams[0])
        assert caught.value.code is grpc.StatusCode.CANCELLED

    async with scripted(silent) as (a, _), scripted(silent) as (b, _):
        reading = asyncio.create_task(in_thread([a, b], work))
        await asyncio.to_thread(begun.wait, 30)
        streams[0].cancel()
        await reading


async def test_everything_else_goes_to_one_of_them_that_is_there() -> None:
    """In turn, and never to one that is gone; if none is there that is the error."""

    def work(client: SyncClient) -> None:
        client.wait_ready()
        for _ in range(3):
            assert len(list(client.process(gets(2)))) == 2
            assert client.info().pools
            assert client.estimate(10).makespan is not None

    def nobody(client: SyncClient) -> None:
        with pytest.raises(Unavailable):
            list(client.process_stream(posts(3), resume=True))

    async with serving() as server:
        await in_thread([f"127.0.0.1:{free_port()}", server.address], work)
    await in_thread([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"], nobody)


async def test_a_server_that_a_name_has_later_gets_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is asked when a connection is lost."""
    monkeypatch.setattr(in_roster, "LOOK_PAUSE", 0.01)
    names = Names(monkeypatch, "127.0.0.1")

    def work(client: SyncClient) -> list[int]:
        seen = []
        for one in client.process_stream(gets(100), resume=True):
            names.hosts = ("127.0.0.2",)
            seen.append(one.index)
        return seen

    async with scripted(answers(3)) as (first, _):
        port = port_of(first)
        async with scripted(answers_all, host="127.0.0.2", port=port) as (_, second):
            seen = await in_thread(f"dns:///replicas.example:{port}", work)
    assert sorted(seen) == list(range(100))
    assert second.connections == 1
