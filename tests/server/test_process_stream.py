"""ProcessStream: calls fed while results come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.client import Call, Client, InternalError, InvalidRequest, PoolNotFound, Result, Stream, Unavailable
from apiflux_grpc.client.tally import error_info
from apiflux_grpc.core.model import MILLISECOND, SECOND, Limit
from apiflux_grpc.engine.ports import Attempt
from apiflux_grpc.server.checking import StreamChecking
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from tests.server.serving import OPTIONS, serving

WINDOW, HELD = Defaults().window, Defaults().held


def numbered(count: int) -> list[Call]:
    return [Call(f"/{number}", id=f"c{number}") for number in range(count)]


async def take_all(stream: Stream, into: list[Result]) -> None:
    """What comes before an error counts too."""
    async for result in stream:
        into.append(result)  # noqa: PERF401  # a comprehension would lose it


async def test_every_call_gets_one_result_and_its_id() -> None:
    """More calls than the window, fed from a generator; the summary comes last."""
    count = 3 * WINDOW + 7
    async with serving() as server, Client(server.address) as client:
        stream = client.process_stream(Call(f"/{number}", id=f"c{number}") for number in range(count))
        seen = set()
        async for result in stream:
            assert result.ok
            assert result.id == f"c{result.index}"
            seen.add(result.index)
        assert seen == set(range(count))
        assert stream.summary is not None
        assert (stream.summary.total, stream.summary.succeeded) == (count, count)
        info = await client.info()
        assert (info.open_batches, info.open_calls) == (0, 0)


async def test_results_come_while_calls_are_still_fed() -> None:
    """The first results are there long before the last call is."""
    gate = asyncio.Event()

    async def calls() -> AsyncIterator[Call]:
        for call in numbered(10):
            yield call
        await gate.wait()
        yield Call("/last")

    async with serving() as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        first = [await anext(stream) for _ in range(10)]
        assert len(first) == 10
        gate.set()
        assert [result.index async for result in stream] == [10]


async def test_the_server_reads_on_only_as_results_come() -> None:
    """While nothing is answered, it takes about a window of calls, however many there are."""
    taken = 0

    async def calls() -> AsyncIterator[Call]:
        nonlocal taken
        for call in range(1_000_000):
            taken += 1
            yield Call(f"/{call}", body=b"x" * 1000)

    async with serving(limits=(Limit(10, 3600 * SECOND),)) as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        assert (await anext(stream)).ok
        before = -1
        while before != taken:
            before = taken
            await asyncio.sleep(0.5)
        assert WINDOW <= server.engine.admission.calls <= WINDOW + 1000
        assert taken < 60_000  # what lies in the buffers of both sides comes on top
        stream.cancel()
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0


async def test_large_calls_are_bounded_by_their_bytes() -> None:
    """Far fewer of them than a window are taken while nothing is answered."""

    async def calls() -> AsyncIterator[Call]:
        for number in range(2_000):
            yield Call(f"/{number}", method="POST", body=bytes(200_000))

    async with serving(limits=(Limit(10, 3600 * SECOND),)) as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        assert (await anext(stream)).ok
        before = -1
        while before != server.engine.admission.calls:
            before = server.engine.admission.calls
            await asyncio.sleep(1)
        assert server.engine.admission.calls * 200_000 < HELD + (64 << 20)
        stream.cancel()


async def test_a_fed_call_waits_from_when_it_came() -> None:
    """Its queue time isn't that of the stream."""

    async def calls() -> AsyncIterator[Call]:
        yield Call("/first")
        await asyncio.sleep(1.5)
        yield Call("/second")

    async with serving() as server, Client(server.address) as client:
        results = [result async for result in client.process_stream(calls())]
    assert max(result.queue_time for result in results) < 1


async def test_a_wrong_call_gets_its_error_and_the_rest_goes_on() -> None:
    """With its index and the field; in order too."""
    calls = numbered(20)
    calls[3] = Call("../up", id="three")
    calls[7] = Call("/x", id="c6")
    calls[8] = Call("/x", headers={"Host": "elsewhere"})
    async with serving(20 * MILLISECOND) as server, Client(server.address) as client:
        stream = client.process_stream(calls, ordered=True)
        results = [result async for result in stream]
    assert [result.index for result in results] == list(range(20))
    wrong = {result.index: result.error for result in results if result.error is not None}
    assert set(wrong) == {3, 7, 8}
    assert all(error.reason == "INVALID_CALL" and not error.may_have_run for error in wrong.values())
    assert "calls[3].path" in wrong[3].message
    assert "c6" in wrong[7].message
    assert "calls[8].headers" in wrong[8].message
    assert results[3].id == "three"
    assert stream.summary is not None
    assert (stream.summary.total, stream.summary.succeeded, stream.summary.failed) == (20, 17, 3)
    assert stream.summary.failed_by_reason == {"INVALID_CALL": 3}


async def test_a_strict_stream_ends_at_a_wrong_call() -> None:
    """INVALID_ARGUMENT with the field path; nothing is left behind."""
    async with serving() as server, Client(server.address) as client:
        calls = [Call("/a"), Call("//host/x"), Call("/c")]
        with pytest.raises(InvalidRequest) as caught:
            async for _ in client.process_stream(calls, strict=True):
                pass
        assert [place for place, _ in caught.value.violations] == ["calls[1].path"]
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0


async def test_ids_may_be_used_again_once_their_call_has_its_result() -> None:
    """Unique among calls without a result: nobody can remember all of an endless stream."""

    async def calls() -> AsyncIterator[Call]:
        yield Call("/1", id="same")
        await first.wait()
        yield Call("/2", id="same")

    first = asyncio.Event()
    async with serving() as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        assert (await anext(stream)).ok
        first.set()
        assert (await anext(stream)).ok


async def test_an_empty_stream_is_over_at_once() -> None:
    """With a summary of nothing."""
    async with serving() as server, Client(server.address) as client:
        stream = client.process_stream([])
        assert [result async for result in stream] == []
        assert stream.summary is not None
        assert stream.summary.total == 0


async def test_a_bad_beginning_is_refused() -> None:
    """No open, open again, an unknown pool, options that can't be."""
    async with serving() as server:
        async with Client(server.address) as client:
            with pytest.raises(PoolNotFound):
                await anext(client.process_stream([Call()], pool="nowhere"))
            with pytest.raises(InvalidRequest) as caught:
                await anext(client.process_stream([Call()], priority=9))
            assert [place for place, _ in caught.value.violations] == ["open.priority"]
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
            opening = pb.ProcessStreamRequest(open=pb.ProcessStreamOpen())
            for messages in ([pb.ProcessStreamRequest(calls=[pb.Call()])], [opening, opening], []):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    async for _ in stub.ProcessStream(iter(messages)):
                        pass
                assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await server.engine.wait_idle(10)


@pytest.mark.parametrize("good", [0, 1])
async def test_bytes_that_are_no_message_end_the_stream(good: int) -> None:
    """INVALID_ARGUMENT, whichever message it is; the server goes on."""
    async with serving() as server, grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
        first = pb.ProcessStreamRequest(open=pb.ProcessStreamOpen(), calls=[pb.Call()]).SerializeToString()
        raw: Any = channel.stream_stream("/apiflux.v1.FluxService/ProcessStream")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in raw(iter([first] * good + [b"\xff\xff\xff"])):
                pass
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "can't be decoded" in str(failed.value.details())
        assert await server.engine.wait_idle(10)
        async with Client(server.address) as client:
            assert [result.ok async for result in client.process_stream([Call()])] == [True]


async def test_a_fault_of_ours_while_calls_are_read_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """INTERNAL and an id, never silence."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(StreamChecking, "take", broken)
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InternalError, match="internal error"):
            await anext(client.process_stream([Call()]))
        assert await server.engine.wait_idle(10)


async def test_leaving_a_stream_stops_its_work() -> None:
    """Also while the server waits for room and the client still has calls to give."""
    async with serving(50 * MILLISECOND) as server, Client(server.address) as client:
        async for _ in client.process_stream(Call(f"/{number}") for number in range(200_000)):
            break
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0


async def test_a_stream_that_is_stopped_tells_what_never_ran() -> None:
    """Calls in flight finish, the others end as STOPPED and certainly did not run; the summary and OK follow."""
    made = 0
    full = asyncio.Event()

    class Counting(SimulatedUpstream):
        def begin(self, attempt: Attempt) -> None:
            nonlocal made
            made += 1
            super().begin(attempt)
            if made == 20:
                full.set()

    async with (
        serving(limits=(Limit(20, 60 * SECOND),), make_upstream=lambda: Counting((SECOND, SECOND))) as server,
        grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel,
    ):
        stub: Any = apiflux_pb2_grpc.FluxServiceStub(channel)
        stream = stub.ProcessStream()
        calls = [pb.Call(id=f"c{number}") for number in range(100)]
        await stream.write(pb.ProcessStreamRequest(open=pb.ProcessStreamOpen(), calls=calls))
        await full.wait()
        await stream.write(pb.ProcessStreamRequest(calls=[pb.Call(id="last")], stop=True))
        results, summary = [], None
        async for message in stream:
            results += message.results
            summary = message.summary if message.HasField("summary") else summary
        assert await stream.code() is grpc.StatusCode.OK
    assert sorted(result.index for result in results) == list(range(101))
    stopped = [result for result in results if result.failure == "STOPPED"]
    assert {error_info(result).metadata["may_have_run"] for result in stopped} == {"false"}
    assert made == sum(result.response.status_code == 200 for result in results) == 20
    assert summary is not None
    assert (summary.succeeded, summary.cancelled, summary.total) == (20, 81, 101)


async def test_a_drain_ends_a_stream_that_would_go_on() -> None:
    """Calls in flight finish, what was fed and not sent is DRAINING, then UNAVAILABLE."""

    async def calls() -> AsyncIterator[Call]:
        for call in numbered(50):
            yield call
        await asyncio.sleep(3600)

    limits = (Limit(10, 3600 * SECOND),)
    async with serving(100 * MILLISECOND, limits=limits, grace=5.0) as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        results = [await anext(stream)]
        await asyncio.sleep(0.5)  # for the calls to come in
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(Unavailable) as caught:
            await take_all(stream, results)
        await stopping
    assert caught.value.reason == "DRAINING"
    assert sum(result.ok for result in results) == 10
    assert all(result.error.reason == "DRAINING" for result in results if result.error is not None)
    assert len(results) == 50


async def test_a_producer_that_fails_ends_the_stream() -> None:
    """Its exception comes out, and the server's work stops."""

    async def calls() -> AsyncIterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    async with serving() as server, Client(server.address) as client:
        with pytest.raises(ZeroDivisionError):
            async for _ in client.process_stream(calls()):
                pass
        assert await server.engine.wait_idle(10)
