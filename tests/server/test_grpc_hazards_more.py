"""More of what bites in grpc.aio and HTTP/2: writers, cancellations, guards, sizes, floods, the drain."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import struct
import time
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from apiflux_grpc.client import Call, Client, InternalError, InvalidRequest, Overloaded, SyncClient, Unavailable
from apiflux_grpc.core.model import SECOND
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server import wire
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.interceptors import CanonicalLine
from apiflux_grpc.server.lifecycle import MAX_STREAMS
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from tests.server.serving import OPTIONS, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from apiflux_grpc.engine.ports import Attempt

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def process_of(channel: grpc.aio.Channel) -> Any:
    return apiflux_pb2_grpc.FluxServiceStub(channel).Process


def repeated(count: int) -> pb.ProcessRequest:
    return pb.ProcessRequest(repeat=pb.RepeatedCall(count=count))


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)).status)


async def until(condition: Callable[[], bool]) -> None:
    """Wait, with a bound, until it holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


# -- one writer ----------------------------------------------------------------------------------


class OneAtATime:
    """A context that notices who writes, and whether somebody else does at the same time."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.writing = False
        self.overlaps = 0
        self.writers: Counter[object] = Counter()

    async def write(self, message: Any) -> None:
        self.overlaps += self.writing
        self.writing = True
        self.writers[asyncio.current_task()] += 1
        await asyncio.sleep(0.002)  # whoever doesn't wait for this one is seen
        await self._context.write(message)
        self.writing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def test_results_progress_and_summary_have_one_writer() -> None:
    """Two writes at once would hang the client; all that a stream carries comes from one task, one by one."""
    contexts: list[OneAtATime] = []

    class Watched(FluxService):
        async def Process(  # type: ignore[override]  # noqa: N802  # as in FluxService
            self, request: pb.ProcessRequest, context: Any
        ) -> None:
            contexts.append(OneAtATime(context))
            await super().Process(request, contexts[-1])

    async with (
        serving(20_000_000, service=Watched, defaults=Defaults(progress_every=0.0)) as server,
        Client(server.address) as client,
    ):

        async def run() -> int:
            return len([result async for result in client.repeat(800, timeout=30)])

        assert await asyncio.gather(*(run() for _ in range(8))) == [800] * 8
    assert len(contexts) == 8
    assert [context.overlaps for context in contexts] == [0] * 8
    assert [len(context.writers) for context in contexts] == [1] * 8
    assert min(context.writers.total() for context in contexts) >= 8


# -- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["_admit", "look"])
async def test_a_cancellation_of_our_own_hangs_nobody(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """CancelledError in a handler whose RPC nobody cancelled is a fault of ours: INTERNAL, not a client that waits."""

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(FluxService if where == "_admit" else Engine, where, cancelled)
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InternalError):
            await (client.info(timeout=2) if where == "look" else anext(client.repeat(1, timeout=2)))
        monkeypatch.undo()
        assert (await anext(client.repeat(1))).ok


async def test_a_client_s_cancel_goes_on_as_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that swallowed it would leak a stream's native memory; and it is no error of ours in the log."""
    caplog.set_level(logging.INFO, "apiflux")
    ended: list[type[BaseException] | None] = []

    class Watched(FluxService):
        async def Process(  # type: ignore[override]  # noqa: N802  # as in FluxService
            self, request: pb.ProcessRequest, context: Any
        ) -> None:
            try:
                await super().Process(request, context)
                ended.append(None)
            except BaseException as error:
                ended.append(type(error))
                raise

    async with serving(30 * SECOND, service=Watched) as server:
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            calls = [process_of(channel)(repeated(5)) for _ in range(5)]
            await until(lambda: server.engine.admission.batches == 5)
            for call in calls:
                call.cancel()
            await until(lambda: len(ended) == 5)
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0
    assert ended == [asyncio.CancelledError] * 5
    lines = [record for record in caplog.records if record.name == "apiflux.rpc"]
    assert [getattr(record, "code", None) for record in lines] == ["CANCELLED"] * 5
    assert {record.levelno for record in lines} == {logging.INFO}


async def test_a_cancel_during_a_blocked_write_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """grpc raises an error of its own then; it is logged as a cancelled RPC and not as an unhandled exception."""
    caplog.set_level(logging.INFO, "apiflux")
    async with serving() as server, grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
        calls = [process_of(channel)(repeated(50_000)) for _ in range(3)]
        for call in calls:
            await call.read()
        await asyncio.sleep(0.3)  # the windows of the connection fill
        for call in calls:
            call.cancel()
        assert await server.engine.wait_idle(10)
    lines = [record for record in caplog.records if record.name == "apiflux.rpc"]
    assert [getattr(record, "code", None) for record in lines] == ["CANCELLED"] * 3
    assert max(record.levelno for record in caplog.records) < logging.WARNING


def test_leaving_the_loop_of_the_synchronous_client_stops_the_work() -> None:
    """A `break` tells grpc nothing; the dropped stream cancels its RPC."""

    async def scenario() -> None:
        async with serving(20_000_000) as server:

            def use() -> int:
                with SyncClient(server.address) as client:
                    for _ in client.process([Call()] * 40_000):
                        break
                    for _ in range(500):
                        if not client.info().open_batches:
                            break
                        time.sleep(0.02)
                    return client.info().open_batches

            assert await asyncio.to_thread(use) == 0
            assert server.engine.admission.calls == 0

    asyncio.run(scenario())


# -- the guard -----------------------------------------------------------------------------------


class Context:
    """What the guard asks of a context."""

    def __init__(self, cancelled: bool = False) -> None:
        self._cancelled = cancelled
        self.aborted: list[Any] = []

    def cancelled(self) -> bool:
        return self._cancelled

    def code(self) -> None:
        return None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort_with_status(self, status: Any) -> None:
        self.aborted.append(status)
        raise grpc.aio.AbortError("aborted")


async def guarded(handler: Any) -> Any:
    """The handler as the server calls it."""

    async def continuation(_: Any) -> Any:
        return handler

    details: Any = SimpleNamespace(method="/a.B/C")
    return await CanonicalLine().intercept_service(continuation, details)


def handlers(error: BaseException | None) -> dict[str, Any]:
    """One handler of each form; they answer, or raise `error`."""

    async def unary(request: Any, context: Any) -> str:
        if error is not None:
            raise error
        return f"{request} answered"

    async def written(request: Any, context: Any) -> None:
        await unary(request, context)

    async def generated(request: Any, context: Any) -> AsyncIterator[str]:
        yield await unary(request, context)

    return {
        "unary_unary": grpc.unary_unary_rpc_method_handler(unary),
        "stream_unary": grpc.stream_unary_rpc_method_handler(unary),
        "unary_stream": grpc.unary_stream_rpc_method_handler(written),
        "stream_stream": grpc.stream_stream_rpc_method_handler(generated),
        "generated": grpc.unary_stream_rpc_method_handler(generated),
    }


FORMS = pytest.mark.parametrize("form", ["unary_unary", "stream_unary", "unary_stream", "stream_stream", "generated"])


async def called(form: str, context: Context, error: BaseException | None = None) -> Any:
    """Call the wrapped handler of this form, and give what it returned or yielded."""
    behavior = getattr(await guarded(handlers(error)[form]), form.replace("generated", "unary_stream"))
    if inspect.isasyncgenfunction(behavior):
        return [message async for message in behavior("request", context)]
    assert inspect.iscoroutinefunction(behavior)
    return await behavior("request", context)


@FORMS
async def test_wrapped_handlers_stay_asynchronous(form: str) -> None:
    """grpc takes whatever is no coroutine function and no asynchronous generator for a blocking handler."""
    answer = {"unary_stream": None, "stream_stream": ["request answered"], "generated": ["request answered"]}
    assert await called(form, Context()) == answer.get(form, "request answered")
    assert await guarded(None) is None  # a method that nobody serves


@FORMS
async def test_the_guard_lets_no_text_out(form: str) -> None:
    """An unhandled exception is INTERNAL with an id and nothing else, in every form of handler."""
    context = Context()
    with pytest.raises(grpc.aio.AbortError):
        await called(form, context, ValueError("canary text"))
    (status,) = context.aborted
    assert status.code is grpc.StatusCode.INTERNAL
    assert "canary" not in repr(status)


@FORMS
@pytest.mark.parametrize(
    ("error", "cancelled", "comes_out"),
    [
        (grpc.aio.AbortError("ours"), False, grpc.aio.AbortError),
        (asyncio.CancelledError(), True, asyncio.CancelledError),
        (grpc.aio.InternalError("a blocked write"), False, asyncio.CancelledError),
        (RuntimeError("after the end"), True, asyncio.CancelledError),
    ],
    ids=["abort", "cancel", "blocked-write", "after-cancel"],
)
async def test_the_guard_lets_aborts_and_cancellations_pass(
    caplog: pytest.LogCaptureFixture, form: str, error: BaseException, cancelled: bool, comes_out: type[BaseException]
) -> None:
    """An abort keeps its status, and whatever a cancelled RPC raises ends as a cancellation; neither is an error."""
    context = Context(cancelled)
    task = asyncio.create_task(called(form, context, error))
    if isinstance(error, asyncio.CancelledError):
        task.cancel()  # as grpc does where the client cancelled
    with pytest.raises(comes_out):
        await task
    assert context.aborted == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_fault_in_the_middle_of_a_stream_ends_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before it is good; then INTERNAL with an id, and the engine has dropped the rest."""
    encode = wire.encode

    def breaking(results: Any, *rest: Any) -> Any:
        if any(result.index == 400 for result in results):
            raise ZeroDivisionError("canary text")
        return encode(results, *rest)

    monkeypatch.setattr(wire, "encode", breaking)
    async with serving(1_000_000) as server, Client(server.address) as client:
        stream = client.send(pb.ProcessRequest(repeat=pb.RepeatedCall(count=40_000), ordered=True))
        indices: list[int] = []

        async def read() -> None:
            async for result in stream:
                indices.append(result.index)  # noqa: PERF401  # a comprehension would lose what came before

        with pytest.raises(InternalError) as caught:
            await read()
        assert indices == list(range(len(indices)))
        assert 0 < len(indices) <= 400
        assert caught.value.metadata["error_id"] in str(caught.value)
        assert "canary" not in str(caught.value)
        assert await server.engine.wait_idle(10)
        assert server.engine.admission.calls == 0


async def test_refusals_are_no_errors_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An abort is how a request is refused, not an exception that nobody handled."""
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InvalidRequest):
            await anext(client.process([]))
        with pytest.raises(InvalidRequest):
            await anext(client.repeat(-1))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_many_faults_of_many_words_fit_the_trailers() -> None:
    """Clients take 8 KiB of trailers: a batch with a thousand long faults is still refused in words."""
    euro = "€" * 5_000
    requests = (
        pb.ProcessRequest(calls=[pb.Call(headers={f"{euro}{number}": "\n"}) for number in range(1_000)]),
        pb.ProcessRequest(calls=[pb.Call(headers={f"{number}{euro}": "\0"}, method=euro) for number in range(1_000)]),
        pb.ProcessRequest(calls=[pb.Call(path=euro, id=euro)] * 1_000),
        pb.ProcessRequest(calls=[pb.Call()], retry=pb.RetryPolicy(reasons=[euro] * 1_000), correlation_id=euro),
    )
    # At a limit of its own a client drops every larger one; between 8 KiB and a higher one only some, by chance.
    options = [("grpc.max_metadata_size", 8192), ("grpc.absolute_max_metadata_size", 8192)]
    async with serving() as server, Client(server.address, options=options) as client:
        for request in requests:
            with pytest.raises(InvalidRequest) as caught:
                await anext(client.send(request))
            assert caught.value.reason == "INVALID_REQUEST"
            assert len(caught.value.violations) == 20
            assert int(caught.value.metadata["violations_not_shown"]) >= 980


# -- health and refusals -------------------------------------------------------------------------


async def test_health_answers_while_every_batch_is_refused() -> None:
    """The bound is Process's own, so that a full server does not look like a dead one."""
    async with (
        serving(30 * SECOND, bounds=Bounds(batches=2)) as server,
        grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel,
        Client(server.address) as client,
    ):
        held = [process_of(channel)(repeated(1)) for _ in range(2)]
        await until(lambda: server.engine.admission.batches == 2)

        async def refused() -> None:
            with pytest.raises(Overloaded):
                await anext(client.repeat(1))

        checks = [health_of(channel, name) for name in ("", "apiflux.v1.FluxService") for _ in range(20)]
        refusals = asyncio.gather(*(refused() for _ in range(50)))
        assert await asyncio.gather(*checks) == [health_pb2.HealthCheckResponse.SERVING] * 40
        await refusals
        assert (await client.info()).open_batches == 2
        for call in held:
            call.cancel()


async def test_a_drain_says_not_serving_refuses_and_lets_calls_finish() -> None:
    """Health changes first; then new batches are UNAVAILABLE with a delay, while a call in flight gets its answer."""
    async with (
        serving(SECOND) as server,
        grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel,
        Client(server.address) as client,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="apiflux.v1.FluxService"))
        states = health_pb2.HealthCheckResponse
        assert (await watch.read()).status == states.SERVING
        stream = client.repeat(1)
        waiting = asyncio.create_task(anext(stream))
        await until(lambda: server.engine.admission.batches == 1)
        stopping = asyncio.create_task(server.stop())
        assert (await watch.read()).status == states.NOT_SERVING
        await until(lambda: server.engine.draining)
        with pytest.raises(Unavailable) as caught:
            await anext(client.repeat(1))
        assert (caught.value.reason, caught.value.retry_delay) == ("DRAINING", 5.0)
        assert (await client.info()).open_batches == 1
        assert (await waiting).ok
        watch.cancel()
        await stopping


async def test_a_port_cannot_be_shared_by_a_program_that_asks_for_it() -> None:
    """SO_REUSEPORT is off on our side, so whoever sets it gets an error and not half of our clients."""
    async with serving() as server:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", server.port))


async def test_reflection_can_be_switched_off() -> None:
    """Then nobody can ask what is served; the service itself is there."""
    async with serving(with_reflection=False) as server, Client(server.address) as client:
        async with grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # it takes both kinds
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest()])):
                    pass
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert (await anext(client.repeat(1))).ok


# -- sizes ---------------------------------------------------------------------------------------


class Large:
    """An upstream whose every answer has a body of 1 MiB."""

    def begin(self, attempt: Attempt) -> None:
        asyncio.get_running_loop().call_soon(self._end, attempt)

    def _end(self, attempt: Attempt) -> None:
        now = attempt.permit.taken_at
        attempt.sent(now)
        attempt.done(Answer(200, {}, bytes(1 << 20), now))

    def cancel(self, attempt: Attempt) -> None:
        pass

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        pass


async def test_large_results_fit_a_client_with_grpc_s_default_limit() -> None:
    """A message over 4 MiB would kill the stream, so results are parted by bytes too."""
    async with (
        serving(make_upstream=Large) as server,
        grpc.aio.insecure_channel(server.address, options=OPTIONS) as channel,
    ):
        messages = [message async for message in process_of(channel)(repeated(24), timeout=30)]
    assert sum(len(message.results) for message in messages) == 24
    assert all(len(result.response.body) == 1 << 20 for message in messages for result in message.results)
    assert messages[-1].summary.succeeded == 24


async def test_batches_at_the_documented_maximum_and_over_it() -> None:
    """Up to 32 MiB and 50,000 calls are taken; more is refused in our words, far more in the transport's."""
    most = Defaults().max_batch_bytes
    assert (most, Defaults().max_batch_calls) == (32 << 20, 50_000)
    room = most - pb.ProcessRequest(calls=[pb.Call(body=bytes(most))]).ByteSize() + most
    async with serving() as server:
        async with grpc.aio.insecure_channel(server.address, options=[*OPTIONS, *UNLIMITED]) as channel:
            for request in (
                pb.ProcessRequest(calls=[pb.Call(method="PUT", body=bytes(room - 8))]),
                pb.ProcessRequest(calls=[pb.Call(path="/p")] * 50_000),
            ):
                *_, last = [message async for message in process_of(channel)(request, timeout=30)]
                assert last.summary.succeeded == last.summary.total == len(request.calls)
            for request, code, words in (
                (pb.ProcessRequest(calls=[pb.Call(body=bytes(most))]), "INVALID_ARGUMENT", str(most)),
                (pb.ProcessRequest(calls=[pb.Call()] * 50_001), "INVALID_ARGUMENT", "50000"),
                (pb.ProcessRequest(calls=[pb.Call(body=bytes(2 * most))]), "RESOURCE_EXHAUSTED", "larger than max"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await process_of(channel)(request, timeout=30).read()
                assert caught.value.code().name == code
                assert words in (caught.value.details() or "")
            assert await health_of(channel) == health_pb2.HealthCheckResponse.SERVING
        assert server.engine.admission.size == 0


# -- many streams, resets and pings --------------------------------------------------------------


async def test_a_full_connection_takes_nothing_from_others() -> None:
    """One connection has so many streams at once; another is served meanwhile."""
    async with serving(30 * SECOND) as server:
        options = [*OPTIONS, *OWN_CONNECTION]
        async with grpc.aio.insecure_channel(server.address, options=options) as channel:
            calls = [process_of(channel)(repeated(1)) for _ in range(MAX_STREAMS + 50)]
            await until(lambda: server.engine.admission.batches >= MAX_STREAMS)
            async with grpc.aio.insecure_channel(server.address, options=options) as other:
                for _ in range(20):
                    assert await health_of(other) == health_pb2.HealthCheckResponse.SERVING
            assert server.engine.admission.batches == MAX_STREAMS
            for call in calls:
                call.cancel()
            assert await server.engine.wait_idle(20)


async def test_streams_beyond_those_of_a_connection_wait_and_are_served() -> None:
    """Nothing on a connection is refused because others of it have just ended: each stream gets its turn."""
    async with (
        serving(300_000_000) as server,
        grpc.aio.insecure_channel(server.address, options=[*OPTIONS, *OWN_CONNECTION]) as channel,
    ):

        async def run() -> str:
            call = process_of(channel)(repeated(1), timeout=30)
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
            return "served"

        assert Counter(await asyncio.gather(*(run() for _ in range(2 * MAX_STREAMS)))) == {"served": 2 * MAX_STREAMS}


# HTTP/2 by hand, for what no client of grpc's does: RFC 9113, section 4.1.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4
CANCEL, ENHANCE_YOUR_CALM = 8, 11


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def request_frames(stream: int, request: pb.ProcessRequest) -> bytes:
    """A whole Process request; the headers are literals, which every decoder of HPACK takes."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/apiflux.v1.FluxService/Process",
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())
    message = request.SerializeToString()
    data = struct.pack(">BI", 0, len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, data)


async def test_rapid_resets_starve_nobody() -> None:
    """A connection that opens streams and resets them at once leaves nothing behind; another client is served."""
    async with serving(5_000_000) as server, Client(server.address) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        reset = struct.pack(">I", CANCEL)

        async def flood() -> int:
            for number in range(3_000):
                stream = 2 * number + 1
                writer.write(request_frames(stream, repeated(50)) + frame(RST_STREAM, 0, stream, reset))
                if number % 50 == 49:
                    try:
                        await writer.drain()
                    except ConnectionError:  # the server may end such a connection
                        return number
                    await asyncio.sleep(0)
            return 3_000

        async def drop() -> None:
            while await reader.read(65_536):
                pass

        async def run() -> int:
            return len([result async for result in client.repeat(20, timeout=30)])

        dropping = asyncio.create_task(drop())
        flooding = asyncio.create_task(flood())
        assert [await run() for _ in range(30)] == [20] * 30
        assert await flooding >= 50
        writer.close()
        await asyncio.gather(dropping, return_exceptions=True)
        assert await server.engine.wait_idle(20)
        assert (server.engine.admission.batches, server.engine.admission.calls) == (0, 0)
        assert await run() == 20


async def test_a_flood_of_pings_ends_that_connection_alone() -> None:
    """A few are answered; a flood gets GOAWAY. Other clients don't notice."""
    async with serving() as server, Client(server.address) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"12345678"))
        seen: list[tuple[int, bytes]] = []
        while not any(kind == PING for kind, _ in seen):
            seen.append(await next_frame(reader))
        assert seen[-1] == (PING, b"12345678")
        writer.write(frame(PING, 0, 0, b"flooding") * 100)
        while seen[-1][0] != GOAWAY:
            seen.append(await next_frame(reader))
        _, code = struct.unpack(">II", seen[-1][1][:8])
        assert code == ENHANCE_YOUR_CALM
        assert seen[-1][1][8:] == b"too_many_pings"
        writer.close()
        assert (await anext(client.repeat(1))).ok


async def next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(20):
        head = await reader.readexactly(9)
        return head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))
