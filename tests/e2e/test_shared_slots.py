"""Two servers that share a key have together as many calls of it in flight as it may have."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from apiflux_grpc.client import ApifluxError, Client
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.adapters.lease_redis.servers import RedisServer, program
from tests.e2e.pairs import ask_of, gets, judging, run, toml, until

SECOND: Final = 1_000_000_000
MOST: Final = 4
POOLS: Final = {"default": f'max_in_flight = {MOST}\ntimeout = "3s"'}
WIDE: Final = Limit(100_000, SECOND)


async def test_no_more_are_in_flight_than_a_key_may_have_though_one_is_killed() -> None:
    """Rule 10, by the judge: what the killed one had comes back to the other when its calls must have ended."""
    with judging(POOLS, [WIDE], 1, latency=(20, 40)) as judge, RedisServer(program()) as redis:
        text = f'[budget]\nredis = "{redis.url}"\n{toml(judge.url, POOLS, [WIDE], 1)}'
        with ServedProcess(text, {}) as one, ServedProcess(text, {}) as other:

            async def load(target: str, name: str, count: int) -> None:
                async with Client(target) as client:
                    await run(client, gets(name, count))

            loads = [asyncio.create_task(load(one.target, "one", 5000))]
            loads.append(asyncio.create_task(load(other.target, "other", 300)))

            async def all_are_used() -> bool:
                live = judge.live()
                return live.arrivals >= 60 and live.most_in_flight == MOST

            await until(all_are_used)
            one.kill()
            with suppress(ApifluxError):
                await loads[0]
            judge.reset()

            async def all_are_used_again() -> bool:
                return judge.live().most_in_flight == MOST

            await until(all_are_used_again)
            await loads[1]
        assert judge.live().most_in_flight == MOST
        ask_of(judge)
