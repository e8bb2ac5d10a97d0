"""A stream that outlives its server, with both clients: over real connections, to servers that drain, fail and return.

What follows from what is decided without a connection in test_accounts.py and test_resumption.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
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
    SyncClient,
    Unavailable,
)
from apiflux_grpc.core.errors import Draining
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.reading import Read, Reader, with_both_clients
from tests.client.scripted import answers, answers_all, free_port, posts, result, scripted
from tests.server.serving import serving


@pytest.fixture
def back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that drains says to come back in 5 s; here it is back at once."""
    monkeypatch.setattr(Draining, "retry_after", 0)


@with_both_clients
async def test_a_drain_and_a_restart_cost_nothing(read: Reader, back_at_once: None) -> None:
    """Every call gets its answer, though none may run twice: the server said which ones it never sent."""
    port, some = free_port(), threading.Event()

    def each(so_far: Read) -> None:
        if len(so_far.results) == 60:
            some.set()

    async with serving(20 * MILLISECOND, limits=(Limit(50, 200 * MILLISECOND),), port=port):
        reading = asyncio.create_task(read(f"127.0.0.1:{port}", posts(300), each=each, window=100))
        assert await asyncio.to_thread(some.wait, 30)
    assert not reading.done()
    async with serving(port=port):
        done = await reading
    assert done.error is None
    assert sorted(done.indexes) == list(range(300))
    assert all(one.ok and one.id == f"c{one.index}" for one in done.results)
    assert done.summary is not None
    assert (done.summary.total, done.summary.succeeded) == (300, 300)


@pytest.mark.parametrize("ordered", [False, True])
@with_both_clients
async def test_a_lost_connection_brings_what_is_in_doubt_into_the_results(read: Reader, ordered: bool) -> None:
    """Exactly those that were handed over and aren't idempotent; the rest goes over the next connection."""
    calls = [Call(f"/{number}", method="POST" if number % 2 else "GET") for number in range(50)]
    async with scripted(answers(7), answers_all) as (target, service):
        done = await read(target, calls, window=20, ordered=ordered, correlation_id="mine")
    assert service.connections == 2
    assert sorted(done.indexes) == list(range(50))
    if ordered:
        assert done.indexes == list(range(50))
    unknown = [one for one in done.results if not one.ok]
    assert unknown
    assert {one.index for one in unknown} <= {number for number in range(7, 27) if number % 2}
    assert all(one.error is not None and one.error.reason == "UNKNOWN" and one.error.may_have_run for one in unknown)
    assert done.summary is not None
    assert done.summary.failed_by_reason == {"UNKNOWN": len(unknown)}
    assert (done.summary.total, done.summary.correlation_id) == (50, "mine")
    assert done.summary.calls_by_key == {"a": 50 - len(unknown)}


@with_both_clients
async def test_calls_that_a_draining_server_did_not_take_are_not_in_doubt(read: Reader) -> None:
    """Its summary says how many it took; what lay in the buffers between is sent to the next, whatever it is."""

    async def takes_two(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        came = 0
        async for request in requests:
            came += len(request.calls)
            if came >= 2:
                break
        yield pb.ProcessResponse(results=[result(0), result(1)], summary=pb.Summary(total=2))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async with scripted(takes_two, answers_all) as (target, service):
        done = await read(target, posts(10))
    assert service.connections == 2
    assert sorted(done.indexes) == list(range(10))
    assert all(one.ok for one in done.results)


@with_both_clients
async def test_a_stream_that_was_never_cut_has_the_summary_of_the_server(read: Reader) -> None:
    """As without resume."""
    async with scripted(answers_all) as (target, _):
        done = await read(target, [Call()])
    assert done.indexes == [0]
    assert done.summary is not None
    assert done.summary.correlation_id == "theirs"


@with_both_clients
async def test_a_server_that_was_never_there_is_an_error_at_once(read: Reader) -> None:
    """Nothing was sent, and nothing is in doubt."""
    done = await read(f"127.0.0.1:{free_port()}", posts(3))
    assert isinstance(done.error, Unavailable)
    assert (done.results, done.unsent) == ([], [])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),  # and nothing is heard for long
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.UNKNOWN, ApifluxError),
    ],
)
@with_both_clients
async def test_an_end_for_good_comes_out_after_the_results(
    read: Reader, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    """Those that say what is in doubt; the calls that may be sent again are named."""
    calls = [Call("/0"), Call("/1"), Call("/2", method="POST")]
    async with scripted(answers(1, code)) as (target, service):
        done = await read(target, calls, give_up_after=0.0)
    assert service.connections == 1
    assert type(done.error) is kind
    assert [(one.index, one.ok) for one in done.results] == [(0, True), (2, False)]
    assert done.unsent == [1]


@pytest.mark.parametrize(("options", "kind"), [({"pool": "nowhere"}, PoolNotFound), ({"priority": 9}, InvalidRequest)])
@with_both_clients
async def test_a_refused_stream_leaves_nothing_in_doubt(
    read: Reader, options: dict[str, Any], kind: type[Exception]
) -> None:
    """An unknown pool or bad options: the server took no call, and all of them can be sent elsewhere."""
    async with serving() as server:
        done = await read(server.address, posts(2_000), **options)
    assert type(done.error) is kind
    assert done.results == []


@with_both_clients
async def test_the_deadline_is_that_of_the_whole(read: Reader) -> None:
    """Each connection may last as long as is left, and when it has passed there is no other."""
    left: list[float] = []

    async def late(requests: Any, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        left.append(context.time_remaining())
        async for request in requests:
            if request.calls:  # all that are left: the client writes no more, and hears the status
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "late")
        yield pb.ProcessResponse()

    async with scripted(answers(1), late) as (target, service):
        done = await read(target, [Call("/0"), Call("/1")], timeout=40.0)
    assert isinstance(done.error, DeadlineExceeded)
    assert service.connections == 2
    assert 0 < left[0] <= 40.1  # gRPC rounds it up


@with_both_clients
async def test_calls_are_told_before_they_are_handed_over(read: Reader) -> None:
    """Each time they are, and while it is being noted nothing goes out."""
    told: list[int] = []
    arrived: list[int] = []

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

    async with scripted(watches) as (target, service):
        calls = (Call(f"/{number}") for number in range(8))
        done = await read(target, calls, before_send=told.extend)
    assert done.error is None
    assert service.connections == 2
    assert sorted(done.indexes) == list(range(8))
    assert set(told) == set(range(8))
    assert len(told) > 8  # those that were lost are told again


@with_both_clients
async def test_a_producer_that_fails_ends_the_stream(read: Reader) -> None:
    """Its exception comes out, and so does that of before_send; the server has nothing left to do."""

    def calls() -> Iterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    def note(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    async with serving() as server:
        assert isinstance((await read(server.address, calls())).error, ZeroDivisionError)
        assert isinstance((await read(server.address, [Call()], before_send=note)).error, ZeroDivisionError)
        assert await server.engine.wait_idle(10)


@pytest.mark.parametrize("kind", [Client, SyncClient])
def test_bad_arguments_are_refused(kind: type[Client] | type[SyncClient]) -> None:
    """Before anything is connected."""

    def note(_: Sequence[int]) -> Any:
        raise AssertionError

    client = kind("127.0.0.1:1")
    with pytest.raises(ValueError, match="window"):
        client.process_stream([], resume=True, window=0)
    with pytest.raises(ValueError, match="before_send"):
        client.process_stream([], before_send=note)
