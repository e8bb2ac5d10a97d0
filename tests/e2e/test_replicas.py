"""Servers that share keys by one Redis: together they keep every limit, whatever happens to one of them or to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pytest

from apiflux_grpc.client import ApifluxError, Client, Result
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from tests.adapters.lease_redis.servers import RedisServer, program
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, toml, until

SECOND: Final = 1_000_000_000
LEASE: Final = 0.4  # seconds; a quarter of it is a round trip on a busy machine
POOLS: Final = {"default": "max_in_flight = 20"}
PASSWORD: Final = f"{CANARY}-redis"


@dataclass(frozen=True)
class Fleet:
    """Servers, the Redis that they share, and the judge that they call."""

    judge: JudgeProcess
    redis: RedisServer
    replicas: Sequence[ServedProcess]

    async def arrived(self, count: int) -> None:
        """Until so many calls came."""

        async def enough() -> bool:
            return self.judge.live().arrivals >= count

        await until(enough)


@contextmanager
def fleet(limit: Limit, count: int, keys: int = 1) -> Iterator[Fleet]:
    """So many servers with the same keys."""
    with ExitStack() as stack:
        judge = stack.enter_context(judging(POOLS, [limit], keys))
        redis = stack.enter_context(RedisServer(program(), "--requirepass", PASSWORD, password=PASSWORD))
        text = (
            f'[budget]\nredis_env = "BUDGETS"\nlease = "{LEASE * 1000:.0f}ms"\n{toml(judge.url, POOLS, [limit], keys)}'
        )
        environ = {"BUDGETS": redis.url.replace("//", f"//:{PASSWORD}@")}
        replicas = [stack.enter_context(ServedProcess(text, environ)) for _ in range(count)]
        yield Fleet(judge, redis, replicas)
        for one in replicas:
            assert CANARY not in one.stderr


async def load(target: str, name: str, count: int) -> dict[str, Result]:
    """The results of so many calls."""
    async with Client(target) as client:
        return await run(client, gets(name, count))


async def test_four_servers_use_one_budget_to_its_end_and_no_further() -> None:
    """leases.md, a process is killed and a replica is stopped: what they hold stays charged, and isn't spent later."""
    with fleet(Limit(40, 2 * SECOND), 4, keys=2) as all:
        names = ("one", "two", "killed", "stopped")
        targets = [one.target for one in all.replicas]
        loads = {name: asyncio.create_task(load(target, name, 40)) for name, target in zip(names, targets, strict=True)}
        await all.arrived(30)
        *_, killed, stopped = all.replicas
        os.kill(stopped.pid, signal.SIGSTOP)
        killed.kill()
        with suppress(ApifluxError):
            await loads.pop("killed")
        await asyncio.sleep(2 * LEASE)  # longer than its own
        before = all.judge.live().arrivals

        async def others_went_on() -> bool:
            return all.judge.live().arrivals > before or (loads["one"].done() and loads["two"].done())

        await until(others_went_on)
        os.kill(stopped.pid, signal.SIGCONT)
        for results in await asyncio.gather(*loads.values()):
            assert all_ok(results)
        ask_of(all.judge)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", ["restart", "flush", "hang"])
async def test_whatever_redis_does_under_load_no_limit_is_exceeded_and_it_goes_on_by_itself(fault: str) -> None:
    """Rules 8 and 11: what is leased is spent, then calls wait, GetInfo says why, and all get their results."""
    with fleet(Limit(40, SECOND), 2) as all:
        loads = [asyncio.create_task(load(one.target, one.target, 200)) for one in all.replicas]
        await all.arrived(60)
        if fault == "flush":
            all.redis.flush()
        else:
            all.redis.kill() if fault == "restart" else all.redis.stop()
            async with Client(all.replicas[0].target) as client:
                said = ""

                async def is_silent() -> bool:
                    nonlocal said
                    store = (await client.info()).pools[0].budget_store
                    assert store is not None
                    said = store.error
                    return store.silent_for is not None

                await until(is_silent)
                assert f"redis://127.0.0.1:{all.redis.port} is gone" in said
                assert CANARY not in said
            all.redis.start() if fault == "restart" else all.redis.go_on()
        for results in await asyncio.gather(*loads):
            assert all_ok(results)
        ask_of(all.judge)


def all_ok(results: dict[str, Result]) -> bool:
    """Every call was answered."""
    return all(result.ok for result in results.values())
