"""Section restarts: a server that is killed under load ten times, beside one that isn't.

Rule: both have the same load, limit and file of budgets, and a judge each. Each time the killed one is started again at
once, on the same port. What a restart costs is what the other one was ahead at the end, at the rate of the key: the
time until the server is back is in it as far as the limit didn't bind, and what it had reserved and didn't send.
The kills come at all phases of a window; and calls come in bursts, so that what has arrived is a mean over one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from apiflux_grpc.client import ApifluxError, Call, Client
from apiflux_grpc.core.lease.terms import life_of
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from bench.figures import Figure
from bench.shared.house import JITTER, check, config, valid, worst

KEYS: Final = {"key-1": "bench-secret-1"}
LATENCY: Final = (10 * MILLISECOND, 50 * MILLISECOND)
KILLS: Final = 10
LIMIT: Final = Limit(300, 3 * SECOND)
CYCLE: Final = LIMIT.per_ns / SECOND + JITTER + life_of(LIMIT.per_ns) / SECOND
EVERY: Final = 1.4 * CYCLE  # seconds between kills
BURSTS: Final = LIMIT.per_ns / SECOND + sum(LATENCY) / 2 / SECOND  # seconds from one to the next
LOOKS: Final = 40  # of a mean
BACKLOG: Final = 5_000  # calls that wait at any time


class Seen(NamedTuple):
    """Calls that arrived, the fullest window over its limit, and the seconds that each start took."""

    arrived: float
    worst: float
    starts: list[float]


async def figures() -> list[Figure]:
    steady, killed = await valid(both)
    lost = steady.arrived - killed.arrived
    rate = steady.arrived / (KILLS * EVERY + BURSTS)
    case = f"{KILLS} times SIGKILL, {LIMIT.max} per {LIMIT.per_ns // SECOND} s"
    return [
        worst([killed.worst], case),
        Figure("calls lost by a restart", [lost / KILLS], case=case),
        Figure("capacity lost by a restart", [lost / rate / KILLS], "s", case=case),
        Figure("until it listens again", killed.starts, "s", case=case),
        worst([steady.worst], "the one beside it"),
    ]


async def both() -> tuple[Seen, Seen]:
    """The one that is let alone, and the one that is killed. Raises Void."""
    async with AsyncExitStack() as stack:
        runs = []
        for kills in (0, KILLS):
            judge = stack.enter_context(JudgeProcess(JudgeOptions(KEYS, (LIMIT,), latency_ns=LATENCY)))
            runs.append(run(judge, Path(stack.enter_context(TemporaryDirectory())), kills))
        steady, killed = await asyncio.gather(*runs)
    return steady, killed


async def run(judge: JudgeProcess, state: Path, kills: int) -> Seen:
    """Load for as long as the kills take, which begin after a while. Raises Void."""
    head = f'[server]\nstate_dir = "{state}"'
    text = config(judge.url, (LIMIT,), KEYS, head)
    served = await started(text, 0)
    port = int(served.target.rpartition(":")[2])
    load = asyncio.ensure_future(backlog(served.target))
    starts = []
    try:
        await asyncio.sleep(2 * CYCLE)  # all of the limit is in use
        before, begin = await level(judge), time.perf_counter()
        for number in range(1, KILLS + 1):
            await asyncio.sleep(begin + number * EVERY - EVERY / 2 - time.perf_counter())
            if number <= kills:
                served.kill()
                served.__exit__()
                again = time.perf_counter()
                served = await started(text, port)
                starts.append(time.perf_counter() - again)
        await asyncio.sleep(begin + KILLS * EVERY - time.perf_counter())
        arrived = await level(judge) - before
        if load.done():
            load.result()
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    finally:
        await asyncio.to_thread(served.__exit__)
    report = judge.report()
    check(report, report.arrivals)
    return Seen(arrived, report.worst, starts)


async def level(judge: JudgeProcess) -> float:
    """How many calls have arrived, as a mean over about the time from one burst to the next."""
    begin, seen = time.perf_counter(), []
    for look in range(LOOKS):
        seen.append((await asyncio.to_thread(judge.live)).arrivals)
        await asyncio.sleep(begin + (look + 1) * BURSTS / LOOKS - time.perf_counter())
    return mean(seen)


async def started(text: str, port: int) -> ServedProcess:
    """A server; nothing else waits for its start."""
    return await asyncio.to_thread(ServedProcess(text, secrets_for(KEYS), port=port).__enter__)


async def backlog(target: str) -> None:
    """More calls than the limit allows, whether the server is there or not."""
    number = 0
    async with Client(target) as client:
        while True:
            number += 1
            try:
                async for _ in client.process([Call(f"/{number}/{place}") for place in range(BACKLOG)]):
                    pass
            except ApifluxError:
                await asyncio.sleep(0.02)
