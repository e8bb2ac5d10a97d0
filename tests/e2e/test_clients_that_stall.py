"""Clients that stop reading: their own batch waits in a bounded place, and others go on.

The readers are processes that are stopped by a signal, or in this process a stream that nobody iterates over. The
server's memory must not grow with a batch, so the calls whose results have no room are not made.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import psutil
import pytest

from apiflux_grpc.client import Call, Client
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
    name_of,
    run,
    stands_still,
)
from tests.e2e.programs import line_of, reader, rest_of

SECOND = 1_000_000_000
WIDE = Limit(100_000, SECOND)
IN_FLIGHT = 10  # with each key
MANY = 2_000
SOME = "huge;size=16KiB"  # 32 MB of them: no buffer on the way takes them all


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Pair]]:
    """A slow judge that takes a few calls of a key at once, and two fast ones."""
    few = f"max_in_flight = {IN_FLIGHT}"
    fronts = {
        "default": Front(Limit(200, SECOND), few, latency=(60, 120)),
        "bounded": Front(WIDE, few),
        "large": Front(WIDE, few),
    }
    with fronted(fronts) as pairs:
        yield pairs


async def test_a_client_that_stands_still_gets_the_rest_later(running: dict[str, Pair]) -> None:
    """While a client is stopped other batches go on, and its own calls too; nothing of its results is lost."""
    pair = running["default"].fresh()
    async with Client(pair.target) as client:
        with reader(pair.target, pair.pool, "stopped", 60) as process:
            first = await line_of(process)
            process.send_signal(signal.SIGSTOP)
            others = await asyncio.gather(*(run(client, gets(f"other-{number}", 20)) for number in range(3)))
            await idle(client)
            process.send_signal(signal.SIGCONT)
            *indexes, total = await rest_of(process)
            assert process.returncode == 0
    assert total == "total 60"
    assert sorted(map(int, [first, *indexes])) == list(range(60))
    assert all(result.ok for results in others for result in results.values())
    report = ask(pair)
    assert report.arrivals == 60 + 3 * 20


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
async def test_a_client_that_stands_still_bounds_its_own_batch(running: dict[str, Pair], then: signal.Signals) -> None:
    """A batch whose reader is stopped waits before all its calls are made; others go on, and so does it or it is gone.

    Its results wait in a bounded place, so the server's memory does not grow with the batch.
    """
    pair = running["bounded"].fresh()
    async with Client(pair.target) as client:
        before = attempts_in(await client.info(), pair.pool)
        with reader(pair.target, pair.pool, "stopped", MANY, SOME) as process:
            first = await line_of(process)
            process.send_signal(signal.SIGSTOP)
            made = await stands_still(client, pair.pool) - before
            assert made < MANY
            others = await asyncio.gather(
                *(run(client, gets(f"other-{number}", 50), pair.pool) for number in range(10))
            )
            assert all(result.ok for results in others for result in results.values())
            assert await stands_still(client, pair.pool) == before + made + 10 * 50
            info = await client.info()
            assert info.open_batches == 1
            assert info.open_calls >= MANY - made
            process.send_signal(then)
            lines = await rest_of(process)
            assert process.returncode == (0 if then is signal.SIGCONT else -signal.SIGKILL)
            info = await idle(client)
    if then is signal.SIGKILL:
        assert attempts_in(info, pair.pool) == before + made + 10 * 50
    else:
        *indexes, total = lines
        assert total == f"total {MANY}"
        assert sorted(map(int, [first, *indexes])) == list(range(MANY))
    assert ask(pair).arrivals == attempts_in(info, pair.pool) - before


# gRPC enlarges a reader's window by what it thinks that the connection can carry: on a busy machine to half a batch.
OWN_WINDOW = [("grpc.http2.bdp_probe", 0)]


async def test_large_results_that_nobody_reads_wait_upstream(running: dict[str, Pair]) -> None:
    """A batch whose reader stalls asks for no more, so that memory is bounded; others go on, and nothing is lost."""
    pair = running["large"].fresh()
    size, total = 256 << 10, 300
    headers = {"X-Judge-Fault": f"huge;size={size >> 10}KiB"}
    calls = [Call(f"/large/{number}", headers=headers) for number in range(total)]
    server = psutil.Process(pair.served.pid)
    async with Client(pair.target, options=OWN_WINDOW) as client, Client(pair.target, options=OWN_CONNECTION) as other:
        others = [await run(other, gets("before", 60), pair.pool)]
        before = server.memory_info().rss
        stream = client.process(calls, pool=pair.pool)
        results = [await anext(stream)]
        made = await stands_still(other, pair.pool)
        others.append(await run(other, gets("meanwhile", 60), pair.pool))
        grown = server.memory_info().rss - before
        assert made - 60 < total // 2
        assert grown < size * total // 2
        results += await collect(stream)
        assert sorted(result.index for result in results) == list(range(total))
        assert all(result.response and len(result.response.body) == size for result in results)
        await idle(client)
    named = {name_of(calls[result.index]): result for result in results}
    ask(pair, named, *others)
