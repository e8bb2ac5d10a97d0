"""One stream of the asynchronous client over several servers: over real connections, to servers that work, drain, hang,
fail and return. What is decided without a connection is in test_several.py."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import ApifluxError, Call, Client, InternalError, Result, Unavailable
from apiflux_grpc.client import spreading as in_spreading
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.scripted import Handler, answers, answers_all, free_port, gets, posts, result, scripted
from tests.server.serving import Held, serving, until

HOUR = 3600 * SECOND


@asynccontextmanager
async def both(one: Handler, other: Handler) -> AsyncIterator[tuple[Client, Any, Any]]:
    """A client of two scripted servers, and the services."""
    async with scripted(one) as (a, first), scripted(other) as (b, second), Client([a, b]) as client:
        yield client, first, second


def answers_after(begun: Callable[[], Awaitable[object]]) -> Handler:
    """All calls, from when the first has come, and then `begun` is over."""

    async def handler(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        place = 0
        async for request in requests:
            if request.calls and not place:
                await begun()
            for _ in request.calls:
                yield pb.ProcessResponse(results=[result(place)])
                place += 1
        yield pb.ProcessResponse(summary=pb.Summary(total=place))

    return handler


async def test_each_server_takes_calls_and_every_call_has_one_result() -> None:
    """The servers take from one source, and both work: each has calls before either answers."""
    barrier = asyncio.Barrier(2)
    async with both(answers_after(barrier.wait), answers_after(barrier.wait)) as (client, first, second):
        stream = client.process_stream(gets(3_000), resume=True)
        seen = [item.index async for item in stream]
    assert sorted(seen) == list(range(3_000))
    assert first.connections == second.connections == 1
    assert stream.summary is not None
    assert stream.summary.total == 3_000


async def test_results_come_in_order_if_they_are_to() -> None:
    """Over all servers; none of them knows more than its part."""
    async with both(answers_all, answers_all) as (client, _, _):
        stream = client.process_stream(gets(1_000), resume=True, ordered=True, window=40)
        assert [item.index async for item in stream] == list(range(1_000))


async def test_a_lost_server_costs_what_may_have_run_and_nothing_else() -> None:
    """Each call has one result; the others are done by who is left, and the lost one is used again."""
    told: list[tuple[str, bool]] = []
    lost = asyncio.Event()
    async with (
        scripted(answers(7), answers_all) as (a, first),
        scripted(answers_after(lost.wait)) as (b, _),
        Client([a, b]) as client,
    ):
        calls = [Call(f"/{number}", method="POST" if number % 2 else "GET") for number in range(500)]

        async def slowly() -> AsyncIterator[Call]:
            for number, one in enumerate(calls):
                if number == 250:
                    await first.connected(2)
                yield one

        def tell(target: str, error: ApifluxError | None) -> None:
            told.append((target, error is None))
            lost.set()

        stream = client.process_stream(slowly(), resume=True, window=40, on_target=tell)
        results = [item async for item in stream]
    assert sorted(item.index for item in results) == list(range(500))
    unknown = [item for item in results if not item.ok]
    assert all(item.error is not None and item.error.reason == "UNKNOWN" for item in unknown)
    assert len(unknown) <= 20
    assert all(item.index % 2 for item in unknown)
    assert told[:1] == [(a, False)]
    assert stream.summary is not None
    assert (stream.summary.total, stream.summary.failed) == (500, len(unknown))


async def test_what_a_drained_server_never_sent_is_done_by_the_others() -> None:
    """None may run twice, all are answered, and the server isn't waited for."""
    held, limits = Held(), (Limit(3, 20 * MILLISECOND),)
    async with (
        serving(limits=limits) as other,
        serving(limits=limits, upstream=held) as server,
        Client([server.address, other.address]) as client,
    ):
        stream = client.process_stream(posts(100), resume=True, window=40)
        reading = asyncio.create_task(take_all(stream))
        await until(lambda: server.engine.admission.calls > 3)
        stopping = asyncio.create_task(server.stop())
        held.release()
        results = await reading
        await stopping
    assert sorted(item.index for item in results) == list(range(100))
    assert all(item.ok for item in results)


async def take_all(stream: Any) -> list[Result]:
    return [item async for item in stream]


async def take_into(stream: Any, results: list[Result]) -> None:
    """What comes before an error counts too."""
    async for item in stream:
        results.append(item)  # noqa: PERF401  # a comprehension would lose it


async def test_calls_that_wait_at_one_server_go_to_another_that_is_done() -> None:
    """The first has used up its limit for an hour, and the other has not."""
    limits = (Limit(300, HOUR),)
    async with (
        serving(limits=limits) as slow,
        serving(limits=limits) as fast,
        Client(slow.address) as single,
        Client([slow.address, fast.address]) as client,
    ):
        await take_all(single.process(gets(290)))
        results = await take_all(client.process_stream(posts(300), resume=True))
    assert sorted(item.index for item in results) == list(range(300))
    assert all(item.ok for item in results)


async def test_a_target_that_never_answers_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing: it is told, and the others do all the work."""
    monkeypatch.setattr(in_spreading, "GREETING", 0.05)
    told: list[str] = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        deaf = f"127.0.0.1:{silent.getsockname()[1]}"
        async with scripted(answers_all) as (target, _), Client(f"{deaf},{target}") as client:
            stream = client.process_stream(
                gets(100), resume=True, on_target=lambda target, error: told.append(target if error else "")
            )
            results = await take_all(stream)
    assert sorted(item.index for item in results) == list(range(100))
    assert set(told) <= {deaf}


async def test_a_server_that_comes_later_is_used() -> None:
    """It wasn't there when the stream began."""
    port = free_port()
    came = asyncio.Event()
    async with scripted(answers_all) as (there, _), Client([there, f"127.0.0.1:{port}"]) as client:

        async def calls() -> AsyncIterator[Call]:
            for number in range(500):
                if number == 100:
                    await came.wait()
                yield Call(f"/{number}")

        reading = asyncio.create_task(take_all(client.process_stream(calls(), resume=True, window=50)))
        async with serving(port=port) as server:
            await until(lambda: server.engine.admission.calls > 0 or server.engine.admission.batches > 0)
            came.set()
            assert sorted(item.index for item in await reading) == list(range(500))


async def test_no_server_at_all_is_an_error_at_once() -> None:
    """Nothing was sent, and nothing is in doubt."""
    async with Client([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]) as client:
        stream = client.process_stream(posts(3), resume=True)
        with pytest.raises(Unavailable):
            await anext(stream)
    assert stream.unsent == [] or stream.unsent == [0, 1, 2]


async def test_a_fault_at_one_server_comes_out_after_the_results_of_the_others() -> None:
    """Every call that was handed over has its result then."""

    failed = asyncio.Event()

    async def fails(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        async for request in requests:
            if request.calls:
                failed.set()
                await context.abort(grpc.StatusCode.INTERNAL, "broken")
        yield pb.ProcessResponse()

    async with both(fails, answers_after(failed.wait)) as (client, _, _):
        # Without end: else the other may have done them all by when the fault is heard.
        stream = client.process_stream((Call("/", method="POST") for _ in count()), resume=True, window=10)
        results: list[Result] = []
        with pytest.raises(InternalError):
            await take_into(stream, results)
    assert len({item.index for item in results}) == len(results)
    assert not {item.index for item in results} & set(stream.unsent)


async def test_stopping_leaves_what_did_not_run() -> None:
    """What each server had begun is answered, and everything else is named."""
    upstreams = Held(), Held()
    limits = (Limit(4, HOUR),)
    async with (
        serving(limits=limits, upstream=upstreams[0]) as one,
        serving(limits=limits, upstream=upstreams[1]) as other,
        Client([one.address, other.address]) as client,
    ):
        stream = client.process_stream(posts(60), resume=True)
        reading = asyncio.create_task(take_all(stream))
        await until(lambda: all(len(upstream.open) == 4 for upstream in upstreams))
        stream.stop()
        for upstream in upstreams:
            upstream.release()
        results = await reading
        assert len(results) == 8
        assert all(item.ok for item in results)
        assert sorted([*(item.index for item in results), *stream.unsent])[:8] == list(range(8))
        assert stream.summary is not None
        assert stream.summary.total == 8


@pytest.mark.parametrize("how", ["cancel", "drop"])
async def test_whoever_stops_reading_stops_the_work_everywhere(how: str) -> None:
    """Cancelled, or dropped after a break."""
    async with (
        serving(50 * MILLISECOND) as one,
        serving(50 * MILLISECOND) as other,
        Client([one.address, other.address]) as client,
    ):
        endless = (Call(f"/{number}") for number in range(1_000_000))
        stream = client.process_stream(endless, resume=True)
        async for _ in stream:
            break
        if how == "cancel":
            stream.cancel()
            with pytest.raises(asyncio.CancelledError):
                await take_all(stream)
        del stream
        for server in (one, other):
            assert await server.engine.wait_idle(10)
            assert server.engine.admission.calls == 0


async def test_a_producer_that_fails_ends_the_stream() -> None:
    """Its exception comes out, and so does that of before_send."""

    def calls() -> Iterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    async def note(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    async with both(answers_all, answers_all) as (client, _, _):
        with pytest.raises(ZeroDivisionError):
            await take_all(client.process_stream(calls(), resume=True))
        with pytest.raises(ZeroDivisionError):
            await take_all(client.process_stream(gets(1), resume=True, before_send=note))


async def test_calls_are_noted_before_they_are_handed_over_one_message_at_a_time() -> None:
    """So that what was noted is what a crash can leave in doubt."""
    noted: list[int] = []
    arrived: list[int] = []
    writing = 0

    async def note(indexes: Sequence[int]) -> None:
        nonlocal writing
        writing += 1
        assert writing == 1
        await asyncio.sleep(0)
        noted.extend(indexes)
        writing -= 1

    async def watches(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
        place = 0
        async for request in requests:
            for call in request.calls:
                arrived.append(int(call.path[1:]))
                assert arrived[-1] in noted
                yield pb.ProcessResponse(results=[result(place)])
                place += 1
        yield pb.ProcessResponse(summary=pb.Summary(total=place))

    async with both(watches, watches) as (client, _, _):
        await take_all(client.process_stream(gets(300), resume=True, window=20, before_send=note))
    assert Counter(noted) == Counter(arrived) == Counter(range(300))


async def test_progress_is_that_of_all_servers_together() -> None:
    """Counts are added up, and what is left is done by all at the rate that each tells, once all have."""

    async def tells(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
        came = 0
        async for request in requests:
            came += len(request.calls)
            if came == 50:
                break
        progress = pb.Progress(done=0, total=50, in_flight=5, rate=10.0)
        progress.eta.seconds = 10
        yield pb.ProcessResponse(progress=progress)
        async for _request in requests:
            pass

    told: list[Any] = []
    enough = asyncio.Event()

    def show(progress: Any) -> None:
        told.append(progress)
        if len(told) == 2:
            enough.set()

    async with (
        both(tells, tells) as (client, _, _),
        client.process_stream(gets(100), resume=True, on_progress=show, expected=100) as stream,
    ):
        reading = asyncio.create_task(take_all(stream))
        await enough.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert [(one.done, one.total, one.to_come) for one in told] == [(0, 100, 0)] * 2
    assert [(one.eta, one.rate) for one in told] == [(None, None), (10.0, 20.0)]


async def test_a_server_with_another_pool_gets_no_calls() -> None:
    """Which one is the other, who was first decides; it is told what differs."""
    told: list[ApifluxError | None] = []
    is_told = asyncio.Event()

    def tell(_: str, error: ApifluxError | None) -> None:
        told.append(error)
        is_told.set()

    async def calls() -> AsyncIterator[Call]:
        for one in gets(50):
            yield one
        await is_told.wait()

    async with (
        serving(limits=(Limit(100, SECOND),)) as one,
        serving(limits=(Limit(200, SECOND),)) as other,
        Client([one.address, other.address]) as client,
    ):
        assert len(await take_all(client.process_stream(calls(), resume=True, on_target=tell))) == 50
    assert sum(server.engine.admission.calls for server in (one, other)) == 0
    (error,) = told
    assert error is not None
    assert "differ in limits of the key key-1" in error.message


async def test_everything_else_goes_to_one_of_them_that_is_there() -> None:
    """A batch, an estimate, what a server says of itself; in turn, and never to one that is gone."""
    async with serving() as server, Client([f"127.0.0.1:{free_port()}", server.address]) as client:
        await client.wait_ready()
        assert len(client.targets) == 2
        for _ in range(3):
            assert len(await take_all(client.process(gets(2)))) == 2
            assert (await client.info()).pools
            assert (await client.estimate(10)).makespan is not None
