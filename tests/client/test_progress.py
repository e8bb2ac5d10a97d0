"""How a batch stands is told to a hook of the caller's, and nothing that the hook does costs a result."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apiflux_grpc.client import Client, Progress, SyncClient
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.client.reading import Reader, with_both_clients
from tests.client.scripted import answers, gets, posts, result, scripted
from tests.client.test_sync import in_thread
from tests.server.serving import serving

CALLS = 3


async def tells(requests: Any, _: Any) -> AsyncIterator[pb.ProcessResponse]:
    """One result and one progress for each of three calls, and at the end the summary."""
    count = 0
    async for request in requests:
        for _call in request.calls:
            count += 1
        if count == CALLS:
            break
    for index in range(CALLS):
        progress = pb.Progress(done=index + 1, total=CALLS, in_flight=CALLS - 1 - index)
        progress.eta.FromNanoseconds(500_000_000)
        progress.held_by.append(pb.Held(cause=pb.HELD_CAUSE_LIMITED, reason="429 with Retry-After: 12 s"))
        yield pb.ProcessResponse(results=[result(index)], progress=progress)
    yield pb.ProcessResponse(summary=pb.Summary(total=CALLS, succeeded=CALLS))


@with_both_clients
async def test_the_hook_is_told_all_that_the_server_tells(read: Reader) -> None:
    """Done, total, in flight, ETA and what holds calls back, each as it comes, and nothing twice."""
    told: list[Progress] = []
    async with scripted(tells) as (target, _):
        come = await read(target, gets(CALLS), on_progress=told.append)
    assert come.indexes == [0, 1, 2]
    assert [(one.done, one.total, one.in_flight, one.eta) for one in told] == [
        (1, 3, 2, 0.5),
        (2, 3, 1, 0.5),
        (3, 3, 0, 0.5),
    ]
    assert [str(held) for held in told[0].held_by] == ["429 with Retry-After: 12 s"]


@with_both_clients
async def test_a_hook_that_raises_loses_no_result(read: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback, once, and the hook isn't called again."""
    told: list[Progress] = []

    def raises(progress: Progress) -> None:
        told.append(progress)
        raise ZeroDivisionError("in the hook")

    async with scripted(tells) as (target, _):
        come = await read(target, gets(CALLS), on_progress=raises)
    assert (come.indexes, come.error, len(told)) == ([0, 1, 2], None, 1)
    assert come.summary is not None
    (record,) = [one for one in caplog.records if one.name == "apiflux_grpc.client"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "on_progress raised an exception and is not called again; results go on"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_coroutine_function_is_awaited(caplog: pytest.LogCaptureFixture) -> None:
    """By the asynchronous client, before the results of its message; if it raises, none of them is lost."""
    order: list[str] = []

    async def told(progress: Progress) -> None:
        await client.info()
        order.append(f"told {progress.done}")
        if progress.done == 2:
            raise ZeroDivisionError

    async with scripted(tells) as (target, _), Client(target) as client:
        async for one in client.process_stream(gets(CALLS), on_progress=told):
            order += [f"result {one.index}"]
    assert order == ["told 1", "result 0", "told 2", "result 1", "result 2"]
    assert "on_progress raised" in caplog.text


async def test_messages_and_raw_tell_the_hook_too() -> None:
    """Whichever way a stream is read."""
    told: list[int] = []
    async with scripted(tells) as (target, _), Client(target) as client:
        for way in ("messages", "raw"):
            stream = client.process_stream(gets(CALLS), on_progress=lambda progress: told.append(progress.done))
            async for _message in getattr(stream, way)():
                pass
    assert told == [1, 2, 3] * 2


@with_both_clients
async def test_the_last_word_says_that_all_is_done(read: Reader) -> None:
    """After a lost connection the summary is the client's own, and so is the progress with it."""
    told: list[Progress] = []
    async with scripted(answers(2)) as (target, _):
        come = await read(target, posts(CALLS), on_progress=told.append)
    assert len(come.results) == CALLS
    assert told == [Progress(done=3, total=3, in_flight=0, eta=0.0)]


async def test_every_kind_of_batch_has_the_hook() -> None:
    """process, process_stream, repeat and send of Client, and both of SyncClient; the last progress is the end."""
    last: list[tuple[int, int]] = []

    def note(progress: Progress) -> None:
        last[:] = [(progress.done, progress.total)]

    def blocking(client: SyncClient) -> None:
        for stream in (client.process(gets(5), on_progress=note), client.process_stream(gets(5), on_progress=note)):
            assert len(list(stream)) == 5
            assert last == [(5, 5)]
            last.clear()

    async with serving() as server, Client(server.address) as client:
        request = pb.ProcessRequest(calls=[call.to_message() for call in gets(5)])
        for stream in (
            client.process(gets(5), on_progress=note),
            client.process_stream(gets(5), on_progress=note),
            client.repeat(5, on_progress=note),
            client.send(request, on_progress=note),
        ):
            assert len([one async for one in stream]) == 5
            assert last == [(5, 5)]
            last.clear()
        await in_thread(server.address, blocking)


async def test_what_is_no_hook_is_refused_at_once() -> None:
    """Before anything is sent: what can't be called, and in the blocking client what nobody would await."""

    async def told(_: Progress) -> None: ...

    def work(client: SyncClient) -> None:
        for run in (client.process, client.process_stream):
            with pytest.raises(TypeError, match=r"^on_progress is a coroutine function, which only Client can await"):
                run([], on_progress=told)
            with pytest.raises(TypeError, match=r"^on_progress must be a function that takes a Progress, not bool$"):
                run([], on_progress=True)  # type: ignore[arg-type]

    async with Client("127.0.0.1:1") as client:
        for start in (client.process, client.process_stream):
            with pytest.raises(TypeError, match=r"^on_progress must be a function that takes a Progress, not bool$"):
                start([], on_progress=True)  # type: ignore[arg-type]
    await in_thread("127.0.0.1:1", work)
