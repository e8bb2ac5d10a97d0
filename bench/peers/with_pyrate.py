"""One pyrate-limiter `Limiter` per key, in memory, the keys in turn; its windows longer by the work's margin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

from pyrate_limiter import Limiter, Rate  # type: ignore[import-not-found]  # it has an environment of its own

from bench.peers.contest import Run, Work, a_task_per_call, compete, http


@asynccontextmanager
async def opened(work: Work) -> AsyncIterator[Run]:
    milliseconds = round((work.per + work.margin) * 1000)
    turn = cycle([(secret, Limiter(Rate(work.most, milliseconds))) for secret in work.secrets])
    async with http(work) as get:

        async def one(path: str) -> bool:
            secret, limiter = next(turn)
            return bool(await limiter.try_acquire_async("calls")) and await get(secret, path) == 200

        yield a_task_per_call(one, work.at_once)


if __name__ == "__main__":
    compete(opened)
