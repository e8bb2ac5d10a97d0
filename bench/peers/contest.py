"""What the programs of all contestants have in common: the way in which they are told their work and tell the result.

Rule: a contestant opens what it needs, says `ready`, waits for a line, makes its calls, says as JSON how it went and
waits again. Its CPU and its arrivals are counted from outside, in the same way for all. No call is made again here.

This runs in the contestant's own environment: only the standard library, uvloop and aiohttp are there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass

import aiohttp
import uvloop

Get = Callable[[str, str], Awaitable[int]]  # (secret, path) -> the HTTP status
One = Callable[[str], Awaitable[bool]]  # one call of this path; whether it was answered with 200
Run = Callable[[str, int], Awaitable[int]]  # so many calls with paths of this name; how many were answered with 200


@dataclass(frozen=True, slots=True)
class Work:
    """Calls for an upstream whose keys may make `most` calls per `per` seconds each.

    `at_once` is how many of them are in progress at most, `warm` how many go ahead unmeasured. With `small` so many
    calls arrive 0.5 s behind the others, and the work is over when they are answered.
    """

    url: str
    secrets: tuple[str, ...]
    most: int
    per: float
    calls: int
    at_once: int
    warm: int = 0
    small: int = 0
    margin: float = 0.0  # seconds that a window is taken to be longer

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True, slots=True)
class Done:
    """How many calls were answered with 200, and after how many seconds all of them were over."""

    answered: int
    seconds: float


def compete(opened: Callable[[Work], AbstractAsyncContextManager[Run]]) -> None:
    """The program of a contestant."""
    work = Work(**json.loads(sys.stdin.readline()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_compete(opened, work))


async def _compete(opened: Callable[[Work], AbstractAsyncContextManager[Run]], work: Work) -> None:
    async with opened(work) as run:
        if work.warm:
            await run("warm", work.warm)
        print("ready", flush=True)
        sys.stdin.readline()
        done = await (_behind(run, work) if work.small else _timed(run, "large", work.calls))
        print(json.dumps(asdict(done)), flush=True)
        sys.stdin.readline()  # what it opened is counted before it ends


async def _behind(run: Run, work: Work) -> Done:
    large = asyncio.ensure_future(run("large", work.calls))
    await asyncio.sleep(0.5)
    small = await _timed(run, "small", work.small)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    return small


async def _timed(run: Run, name: str, calls: int) -> Done:
    start = time.perf_counter()
    answered = await run(name, calls)
    return Done(answered, time.perf_counter() - start)


@asynccontextmanager
async def http(work: Work) -> AsyncIterator[Get]:
    """aiohttp as it is used most: one session, a GET, the body read."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def get(secret: str, path: str) -> int:
            async with session.get(work.url + path, headers={"X-API-Key": secret}) as got:
                await got.read()
                return got.status

        yield get


def a_task_per_call(one: One, at_once: int) -> Run:
    """The calls of one after the other, each in a task of its own."""
    gate = asyncio.Semaphore(at_once)

    async def gated(path: str) -> bool:
        async with gate:
            return await one(path)

    async def run(name: str, calls: int) -> int:
        return sum(await asyncio.gather(*(gated(f"/{name}/{number}") for number in range(calls))))

    return run
