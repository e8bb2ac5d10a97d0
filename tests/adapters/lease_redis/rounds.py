"""Stores and rounds for tests that can't wait for a store's probation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from apiflux_grpc.adapters.lease_redis.script import Script, named, script
from apiflux_grpc.adapters.lease_redis.store import RedisLeaseStore
from apiflux_grpc.core.lease.words import Amounts, Cap, Reply, Round
from apiflux_grpc.core.redis_url import parse_redis_url
from apiflux_grpc.core.units import MILLISECOND, SECOND

FIRST: Final = Round(
    "key", "a", 1, (Cap(60 * SECOND, 10),), 600 * MILLISECOND, 250 * MILLISECOND, want=Amounts(1), trust=True
)


def without_probation() -> Script:
    """The script, but an empty store that is trusted grants at once: 2 s would otherwise have to pass."""
    text = script().text
    assert text.count("local PROBATION = 2000000\n") == 1
    return named(text.replace("local PROBATION = 2000000\n", "local PROBATION = 0\n"))


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RedisLeaseStore]:
    """A store that grants at once."""
    store = RedisLeaseStore(parse_redis_url(url), without_probation())
    try:
        yield store
    finally:
        await store.close()


async def one(store: RedisLeaseStore, round: Round) -> Reply:
    """The reply to this round alone."""
    (reply,) = await store.exchange([round])
    assert reply is not None
    return reply


async def answered(store: RedisLeaseStore, round: Round) -> Reply:
    """The reply to this round, which is asked again until there is one."""
    while True:
        with suppress(ConnectionError):
            return await one(store, round)
        await asyncio.sleep(0.01)


def next_of(round: Round, reply: Reply, **fields: object) -> Round:
    """The round after this one, by a replica that has heard the reply."""
    terms = {"epoch": reply.epoch, "told": reply.now, "floor": reply.now, "paused": reply.paused}
    return round._replace(number=round.number + 1, **terms, **fields)  # type: ignore[arg-type]
