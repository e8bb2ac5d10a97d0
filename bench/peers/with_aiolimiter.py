"""One `AsyncLimiter(most, per)` per key, the keys in turn: what its documentation shows, once per key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

from aiolimiter import AsyncLimiter

from bench.peers.contest import Run, Work, a_task_per_call, compete, http


@asynccontextmanager
async def opened(work: Work) -> AsyncIterator[Run]:
    turn = cycle([(secret, AsyncLimiter(work.most, work.per)) for secret in work.secrets])
    async with http(work) as get:

        async def one(path: str) -> bool:
            secret, limiter = next(turn)
            async with limiter:
                return await get(secret, path) == 200

        yield a_task_per_call(one, work.at_once)


if __name__ == "__main__":
    compete(opened)
