"""Clients that go in the middle of a batch: its work ends with them, and nobody else notices.

All in real processes. What grpc.aio itself does with a cancellation is in tests/server; a client that stands still in
test_clients_that_stall.py.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import psutil
import pytest

from apiflux_grpc.client import ApifluxError, Call, Client, DeadlineExceeded
from apiflux_grpc.judge.limits import Limit
from tests.e2e.pairs import (
    OWN_CONNECTION,
    Front,
    Pair,
    ask,
    attempts_in,
    collect,
    fronted,
    gets,
    idle,
    paired,
    posts,
    run,
    until,
)
from tests.e2e.programs import line_of, reader

SECOND = 1_000_000_000
LIMIT = Limit(100, SECOND // 2)
WIDE = Limit(100_000, SECOND)
IN_FLIGHT = 10  # with each of two keys
SLOTS = 2 * IN_FLIGHT
GONE = gets("gone", 500)


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Pair]]:
    """A judge that takes its time, one that never answers in time, and few calls at once."""
    fronts = {
        "default": Front(LIMIT, f"max_in_flight = {IN_FLIGHT}", latency=(40, 80)),
        "never": Front(LIMIT, f'max_in_flight = {IN_FLIGHT}\ntimeout = "90s"', latency=(60_000, 60_000)),
    }
    with fronted(fronts, 'ops_bind = "127.0.0.1:0"') as pairs:
        yield pairs


# -- the ways ------------------------------------------------------------------------------------


async def killed(client: Client, pair: Pair) -> None:
    with reader(pair.target, pair.pool, "gone", 500) as process:
        assert await line_of(process)
        process.kill()
        await asyncio.to_thread(process.wait)


async def interrupted(client: Client, pair: Pair) -> None:
    with reader(pair.target, pair.pool, "gone", 500) as process:
        assert await line_of(process)
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.wait)


async def broken_out(client: Client, pair: Pair) -> None:
    async for _ in client.process(GONE):
        break


async def cancelled(client: Client, pair: Pair) -> None:
    stream = client.process(GONE)
    await anext(stream)
    stream.cancel()
    with pytest.raises((ApifluxError, asyncio.CancelledError)):
        await collect(stream)


async def its_task_cancelled(client: Client, pair: Pair) -> None:
    begun = asyncio.Event()

    async def reading() -> None:
        async for _ in client.process(GONE):
            begun.set()

    task = asyncio.create_task(reading())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def out_of_time(client: Client, pair: Pair) -> None:
    hanging = [Call(f"/gone/{number}", headers={"X-Judge-Fault": "hang"}) for number in range(100)]
    timeout = 0.25
    while not any(name.startswith("GET /gone") for name in pair.judge.calls()):  # else it was too short to begin
        with pytest.raises(DeadlineExceeded):
            await collect(client.process(hanging, timeout=timeout))
        timeout *= 2


async def disconnected(client: Client, pair: Pair) -> None:
    async with Client(pair.target, options=OWN_CONNECTION) as other:
        stream = other.process(GONE)
        await anext(stream)
    del stream


async def closed_over_http(client: Client, pair: Pair) -> None:
    async with aiohttp.ClientSession() as http:
        answer = await http.post(ops_url(pair), json={"calls": [{"path": call.path} for call in GONE]})
        assert await answer.content.readline()
        answer.close()


def ops_url(pair: Pair) -> str:
    """Of POST /process: it listens at the port that isn't gRPC's."""
    known = psutil.Process(pair.served.pid).net_connections("tcp")
    ports = {one.laddr.port for one in known if one.status == psutil.CONN_LISTEN}
    (port,) = ports - {int(pair.target.rpartition(":")[2])}
    return f"http://127.0.0.1:{port}/process"


WAYS = [killed, interrupted, broken_out, cancelled, its_task_cancelled, out_of_time, disconnected, closed_over_http]


@pytest.mark.parametrize("leave", WAYS)
async def test_a_client_that_goes_leaves_nothing_behind(
    running: dict[str, Pair], leave: Callable[[Client, Pair], Awaitable[None]]
) -> None:
    """However it goes, its calls are stopped and its unsent ones spend nothing; another batch doesn't notice.

    Every slot that it held is free again.
    """
    pair = running["default"].fresh()
    async with Client(pair.target) as client:
        before = attempts_in(await client.info())
        other = asyncio.create_task(run(client, posts("other", 60)))
        await leave(client, pair)
        results = await other
        made = attempts_in(await idle(client)) - before
        after = await run(client, posts("after", 2 * SLOTS))
        await idle(client)
    for done in (results, after):
        assert all(result.ok and result.attempts == 1 for result in done.values())
    assert 60 < made < 60 + 100
    report = ask(pair)
    assert report.arrivals == made + len(after)
    assert report.seen_twice == 0


async def test_what_a_killed_client_had_in_flight_is_stopped(running: dict[str, Pair]) -> None:
    """Calls whose answer would take a minute are dropped at once, and no further one is made."""
    pair = running["never"].fresh()
    async with Client(pair.target) as client:
        with reader(pair.target, pair.pool, "killed", 100):
            await until(lambda: connected(pair, SLOTS))

            async def arrived() -> bool:
                return pair.judge.live().arrivals == SLOTS

            await until(arrived)
        await idle(client)
    await until(lambda: connected(pair, 0))
    assert ask(pair).arrivals == SLOTS


async def connected(pair: Pair, count: int) -> bool:
    """Whether the server has so many connections to the judge."""
    server = psutil.Process(pair.served.pid)
    remotes = [one.raddr for one in server.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
    return sum(bool(remote) and remote.port == pair.judge.port for remote in remotes) == count


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
            assert server.num_fds() <= files + SLOTS
        report = ask(pair)
        # A call may be stopped while its connection is still being made.
        assert 1_000 <= report.arrivals <= attempts_in(info) < 12_000
    assert grown < 5_000_000
