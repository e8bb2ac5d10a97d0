"""ProcessStream: calls are fed while results come back, and each gets its result, whatever ends the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Call, Client, InternalError, InvalidRequest, PoolNotFound
from apiflux_grpc.client.tally import error_info
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.checking import StreamChecking
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.direct import Context, direct
from tests.server.serving import Held, connected, serving, settled, stub_of, until


def numbered(count: int) -> list[Call]:
    return [Call(f"/{number}", id=f"c{number}") for number in range(count)]


async def test_every_call_gets_one_result_and_its_id() -> None:
    """More calls than the window, fed from a generator; the summary comes last."""
    count = 1007
    async with serving(defaults=Defaults(window=300)) as server, Client(server.address) as client:
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


@pytest.mark.parametrize("bound", ["calls", "bytes"])
async def test_the_server_reads_on_only_as_results_come(bound: str) -> None:
    """While nothing is answered it takes about a window of calls, and no more than so many bytes of them."""
    taken = 0
    size = 1000 if bound == "calls" else 100_000
    defaults = Defaults(window=1000) if bound == "calls" else Defaults(held=1_000_000)

    async def calls() -> AsyncIterator[Call]:
        nonlocal taken
        for number in range(1_000_000):
            taken += 1
            yield Call(f"/{number}", method="POST", body=bytes(size))

    held = Held()
    async with serving(upstream=held, defaults=defaults) as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        reading = asyncio.create_task(anext(stream))
        await until(lambda: len(held.begun) > 0)
        fed = await settled(lambda: server.engine.admission.calls, client)
        assert await settled(lambda: taken, client) < 100_000  # more lies in the buffers of both sides
        if bound == "calls":
            assert 1000 <= fed < 1000 + 500
        else:
            assert 10 <= fed < 500  # a message of them at once
        held.release()
        assert (await reading).ok
        await until(lambda: server.engine.admission.calls != fed)  # and on it goes
        stream.cancel()
        assert await server.engine.wait_idle(30)
        assert server.engine.admission.calls == 0


@pytest.mark.looptime
async def test_a_fed_call_waits_from_when_it_came() -> None:
    """Its queue time isn't that of the stream."""

    async def messages() -> AsyncIterator[pb.ProcessStreamRequest]:
        yield pb.ProcessStreamRequest(open=pb.ProcessStreamOpen(), calls=[pb.Call()])
        await asyncio.sleep(100)
        yield pb.ProcessStreamRequest(calls=[pb.Call()])

    async with direct(Limit(1, SECOND)) as service:
        results = await service.stream(messages())
    assert [result.queue_time.ToNanoseconds() for result in results] == [0, 0]


@pytest.mark.looptime
async def test_a_stream_is_told_soon_when_all_that_it_expects_will_be_done() -> None:
    """A second after it began, of the calls too that haven't come, with the pace and the limit that it waits for."""
    context = Context()
    early: list[pb.Progress] = []

    async def messages() -> AsyncIterator[pb.ProcessStreamRequest]:
        await asyncio.sleep(0.4)
        yield pb.ProcessStreamRequest(open=pb.ProcessStreamOpen(expected_calls=60))
        yield pb.ProcessStreamRequest(calls=[pb.Call()] * 20)
        await asyncio.sleep(1.1)
        early.extend(message.progress for message in context.written if message.HasField("progress"))
        yield pb.ProcessStreamRequest(calls=[pb.Call()] * 40)

    async with direct(Limit(10, 60 * SECOND)) as service:
        results = await service.stream(messages(), context)
    assert len(results) == 60
    first, told = early[0], early[-1]
    assert (first.done, first.total, first.to_come, first.HasField("eta")) == (10, 20, 40, False)
    assert (told.done, told.total, told.to_come) == (10, 20, 40)
    assert told.eta.ToSeconds() == pytest.approx(300, rel=0.02)
    assert told.rate == pytest.approx(1 / 6, rel=0.01)
    assert (told.waits_for.cause, told.waits_for.reason) == (pb.HELD_CAUSE_SPENT, "10/60s of key-1")
    assert context.written[-1].progress.to_come == 0


async def test_a_wrong_call_gets_its_error_and_the_rest_goes_on() -> None:
    """With its index and the field; in order too."""
    calls = numbered(20)
    calls[3] = Call("../up", id="three")
    calls[7] = Call("/x", id="c6")
    calls[8] = Call("/x", headers={"Host": "elsewhere"})
    async with serving() as server, Client(server.address) as client:
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
        assert await server.engine.wait_idle(30)
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
        async with connected(server) as channel:
            opening = pb.ProcessStreamRequest(open=pb.ProcessStreamOpen())
            missing, again = "open: is missing; send it in the first", "open: came again; send it in the first"
            unopened = pb.ProcessStreamRequest(calls=[pb.Call()])
            for messages, text in (([], missing), ([unopened], missing), ([opening, opening], again)):
                with pytest.raises(grpc.aio.AioRpcError, match=text) as failed:
                    async for _ in stub_of(channel).ProcessStream(iter(messages)):
                        pass
                assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await server.engine.wait_idle(30)


@pytest.mark.parametrize("good", [0, 1])
async def test_bytes_that_are_no_message_end_the_stream(good: int) -> None:
    """INVALID_ARGUMENT, whichever message it is; the server goes on."""
    async with serving() as server, connected(server) as channel:
        first = pb.ProcessStreamRequest(open=pb.ProcessStreamOpen(), calls=[pb.Call()]).SerializeToString()
        raw: Any = channel.stream_stream("/apiflux.v1.FluxService/ProcessStream")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in raw(iter([first] * good + [b"\xff\xff\xff"])):
                pass
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "request: can't be decoded; send a message of this method's type" in str(failed.value.details())
        assert await server.engine.wait_idle(30)
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
        assert await server.engine.wait_idle(30)


async def test_leaving_a_stream_stops_its_work() -> None:
    """Also while the server waits for room and the client still has calls to give."""
    limits, defaults = (Limit(500, 3600 * SECOND),), Defaults(window=1000)
    async with serving(limits=limits, defaults=defaults) as server, Client(server.address) as client:
        async for _ in client.process_stream(Call(f"/{number}") for number in range(200_000)):
            break
        assert await server.engine.wait_idle(30)
        assert server.engine.admission.calls == 0


async def test_a_stream_that_is_stopped_tells_what_never_ran() -> None:
    """Calls in flight finish, the others end as STOPPED and certainly did not run; the summary and OK follow."""
    held = Held()
    async with serving(limits=(Limit(20, 3600 * SECOND),), upstream=held) as server, connected(server) as channel:
        stream = stub_of(channel).ProcessStream()
        calls = [pb.Call(id=f"c{number}") for number in range(100)]
        await stream.write(pb.ProcessStreamRequest(open=pb.ProcessStreamOpen(), calls=calls))
        await until(lambda: len(held.begun) == 20)
        await stream.write(pb.ProcessStreamRequest(calls=[pb.Call(id="last")], stop=True))
        results, summary = [], None
        async for message in stream:
            results += message.results
            summary = message.summary if message.HasField("summary") else summary
            if len(results) == 81:
                held.release()
        assert await stream.code() is grpc.StatusCode.OK
    assert sorted(result.index for result in results) == list(range(101))
    stopped = [result for result in results if result.failure == pb.REASON_STOPPED]
    assert {error_info(result).metadata["may_have_run"] for result in stopped} == {"false"}
    assert len(held.begun) == sum(result.response.status_code == 200 for result in results) == 20
    assert summary is not None
    assert (summary.succeeded, summary.cancelled, summary.total) == (20, 81, 101)


async def test_a_producer_that_fails_ends_the_stream() -> None:
    """Its exception comes out, and the server's work stops."""

    async def calls() -> AsyncIterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    async with serving() as server, Client(server.address) as client:
        with pytest.raises(ZeroDivisionError):
            async for _ in client.process_stream(calls()):
                pass
        assert await server.engine.wait_idle(30)
