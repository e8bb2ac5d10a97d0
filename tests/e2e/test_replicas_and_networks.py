"""Servers whose Redis is slow, gone before they begin, or behind a network that breaks, and one that stands still."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from typing import Final

import pytest

from apiflux_grpc.client import Client
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.adapters.lease_redis.proxy import Proxy
from tests.adapters.lease_redis.servers import RedisServer, program
from tests.e2e.pairs import ask_of, gets, judging, run, toml, until

SECOND: Final = 1_000_000_000
LIMIT: Final = Limit(40, SECOND)
POOLS: Final = {"default": "max_in_flight = 20"}
LEASE: Final = 0.5  # seconds
JITTER: Final = 1.0  # of tests.e2e.pairs


async def store_is_silent(client: Client, silent: bool = True) -> None:
    """Until its pool says that it is, or that it isn't any more."""

    async def look() -> bool:
        store = (await client.info()).pools[0].budget_store
        assert store is not None
        return (store.silent_for is not None) is silent

    await until(look)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_whatever_the_network_does_no_limit_is_exceeded_and_all_goes_on_by_itself() -> None:
    """A server begins without its Redis; then the way to it is slow, cut, half open, and Redis is busy: calls wait
    while nothing is heard, and nobody has to do anything when it is."""
    with ExitStack() as stack:
        judge = stack.enter_context(judging(POOLS, [LIMIT], 1))
        redis = stack.enter_context(RedisServer(program()))
        async with Proxy(redis.port) as proxy:
            proxy.refuses = True

            def served(url: str) -> ServedProcess:
                text = (
                    f'[budget]\nredis = "{url}"\nlease = "{LEASE * 1000:.0f}ms"\n{toml(judge.url, POOLS, [LIMIT], 1)}'
                )
                return stack.enter_context(ServedProcess(text, {}))

            behind = await asyncio.to_thread(served, proxy.url)
            near = await asyncio.to_thread(served, redis.url)
            async with Client(behind.target) as client, Client(near.target) as other:
                loads = [asyncio.create_task(run(one, gets(name, 200))) for name, one in (("a", client), ("b", other))]
                await store_is_silent(client)
                assert behind.stderr.count("is gone") == 1, "it is told of once"
                proxy.refuses = False
                await store_is_silent(client, False)
                proxy.delay = LEASE / 20
                await asyncio.sleep(2 * LEASE)
                proxy.delay = 0.0
                proxy.cut()
                proxy.silent = True
                await store_is_silent(client)
                proxy.silent = False
                proxy.cut()
                await store_is_silent(client, False)
                await asyncio.to_thread(redis.sleep, 2.5)
                for results in await asyncio.gather(*loads):
                    assert all(result.ok for result in results.values())
        ask_of(judge)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_server_that_was_stopped_for_longer_than_its_leases_exceeds_no_limit() -> None:
    """SIGSTOP under load until others may have all that it held, and SIGCONT: no window is over its limit but by what
    it says was sent late. It holds little when it is stopped; that nothing of that is sent, tests/engine proves."""
    with ExitStack() as stack:
        judge = stack.enter_context(judging(POOLS, [LIMIT], 1))
        redis = stack.enter_context(RedisServer(program()))
        text = f'[budget]\nredis = "{redis.url}"\nlease = "{LEASE * 1000:.0f}ms"\n{toml(judge.url, POOLS, [LIMIT], 1)}'
        stopped, other = (stack.enter_context(ServedProcess(text, {})) for _ in range(2))
        async with Client(stopped.target) as one, Client(other.target) as two:
            loads = [asyncio.create_task(run(client, gets(name, 100))) for name, client in (("a", one), ("b", two))]

            async def are_under_way() -> bool:
                return {name.split("/")[1] for name in judge.calls()} >= {"a", "b"}

            await until(are_under_way)
            os.kill(stopped.pid, signal.SIGSTOP)
            await asyncio.sleep(LEASE + JITTER + LIMIT.per_ns / SECOND)
            os.kill(stopped.pid, signal.SIGCONT)
            for results in await asyncio.gather(*loads):
                assert all(result.ok for result in results.values())
            store = (await one.info()).pools[0].budget_store
            assert store is not None
        if store.sent_late:
            assert judge.report().worst <= 1 + store.sent_late / LIMIT.max
        else:
            ask_of(judge)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_redis_that_is_too_far_lends_nothing_and_the_server_says_why() -> None:
    """Rule 5: its round trip is above a quarter of what a lease lives; all calls go when it's nearer."""
    with ExitStack() as stack:
        judge = stack.enter_context(judging(POOLS, [LIMIT], 1))
        redis = stack.enter_context(RedisServer(program()))
        async with Proxy(redis.port) as proxy:
            proxy.delay = LEASE / 6
            text = f'[budget]\nredis = "{proxy.url}"\nlease = "{LEASE * 1000:.0f}ms"\n'
            begin = ServedProcess(text + toml(judge.url, POOLS, [LIMIT], 1), {})
            served = await asyncio.to_thread(stack.enter_context, begin)
            async with Client(served.target) as client:
                load = asyncio.create_task(run(client, gets("a", 80)))
                why = f"more than a quarter of the {LEASE * 1000:.0f} ms that a lease lives: make leases longer, or the"

                async def is_refused() -> bool:
                    return any(why in held.reason for held in (await client.info()).pools[0].held_by)

                await until(is_refused)
                assert why in served.stderr
                proxy.delay = 0.0
                assert all(result.ok for result in (await load).values())
        ask_of(judge)
