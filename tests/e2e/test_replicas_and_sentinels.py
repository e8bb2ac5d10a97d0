"""Servers whose Redis is watched by Sentinels, and what becomes of their budgets when its primary dies."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Final

import pytest

from apiflux_grpc.client import Client
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.adapters.lease_redis.sentinels import watched
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, toml, until

SECOND: Final = 1_000_000_000
LIMIT: Final = Limit(100, SECOND)
POOLS: Final = {"default": "max_in_flight = 20"}


@pytest.mark.slow
@pytest.mark.timeout(180)  # on a machine that stops for two seconds Sentinels wait for thirty
async def test_a_failover_under_load_exceeds_no_limit_and_all_goes_on_by_itself() -> None:
    """Rule 8: the primary is killed; the replica that takes over may have missed grants, so the key is frozen, GetInfo
    says so, and then all calls get their results."""
    with ExitStack() as stack:
        judge = stack.enter_context(judging(POOLS, [LIMIT], 1))
        primary, _, *watchers = stack.enter_context(watched())
        where = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
        text = f'[budget]\nredis = "redis+sentinel://{where}/main"\nlease = "500ms"\n'
        text += toml(judge.url, POOLS, [LIMIT], 1)
        servers = [stack.enter_context(ServedProcess(text, {})) for _ in range(2)]
        async with Client(servers[0].target) as one, Client(servers[1].target) as other:
            loads = [asyncio.create_task(run(client, gets(name, 120))) for name, client in (("a", one), ("b", other))]

            async def are_under_way() -> bool:
                return judge.live().arrivals >= 60

            async def is_frozen() -> bool:
                pool = (await one.info()).pools[0]
                return any("has lost what was spent" in held.reason for held in pool.held_by)

            await until(are_under_way)
            primary.kill()
            await until(is_frozen)
            for results in await asyncio.gather(*loads):
                assert all(result.ok for result in results.values())
        ask_of(judge)
        assert not any(CANARY in server.stderr for server in servers)
