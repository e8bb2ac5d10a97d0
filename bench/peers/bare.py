"""A bare aiohttp loop: a task per call, the keys in turn, no limit kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

from bench.peers.contest import Run, Work, a_task_per_call, compete, http


@asynccontextmanager
async def opened(work: Work) -> AsyncIterator[Run]:
    turn = cycle(work.secrets)
    async with http(work) as get:

        async def one(path: str) -> bool:
            return await get(next(turn), path) == 200

        yield a_task_per_call(one, work.at_once)


if __name__ == "__main__":
    compete(opened)
