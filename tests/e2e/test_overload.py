"""Too much: batches beyond the bounds, more connections than descriptors, floods of resets.

What can't be taken is refused with a delay, or waits; what was taken ends as if nothing else had been there.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

import grpc
import psutil
import pytest

from apiflux_grpc.client import Client, Overloaded, Result, Retry
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.http2 import PREFACE, SETTINGS, frame
from tests.e2e.pairs import (
    OWN_CONNECTION,
    ask,
    collect,
    gets,
    health_of,
    idle,
    name_of,
    paired,
    pool_toml,
    posts,
    run,
    until,
)
from tests.e2e.programs import line_of, program

SECOND = 1_000_000_000
WIDE = Limit(100_000, SECOND)
RETRY = 'retry = { max_attempts = 3, initial_backoff = "5ms", max_backoff = "20ms" }'


# -- batches beyond the bounds -------------------------------------------------------------------


class Gate:
    """An upstream in this process that answers while it is open, and keeps what comes waiting while it is not.

    So what was taken can't end before all is offered, and the number that is refused is exact on any machine.
    """

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.arrived: Counter[str] = Counter()
        self.connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, answered by a task of its own."""
        self.connections.add(asyncio.create_task(self.answer(reader, writer)))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to its end."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.arrived[head.split(b" ", 2)[1].decode()] += 1
                await self.open.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def gated(server: str) -> AsyncIterator[tuple[Gate, ServedProcess]]:
    """A gate, and a server in front of it."""
    gate = Gate()
    listening = await asyncio.start_server(gate.accept, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        lines = 'max_in_flight = 20\ntimeout = "50s"'
        config = f"[server]\n{server}\n" + pool_toml("default", url, [Limit(1_500, SECOND)], 2, lines)
        with ServedProcess(config, {}) as served:
            yield gate, served
        await asyncio.gather(*gate.connections)  # the server has closed them


async def offered(
    clients: list[Client], name: str, batches: int, calls: int, refused: list[Overloaded]
) -> dict[str, Result]:
    """Many batches at once: the results of those that were accepted; the errors of the others go into `refused`."""

    async def one(number: int) -> dict[str, Result]:
        try:
            return await run(clients[number % len(clients)], gets(f"{name}/{number}", calls))
        except Overloaded as error:
            refused.append(error)
            return {}

    done: dict[str, Result] = {}
    for results in await asyncio.gather(*map(one, range(batches))):
        done |= results
    return done


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
    calls, fit, batches = 20, 120, 1_000
    refused: list[Overloaded] = []
    async with AsyncExitStack() as stack:
        gate, served = await stack.enter_async_context(gated(f"{bound}\nmax_batch_calls = 1000"))
        serving = await stack.enter_async_context(health_of(served.target))
        clients = [await stack.enter_async_context(Client(served.target, options=OWN_CONNECTION)) for _ in range(4)]
        gate.open.set()
        few = await offered(clients, "few", 100, calls, refused)
        assert not refused
        await idle(clients[0])
        gate.open.clear()
        offering = asyncio.create_task(offered(clients, "many", batches, calls, refused))

        async def healthy_and_full() -> bool:
            assert await serving()
            return len(refused) == batches - fit

        await until(healthy_and_full)
        gate.open.set()
        many = await offering
        await idle(clients[0])
        last = await offered(clients, "last", 10, calls, refused)
    for done in (few, many, last):
        assert all(result.ok and result.attempts == 1 for result in done.values())
    assert [len(done) for done in (few, many, last)] == [100 * calls, fit * calls, 10 * calls]
    assert len(refused) == batches - fit
    for error in refused:
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.reason == reason
        assert error.retry_delay is not None
        assert 1 <= error.retry_delay < 60
    assert gate.arrived == {name.removeprefix("GET "): 1 for done in (few, many, last) for name in done}


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


async def test_short_of_descriptors_calls_wait_for_one_and_it_recovers() -> None:
    """Calls go over the connections there are, each at its first try; who is connected is served, new clients wait.

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
        assert all(result.ok and result.attempts == 1 for result in results)
        assert all(result.ok and result.attempts == 1 for result in again.values())
        ask(pair, dict(zip(map(name_of, calls), results, strict=True)), again)


async def test_idle_callers_leave_the_descriptors_that_calls_need() -> None:
    """With 64 of them callers have 10: the others are closed, and calls go with what is left, each at its first try."""
    with paired({"default": RETRY}, [WIDE], files=64) as pair:
        host, _, port = pair.target.rpartition(":")
        async with Client(pair.target) as client:
            await client.info()
            idlers = [await asyncio.open_connection(host, int(port)) for _ in range(80)]
            for _, writer in idlers:
                writer.write(PREFACE + frame(SETTINGS, 0, 0))
            closed = asyncio.Semaphore(0)

            async def is_closed(reader: asyncio.StreamReader) -> None:
                with suppress(ConnectionError):
                    await reader.read()  # to its end
                closed.release()

            waits = [asyncio.create_task(is_closed(reader)) for reader, _ in idlers]
            for _ in range(len(idlers) - 9):  # and the client's
                await closed.acquire()
            done = await run(client, posts("files", 300))
            await idle(client)
            for wait in waits:
                wait.cancel()
            for _, writer in idlers:
                writer.close()
        print(
            Counter((r.ok, r.attempts, r.error and r.error.reason, r.error and r.error.message) for r in done.values())
        )
        assert all(result.ok and result.attempts == 1 for result in done.values())
        ask(pair, done)


# -- floods --------------------------------------------------------------------------------------

# Says when it has begun; then opens streams and resets them at once, and connections that say little or nothing.
FLOOD = """
import socket, struct, sys, time
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.http2 import HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, literal, request_frames

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
