"""Clients that are killed or stand still: their work ends or waits, and nobody else notices."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from apiflux_grpc.client import Call, Client, Info, Result, Stream
from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for

KEYS = {"key-1": "canary-death-one", "key-2": "canary-death-two"}
LIMIT = Limit(200, 1_000_000_000)
IN_FLIGHT = 5  # per key
MANY = 40_000  # results of a length that no buffer on the way takes whole
Pair = tuple[JudgeProcess, ServedProcess]

# Prints the index of each result as it comes, and the summary's total at the end.
CLIENT = """
import asyncio, sys
from apiflux_grpc.client import Call, Client

async def main(target, name, count):
    async with Client(target) as client:
        calls = [Call(f"/{name}/{number}", id=f"{number:0>200}") for number in range(int(count))]
        stream = client.process(calls)
        async for result in stream:
            assert result.ok and int(result.id) == result.index
            print(result.index, flush=True)
        print("total", stream.summary.total)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Pair]:
    """A slow judge that takes a few calls of a key at once, and a server in front of it."""
    options = JudgeOptions(KEYS, (LIMIT,), latency_ns=(60_000_000, 120_000_000))
    extra = f"max_in_flight = {IN_FLIGHT}"
    with (
        JudgeProcess(options) as judge,
        ServedProcess(config_for(judge.url, (LIMIT,), list(KEYS), extra), secrets_for(KEYS)) as served,
    ):
        yield judge, served


@pytest.fixture
def pair(running: Pair) -> Pair:
    judge, _ = running
    judge.reset()
    return running


@pytest.fixture(scope="module")
def simulated() -> Iterator[ServedProcess]:
    """A server on the simulator, without a limit that matters."""
    config = """
[pools.default]
limits = [{ max = 100000000, per = "1s" }]
simulator = { latency = ["0ms", "1ms"] }
keys = [{ label = "key-1", secret_env = "STRESS_SECRET_0" }]
"""
    with ServedProcess(config, secrets_for(KEYS)) as served:
        yield served


@contextmanager
def client_process(target: str, name: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """A client program with a batch of `count` calls; killed at the end, also where it stands still."""
    command = [sys.executable, "-c", CLIENT, target, name, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def first_result(process: subprocess.Popen[str]) -> int:
    """Wait until the client has its first result."""
    assert process.stdout is not None
    return int(await asyncio.to_thread(process.stdout.readline))


async def idle(client: Client) -> Info:
    """Wait, with a bound, until the server has nothing to do; how it stands then."""
    for _ in range(400):
        info = await client.info()
        if not (info.open_batches or info.open_calls or info.pools[0].in_flight or info.pools[0].waiting):
            break
        await asyncio.sleep(0.025)
    return info


def assert_idle(info: Info) -> None:
    (pool,) = info.pools
    assert (info.open_batches, info.open_calls, pool.in_flight, pool.waiting) == (0, 0, 0, 0)
    assert [key.in_flight for key in pool.keys] == [0] * len(pool.keys)


async def collect(stream: Stream) -> list[Result]:
    return [result async for result in stream]


def batch(client: Client, name: str, count: int) -> Stream:
    return client.process([Call(f"/{name}/{number}") for number in range(count)])


async def test_killed_clients_leave_nothing_behind(pair: Pair) -> None:
    """SIGKILL in the middle of a stream ends that batch alone; every slot it held is free again."""
    judge, served = pair
    async with Client(served.target) as client:
        other = asyncio.create_task(collect(batch(client, "other", 60)))
        for cycle in range(3):
            with client_process(served.target, f"killed-{cycle}", 500) as process:
                await first_result(process)
                process.kill()
                await asyncio.to_thread(process.wait)
        results = await other
        assert_idle(await idle(client))
        arrivals = judge.report().arrivals
        again = await collect(batch(client, "again", 3 * IN_FLIGHT * len(KEYS)))
        assert_idle(await idle(client))
    report = judge.report()
    assert sorted(result.index for result in results) == list(range(60))
    assert all(result.ok for result in results + again)
    assert 60 < arrivals < 3 * 500
    assert report.arrivals == arrivals + len(again)
    assert (report.seen_twice, report.rejected) == (0, 0)
    assert report.violations == []
    assert "canary" not in served.stderr


async def connected(served: ServedProcess, judge: JudgeProcess, count: int) -> None:
    """Wait, with a bound, until the server has so many connections to the judge."""
    server = psutil.Process(served.pid)
    for _ in range(400):
        remotes = [one.raddr for one in server.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
        found = sum(bool(remote) and remote.port == judge.port for remote in remotes)
        if found == count:
            return
        await asyncio.sleep(0.025)
    raise AssertionError(f"{found} connections, not {count}")


async def test_what_a_killed_client_had_in_flight_is_stopped() -> None:
    """Calls whose answer would take a minute are dropped at once, and no further one is made."""
    slots = IN_FLIGHT * len(KEYS)
    options = JudgeOptions(KEYS, (LIMIT,), latency_ns=(60_000_000_000, 60_000_000_000))
    extra = f'max_in_flight = {IN_FLIGHT}\ntimeout = "90s"'
    with (
        JudgeProcess(options) as judge,
        ServedProcess(config_for(judge.url, (LIMIT,), list(KEYS), extra), secrets_for(KEYS)) as served,
    ):
        async with Client(served.target) as client:
            with client_process(served.target, "killed", 100):
                await connected(served, judge, slots)
                for _ in range(400):
                    if judge.live().arrivals == slots:
                        break
                    await asyncio.sleep(0.025)
            assert_idle(await idle(client))
        await connected(served, judge, 0)
        report = judge.report()
    assert report.arrivals == slots
    assert report.violations == []


async def test_a_client_that_stands_still_gets_the_rest_later(pair: Pair) -> None:
    """While a client is stopped other batches go on, and its own calls too; nothing of its results is lost."""
    judge, served = pair
    async with Client(served.target) as client:
        with client_process(served.target, "stopped", 60) as process:
            first = await first_result(process)
            process.send_signal(signal.SIGSTOP)
            others = await asyncio.gather(*(collect(batch(client, f"other-{number}", 20)) for number in range(3)))
            assert_idle(await idle(client))
            process.send_signal(signal.SIGCONT)
            rest, _ = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0
    *indices, total = rest.splitlines()
    assert total == "total 60"
    assert sorted([first, *map(int, indices)]) == list(range(60))
    assert [sorted(result.index for result in results if result.ok) for results in others] == [list(range(20))] * 3
    report = judge.report()
    assert report.arrivals == 60 + 3 * 20
    assert report.violations == []


async def held(client: Client) -> int:
    """Wait, with a bound, until the pool makes no more attempts; how many it has made."""
    made = -1
    for _ in range(100):
        (pool,) = (await client.info()).pools
        attempts = sum(key.attempts for key in pool.keys)
        if attempts == made and not pool.in_flight:
            break
        made = attempts
        await asyncio.sleep(0.1)
    return made


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
async def test_a_client_that_stands_still_bounds_its_own_batch(simulated: ServedProcess, then: signal.Signals) -> None:
    """A batch whose reader is stopped waits before all its calls are made; others go on, and so does it or it is gone.

    Its results wait in a bounded place, so the server's memory does not grow with the batch.
    """
    async with Client(simulated.target) as client:
        before = await held(client)
        with client_process(simulated.target, "stopped", MANY) as process:
            first = await first_result(process)
            process.send_signal(signal.SIGSTOP)
            made = await held(client) - before
            assert made < MANY
            others = await asyncio.gather(*(collect(batch(client, f"other-{number}", 50)) for number in range(10)))
            assert [len(results) for results in others] == [50] * 10
            assert await held(client) == before + made + 10 * 50
            info = await client.info()
            assert info.open_batches == 1
            assert info.open_calls >= MANY - made
            process.send_signal(then)
            rest, _ = await asyncio.to_thread(process.communicate)
            assert process.returncode == (0 if then is signal.SIGCONT else -signal.SIGKILL)
            assert_idle(await idle(client))
            if then is signal.SIGKILL:
                assert await held(client) == before + made + 10 * 50
    if then is signal.SIGCONT:
        *indices, total = rest.splitlines()
        assert total == f"total {MANY}"
        assert sorted([first, *map(int, indices)]) == list(range(MANY))
