"""Clients, the server and the machine that fail: nothing is left behind, nothing is lost in silence, others go on.

All in real processes. What grpc.aio itself does with a cancellation is in tests/server; a client that is killed or
stopped in the middle of small results in test_client_death.py.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiflux_grpc.client import (
    ApifluxError,
    Call,
    Client,
    DeadlineExceeded,
    Overloaded,
    Result,
    Retry,
    SyncClient,
    Unavailable,
)
from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.faultlib import (
    OWN_CONNECTION,
    Pair,
    again,
    ask,
    attempts_in,
    collect,
    gets,
    health_of,
    idle,
    name_of,
    paired,
    posts,
    read,
    run,
    until,
)

SECOND = 1_000_000_000
LIMIT = Limit(100, SECOND // 2)
WIDE = Limit(100_000, SECOND)
IN_FLIGHT = 10  # with each key
RETRY = 'retry = { max_attempts = 3, initial_backoff = "5ms", max_backoff = "20ms" }'


# -- clients that go -----------------------------------------------------------------------------

# Says when it has its first result, and reads on.
READER = """
import asyncio, sys
from apiflux_grpc.client import Call, Client

async def main(target):
    async with Client(target) as client:
        async for result in client.process([Call(f"/gone/{number}") for number in range(500)]):
            print(result.index, flush=True)

asyncio.run(main(sys.argv[1]))
"""
GONE = gets("gone", 500)


@contextmanager
def program(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program with these arguments; killed at the end, if it is still there."""
    command = [sys.executable, "-c", text, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)


async def killed(client: Client, target: str) -> None:
    with program(READER, target) as process:
        assert await line_of(process)


async def interrupted(client: Client, target: str) -> None:
    with program(READER, target) as process:
        assert await line_of(process)
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.wait)


async def broken_out(client: Client, target: str) -> None:
    async for _ in client.process(GONE):
        break


async def cancelled(client: Client, target: str) -> None:
    stream = client.process(GONE)
    await anext(stream)
    stream.cancel()
    with pytest.raises((ApifluxError, asyncio.CancelledError)):
        await collect(stream)


async def its_task_cancelled(client: Client, target: str) -> None:
    begun = asyncio.Event()

    async def reading() -> None:
        async for _ in client.process(GONE):
            begun.set()

    task = asyncio.create_task(reading())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def out_of_time(client: Client, target: str) -> None:
    hanging = [Call(f"/gone/{number}", headers={"X-Judge-Fault": "hang"}) for number in range(100)]
    with pytest.raises(DeadlineExceeded):
        await collect(client.process(hanging, timeout=1))


async def disconnected(client: Client, target: str) -> None:
    async with Client(target, options=OWN_CONNECTION) as other:
        stream = other.process(GONE)
        await anext(stream)
    del stream


WAYS = [killed, interrupted, broken_out, cancelled, its_task_cancelled, out_of_time, disconnected]


@pytest.fixture(scope="module")
def slow() -> Iterator[Pair]:
    """A judge that takes its time, and few calls at once."""
    with paired({"default": f"max_in_flight = {IN_FLIGHT}"}, [LIMIT], latency=(40, 80)) as pair:
        yield pair


@pytest.mark.parametrize("leave", WAYS)
async def test_a_client_that_goes_leaves_nothing_behind(
    slow: Pair, leave: Callable[[Client, str], Awaitable[None]]
) -> None:
    """However it goes, its calls are stopped and its unsent ones spend nothing; another batch doesn't notice."""
    slow.judge.reset()
    async with Client(slow.target) as client:
        before = attempts_in(await client.info())
        other = asyncio.create_task(run(client, posts("other", 60)))
        await leave(client, slow.target)
        info = await idle(client)
        results = await other
        info = await idle(client)
        made = attempts_in(info) - before
    assert all(result.ok and result.attempts == 1 for result in results.values())
    assert 60 < made < 60 + 100
    report = ask(slow)
    assert report.arrivals == made
    assert report.seen_twice == 0


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_batches_that_are_broken_out_of_cost_no_memory() -> None:
    """From the 100th to the 1,000th the server grows by less than 5 MB, and nothing of them is open."""
    with paired({"default": "max_in_flight = 5"}, [WIDE], latency=(1, 5)) as pair:
        server = psutil.Process(pair.served.pid)
        async with Client(pair.target) as client:

            async def leave(number: int) -> None:
                stream = client.process(gets(f"cycle/{number}", 12))
                await anext(stream)
                if number % 2:
                    stream.cancel()

            for number in range(100):
                await leave(number)
            await idle(client)
            before, files = server.memory_info().rss, server.num_fds()
            for number in range(100, 1_000):
                await leave(number)
            info = await idle(client)
            grown = server.memory_info().rss - before
            assert server.num_fds() <= files + 2 * IN_FLIGHT
        report = ask(pair)
        # A call may be stopped while its connection is still being made.
        assert 1_000 <= report.arrivals <= attempts_in(info) < 12_000
    assert grown < 5_000_000


async def test_large_results_that_nobody_reads_wait_upstream() -> None:
    """A batch whose reader stalls asks for no more, so that memory is bounded; others go on, and nothing is lost."""
    size, total = 256 << 10, 300
    headers = {"X-Judge-Fault": f"huge;size={size >> 10}KiB"}
    calls = [Call(f"/large/{number}", headers=headers) for number in range(total)]
    with paired({"default": f"max_in_flight = {IN_FLIGHT}"}, [WIDE]) as pair:
        server = psutil.Process(pair.served.pid)
        async with Client(pair.target) as client, Client(pair.target, options=OWN_CONNECTION) as other:
            others = [await run(other, gets("before", 60))]
            before = server.memory_info().rss
            stream = client.process(calls)
            results = [await anext(stream)]
            made: list[int] = []

            async def held() -> bool:
                made.append(attempts_in(await other.info()))
                await asyncio.sleep(0.2)
                return made[-2:] == [made[-1]] * 2 and len(made) > 1

            await until(held)
            others.append(await run(other, gets("meanwhile", 60)))
            grown = server.memory_info().rss - before
            assert made[-1] - 60 < total // 2
            assert grown < size * total // 2
            results += await collect(stream)
            assert sorted(result.index for result in results) == list(range(total))
            assert all(result.response and len(result.response.body) == size for result in results)
            await idle(client)
        named = {name_of(calls[result.index]): result for result in results}
        ask(pair, named, *others)


# -- too much ------------------------------------------------------------------------------------


async def offered(
    clients: list[Client], name: str, batches: int, calls: int
) -> tuple[dict[str, Result], list[Overloaded]]:
    """Many batches at once: the results of those that were accepted, and the errors of the others."""

    async def one(number: int) -> dict[str, Result] | Overloaded:
        try:
            return await run(clients[number % len(clients)], gets(f"{name}/{number}", calls))
        except Overloaded as error:
            return error

    done: dict[str, Result] = {}
    refused: list[Overloaded] = []
    for outcome in await asyncio.gather(*map(one, range(batches))):
        if isinstance(outcome, Overloaded):
            refused.append(outcome)
        else:
            done |= outcome
    return done, refused


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ("max_batches = 120", "TOO_MANY_BATCHES"),
        pytest.param("max_queued_calls = 2400", "TOO_MANY_CALLS", marks=pytest.mark.slow),
    ],
)
async def test_too_much_is_refused_at_the_door(bound: str, reason: str) -> None:
    """100 batches at once all complete. Of ten times that some are refused, with a delay; the others complete.

    Health answers meanwhile, and of what was refused nothing arrives.
    """
    calls = 20
    server = f"{bound}\nmax_batch_calls = 1000"
    with paired({"default": ""}, [Limit(1_500, SECOND)], server=server) as pair:
        async with health_of(pair.target) as serving:
            clients = [Client(pair.target, options=OWN_CONNECTION) for _ in range(4)]
            for client in clients:
                await client.__aenter__()
            asked = count()

            async def watch() -> None:
                while True:
                    assert await serving()
                    next(asked)
                    await asyncio.sleep(0.02)

            watching = asyncio.create_task(watch())
            few, refused = await offered(clients, "few", 100, calls)
            assert not refused
            many, refused = await offered(clients, "many", 1_000, calls)
            await idle(clients[0])
            last, none = await offered(clients, "last", 10, calls)
            assert not none
            assert not watching.done()
            watching.cancel()
            await asyncio.wait([watching])
            for client in clients:
                await client.__aexit__(None, None, None)
        for done in (few, many, last):
            assert all(result.ok and result.attempts == 1 for result in done.values())
        assert (len(few), len(last)) == (100 * calls, 10 * calls)
        assert len(many) >= 120 * calls
        assert len(many) + calls * len(refused) == 1_000 * calls
        assert len(refused) > 100
        for error in refused:
            assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.reason == reason
            assert error.retry_delay is not None
            assert 1 <= error.retry_delay < 60
        assert next(asked) > 10
        report = ask(pair, few, many, last)
        assert report.arrivals == len(few) + len(many) + len(last)


# -- a server that ends --------------------------------------------------------------------------


async def test_sigterm_delivers_every_result() -> None:
    """What is in flight finishes within the grace, and what hangs is cut then; every call gets its result; exit 0.

    A call that waits to be made again is not made again.
    """
    server = 'grace = "1s"'
    with paired(
        {"default": f"{RETRY}\nmax_in_flight = {IN_FLIGHT}"}, [LIMIT], server=server, latency=(150, 200)
    ) as pair:
        special = [
            Call("/hangs", headers={"X-Judge-Fault": "hang"}),
            Call("/waits", headers={"X-Judge-Fault": "503;retry-after=60,ok"}),
        ]
        batches = [special, *(gets(f"batch-{number}", 40) for number in range(5))]
        async with Client(pair.target) as client:
            results: list[list[Result]] = [[] for _ in batches]
            reading = [
                asyncio.create_task(read(client.process(calls), into))
                for calls, into in zip(batches, results, strict=True)
            ]

            async def under_way() -> bool:
                arrived = pair.judge.calls()
                return {"GET /hangs", "GET /waits"} <= arrived.keys() and sum(map(len, results)) >= 40

            await until(under_way)
            ended = asyncio.create_task(asyncio.to_thread(pair.served.terminate))
            errors = await asyncio.gather(*reading)
            assert await ended == 0
            with pytest.raises(Unavailable):
                await client.info(timeout=5)
        for error in errors:
            assert isinstance(error, Unavailable)
            assert error.reason == "DRAINING"
            assert error.retry_delay is not None
        named: dict[str, Result] = {}
        for calls, into in zip(batches, results, strict=True):
            assert sorted(result.index for result in into) == list(range(len(calls)))
            named |= {name_of(calls[result.index]): result for result in into}
        hung, waited = named.pop("GET /hangs"), named.pop("GET /waits")
        assert hung.error is not None
        assert (hung.error.reason, hung.error.may_have_run, hung.attempts) == ("UNKNOWN", True, 1)
        assert waited.error is not None
        assert (waited.error.reason, waited.error.may_have_run, waited.attempts) == ("DRAINING", True, 1)
        drained = [result.error for result in named.values() if result.error is not None]
        assert len(drained) < 200 - 40
        assert {(error.reason, error.may_have_run) for error in drained} == {("DRAINING", False)}
        assert all(result.ok or not result.attempts for result in named.values())
        ask(pair, named, {"GET /hangs": hung, "GET /waits": waited})


@pytest.mark.slow
async def test_sigkill_is_told_to_every_client() -> None:
    """Streams end as UNAVAILABLE and what came before is good; nothing arrived twice.

    After a window's time a new server goes on with the same keys, and no window was exceeded.
    """
    pools = {"default": f"max_in_flight = {IN_FLIGHT}"}
    with paired(pools, [LIMIT], latency=(10, 30)) as pair:
        batches = [posts(f"batch-{number}", 100) for number in range(5)]
        async with Client(pair.target) as client:
            results: list[list[Result]] = [[] for _ in batches]
            reading = [
                asyncio.create_task(read(client.process(calls), into))
                for calls, into in zip(batches, results, strict=True)
            ]

            async def under_way() -> bool:
                return all(results)

            await until(under_way)
            await asyncio.to_thread(pair.served.kill)
            errors = await asyncio.wait_for(asyncio.gather(*reading), 20)
        assert [type(error) for error in errors] == [Unavailable] * len(batches)
        good = {
            name_of(calls[result.index]): result
            for calls, into in zip(batches, results, strict=True)
            for result in into
        }
        assert all(result.ok and result.attempts == 1 for result in good.values())
        report = ask(pair)
        arrived = pair.judge.calls()
        assert good.keys() <= arrived.keys()
        assert set(arrived.values()) == {1}
        assert len(good) < report.arrivals < 500
        await asyncio.sleep(LIMIT.per_ns / SECOND)
        with again(pair, pools, [LIMIT]) as restarted:
            async with Client(restarted.target) as client:
                rest = [call for calls in batches for call in calls if name_of(call) not in arrived]
                done = await run(client, rest)
            assert all(result.ok for result in done.values())
            report = ask(restarted)
            assert report.arrivals == 500
            assert report.seen_twice == 0


# -- what is no request --------------------------------------------------------------------------

SERVICE = "/apiflux.v1.FluxService"
FUZZ = hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALID = pb.ProcessRequest(
    calls=[
        pb.Call(path="/fuzz/1", query={"a": "b"}, headers={"x-a": "b"}, cost=1),
        pb.Call(id="two", method="POST", path="/fuzz/2", body=b"{}", idempotent=True),
    ],
    correlation_id="fuzz",
    retry=pb.RetryPolicy(max_attempts=2, reasons=["NOT_SENT"]),
).SerializeToString()


@pytest.fixture(scope="module")
def plain() -> Iterator[Pair]:
    """A server that is told nonsense, and a judge that hears as little of it as can be."""
    with paired({"default": ""}, [WIDE], latency=(0, 1)) as pair:
        yield pair


@pytest.fixture(scope="module")
def channel(plain: Pair) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(plain.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid message with some bytes changed, put in or taken out."""
    message = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(message) - 1))
        length = draw(st.integers(0, 3))
        message[at : at + length] = draw(st.binary(max_size=3))
    return bytes(message)


def still_serving(pair: Pair, name: str) -> None:
    """Another client gets its results, and nothing else is open."""
    with SyncClient(pair.target, options=OWN_CONNECTION) as client:
        results = list(client.process(gets(f"after-{name}", 5)))
        assert [result.ok for result in results] == [True] * 5
        info = client.info()
    assert (info.open_batches, info.open_calls) == (0, 0)
    report = pair.judge.report()
    assert (report.rejected, report.unknown_arrivals) == (0, 0)
    assert report.worst <= 1.0
    arrived = pair.judge.calls()
    assert [arrived[name_of(call)] for call in gets(f"after-{name}", 5)] == [1] * 5


def test_bytes_that_are_no_message_are_refused(plain: Pair, channel: grpc.Channel) -> None:
    """Whatever comes is carried out if it is a valid request, and else is INVALID_ARGUMENT; the next one is served."""
    codes: Counter[str] = Counter()

    @FUZZ
    @given(st.one_of(st.binary(max_size=200), damaged()))
    def fuzz(message: bytes) -> None:
        process: Any = channel.unary_stream(f"{SERVICE}/Process")
        code = "OK"
        try:
            for _ in process(message, timeout=20):
                pass
        except grpc.RpcError as error:
            failed: Any = error
            code = failed.code().name
            assert failed.details()
        codes[code] += 1
        try:
            pool = pb.ProcessRequest.FromString(message).pool
        except Exception:
            assert code == "INVALID_ARGUMENT"
        else:
            assert code in ("OK", "INVALID_ARGUMENT" if pool in ("", "default") else "NOT_FOUND")

    fuzz()
    assert codes["INVALID_ARGUMENT"]
    still_serving(plain, "bytes")


@pytest.mark.parametrize("method", ["Process", "GetInfo", "Estimate"])
def test_a_broken_message_is_told_as_such(plain: Pair, channel: grpc.Channel, method: str) -> None:
    """INVALID_ARGUMENT with a reason, in our words and not as an exception of ours."""
    ask_it: Any = (
        channel.unary_stream(f"{SERVICE}/{method}")
        if method == "Process"
        else channel.unary_unary(f"{SERVICE}/{method}")
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(ask_it(b"\xff\xff", timeout=20))
    failed: Any = caught.value
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert b"INVALID_REQUEST" in dict(failed.trailing_metadata())["grpc-status-details-bin"]
    assert "<class" not in failed.details()
    assert "Traceback" not in plain.served.stderr
    still_serving(plain, f"broken-{method}")


# HTTP/2 by hand: RFC 9113, section 4.1; headers are literals without a name from a table, RFC 7541, section 6.2.2.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


PSEUDO = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": f"{SERVICE}/Process".encode(),
    b":authority": b"localhost",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}


def request_frames(stream: int, message: bytes, fields: dict[bytes, bytes] | None = None) -> bytes:
    """A whole Process request, with more headers, or others."""
    block = b"".join(literal(name, value) for name, value in (PSEUDO | (fields or {})).items())
    data = struct.pack(">BI", 0, len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, data)


def answer_to(target: str, wire: bytes, end: bytes | None = None) -> bytes:
    """What comes back: until `end` is among it, or, after our own half-close, until the server closes.

    Raises TimeoutError where it neither answers nor closes.
    """
    host, _, port = target.rpartition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection, suppress(ConnectionError):
        connection.sendall(wire)
        if end is None:
            connection.shutdown(socket.SHUT_WR)
        while (end is None or end not in heard) and (piece := connection.recv(65_536)):
            heard += piece
    return heard


def is_text(value: bytes) -> bool:
    """Whether it is UTF-8."""
    return value.decode(errors="replace").encode() == value


NAMES = st.one_of(
    st.sampled_from([*PSEUDO, b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"user-agent", b"x-bin"]),
    st.binary(min_size=1, max_size=20),
)
FRAMES = st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40))
WIRE = st.one_of(
    st.binary(max_size=200),
    st.lists(FRAMES, max_size=6).map(lambda frames: PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames)),
    st.dictionaries(NAMES, st.binary(max_size=60), max_size=6)
    .filter(lambda fields: is_text(fields.get(b":path", b"")))  # else: the test below
    .map(lambda fields: PREFACE + frame(SETTINGS, 0, 0) + request_frames(1, VALID, fields)),
)


def test_bytes_and_metadata_that_are_no_request_end_their_connection_alone(plain: Pair) -> None:
    """Raw bytes, frames that make no sense, headers of any bytes: it is answered or closed, and others are served."""
    said: Counter[bool] = Counter()

    @FUZZ
    @given(WIRE)
    def fuzz(wire: bytes) -> None:
        said[bool(answer_to(plain.target, wire))] += 1

    fuzz()
    assert said[True] > 50
    still_serving(plain, "wire")


async def test_a_path_of_any_bytes_ends_its_own_request_alone() -> None:
    """One that isn't UTF-8 names a method that nobody serves: streams of others go on, and new ones are served."""
    with paired({"default": "max_in_flight = 5"}, [WIDE], latency=(20, 40)) as pair:
        async with Client(pair.target) as client, Client(pair.target, options=OWN_CONNECTION) as new:
            other = asyncio.create_task(run(client, gets("other", 200)))

            async def under_way() -> bool:
                return pair.judge.live().arrivals > 20

            await until(under_way)
            for path in (b"/\xff\xfe", b"\x80", b"/apiflux.v1.FluxService/\xc3"):
                wire = PREFACE + frame(SETTINGS, 0, 0) + request_frames(1, VALID, {b":path": path})
                answer = await asyncio.to_thread(answer_to, pair.target, wire, b"grpc-message")
                assert b"\x0212" in answer  # grpc-status: UNIMPLEMENTED
            done = [await other, await run(new, gets("new", 20))]
            await idle(client)
        assert all(result.ok and result.attempts == 1 for batch in done for result in batch.values())
        ask(pair, *done)


# -- descriptors ---------------------------------------------------------------------------------


@contextmanager
def descriptors(pid: int, most: int) -> Iterator[None]:
    """The process may have so many open, for as long as the block lasts."""
    _, hard = before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_without_descriptors_calls_are_not_sent_and_it_recovers() -> None:
    """Calls for which there is no connection are NOT_SENT, those who are connected are served, and new clients wait.

    When there are descriptors again everything works.
    """
    spare = 3
    with paired({"default": RETRY}, [WIDE]) as pair:
        async with Client(pair.target) as client, Client(pair.target, options=OWN_CONNECTION) as new:
            await client.info()
            with descriptors(pair.served.pid, psutil.Process(pair.served.pid).num_fds() + spare):
                calls = posts("without", 15)
                stream = client.process(calls, retry=Retry(max_attempts=1))
                results = await collect(stream)
                waiting = asyncio.create_task(new.info(timeout=40))
                assert (await client.info()).open_calls == 0
                assert not waiting.done()
            assert (await waiting).open_batches == 0
            again = await run(new, posts("again", 15))
            await idle(client)
        failed = [result.error for result in results if result.error is not None]
        assert len(failed) >= 15 - spare
        assert {(error.reason, error.may_have_run) for error in failed} == {("NOT_SENT", False)}
        assert "too many open files" in failed[0].message
        assert [result.ok for result in results].count(True) == 15 - len(failed) > 0
        assert all(result.ok and result.attempts == 1 for result in again.values())
        ask(pair, dict(zip(map(name_of, calls), results, strict=True)), again)


# -- floods --------------------------------------------------------------------------------------

# Says when it has begun; then opens streams and resets them at once, and connections that say little or nothing.
FLOOD = """
import socket, struct, sys, time
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.test_faults_process import HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, literal, request_frames

host, _, port = sys.argv[1].rpartition(":")
begun = time.monotonic()
silent = []
for number in range(200):
    connection = socket.create_connection((host, int(port)))
    if number % 2:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, literal(b"te", b"trailers")))
    silent.append(connection)
print("begun", flush=True)
resets = 0
while time.monotonic() - begun < float(sys.argv[2]):
    with socket.create_connection((host, int(port))) as connection:
        try:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
            for stream in range(1, 400, 2):
                calls = [pb.Call(path=f"/flood/{resets}/{number}") for number in range(5)]
                message = pb.ProcessRequest(calls=calls).SerializeToString()
                reset = frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                connection.sendall(request_frames(stream, message) + reset)
                resets += 1
                time.sleep(0.0001)
        except OSError:
            pass  # the server may end such a connection
print(resets, flush=True)
"""


@pytest.mark.slow
async def test_floods_starve_nobody() -> None:
    """Rapid resets and hundreds of idle connections: every other request ends within seconds, and nothing is left."""
    seconds = 6
    with paired({"default": ""}, [WIDE]) as pair:
        server = psutil.Process(pair.served.pid)
        times: list[float] = []
        done: list[dict[str, Result]] = []
        async with Client(pair.target) as client, health_of(pair.target) as serving:
            await client.info()
            files = server.num_fds()
            with program(FLOOD, pair.target, str(seconds)) as flood:
                assert await line_of(flood) == "begun\n"
                clock = asyncio.get_running_loop().time
                while flood.poll() is None:
                    start = clock()
                    async with asyncio.timeout(20):
                        done.append(await run(client, gets(f"other/{len(done)}", 20)))
                        assert await serving()
                    times.append(clock() - start)
                resets = int(await line_of(flood))
            await idle(client)
            assert server.num_fds() < files + 100
            done.append(await run(client, gets("after", 20)))
        times.sort()
        assert resets > 200
        assert len(times) >= 5
        assert times[int(len(times) * 0.99)] < 10
        assert all(result.ok and result.attempts == 1 for batch in done for result in batch.values())
        report = ask(pair)
        assert report.seen_twice == 0
        arrived = pair.judge.calls()
        assert all(arrived[name] == 1 for batch in done for name in batch)
