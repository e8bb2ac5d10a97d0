"""A server that is told to end, or killed: every client hears what became of its calls.

Each test ends the server, so each has one of its own.
"""

from __future__ import annotations

import asyncio

import psutil
import pytest

from apiflux_grpc.client import Call, Client, Result, Unavailable
from apiflux_grpc.judge.limits import Limit
from tests.e2e.pairs import again, ask, gets, name_of, paired, posts, read, run, until
from tests.e2e.programs import line_of, program

SECOND = 1_000_000_000
LIMIT = Limit(100, SECOND // 2)
IN_FLIGHT = 10  # with each key
RETRY = 'retry = { max_attempts = 3, initial_backoff = "5ms", max_backoff = "20ms" }'


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


# Begins a server, says its process id, and waits.
PARENT = """
import time
from apiflux_grpc.testing.served import ServedProcess

with ServedProcess("", {}) as served:
    print(served.pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.slow
async def test_a_server_of_a_test_ends_with_it_also_if_that_is_killed() -> None:
    """Else it would serve, and hold its port, until somebody found it."""
    with program(PARENT) as parent:
        served = psutil.Process(int(await line_of(parent)))
        assert served.is_running()
        parent.kill()

        async def is_gone() -> bool:
            return not served.is_running() or served.status() == psutil.STATUS_ZOMBIE

        try:
            await until(is_gone)
        finally:
            if served.is_running():
                served.kill()
