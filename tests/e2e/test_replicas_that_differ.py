"""Servers that share a key by one Redis, and were told different things of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import pytest

from apiflux_grpc.client import Client, Key
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.adapters.lease_redis.servers import RedisServer, program
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, toml, until

SECOND: Final = 1_000_000_000
LOW, HIGH = Limit(20, SECOND), Limit(40, SECOND)
POOLS: Final = {"default": "max_in_flight = 20"}


async def key_of(client: Client, is_told: Callable[[Key], bool]) -> Key:
    """The only key, when that is told of it."""
    found: list[Key] = []

    async def look() -> bool:
        found.append((await client.info()).pools[0].keys[0])
        return is_told(found[-1])

    await until(look)
    return found[-1]


async def is_refused(served: ServedProcess, why: str) -> None:
    """It says so in GetInfo and in its log."""
    async with Client(served.target) as client:
        load = asyncio.create_task(run(client, gets("refused", 3)))
        await key_of(client, lambda key: any(why in held.reason for held in key.held_by))
        load.cancel()
    assert why in served.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_lower_limit_holds_and_another_lease_or_jitter_is_refused() -> None:
    """Of two limits for a key log and GetInfo name both, and the lower holds for both servers; one with another
    `lease` or `arrival_jitter` serves, is lent nothing, and says why. Nothing of it is over a limit."""
    with ExitStack() as stack:
        judge = stack.enter_context(judging(POOLS, [LOW], 1))
        redis = stack.enter_context(RedisServer(program()))

        def served(limit: Limit, lease: str = "500ms", jitter: str = "1s") -> ServedProcess:
            text = f'[budget]\nredis = "{redis.url}"\nlease = "{lease}"\n{toml(judge.url, POOLS, [limit], 1)}'
            text = text.replace('arrival_jitter = "1s"', f'arrival_jitter = "{jitter}"')
            return stack.enter_context(ServedProcess(text, {}))

        low, high = served(LOW), served(HIGH)
        clients = [Client(low.target), Client(high.target)]
        async with clients[0], clients[1]:
            await run(clients[0], gets("first", 5))
            loads = [asyncio.create_task(run(one, gets(str(place), 60))) for place, one in enumerate(clients)]
            key = await key_of(clients[1], lambda key: any("the lower holds" in held.reason for held in key.held_by))
            (why,) = [held.reason for held in key.held_by if "the lower holds" in held.reason]
            assert "20 calls per 1s, and this one 40 calls per 1s" in why
            for results in await asyncio.gather(*loads):
                assert all(result.ok for result in results.values())
            assert "20 calls per 1s, and this one 40 calls per 1s" in high.stderr
            assert "the lower holds" not in low.stderr
            for other, said in (
                (served(LOW, lease="300ms"), "leases live 300 ms here, and 500 ms for others"),
                (served(LOW, jitter="2s"), "arrival_jitter is 2000 ms here, and 1000 ms for others"),
            ):
                await is_refused(other, said)
        assert not any("/refused/" in name for name in judge.calls())
        ask_of(judge)
        assert CANARY not in low.stderr + high.stderr
