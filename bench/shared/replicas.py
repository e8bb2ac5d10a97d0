"""Section replicas: one job with the same keys, by one process, by replicas over a Redis and by workers over a file.

Rule: all run at once, each with a judge and a store of its own, and differ in nothing but how many share the keys. They
begin a part of a window apart, so that their bursts don't meet; then nearly all of the time they wait.

Use is counted key by key, from the first call to the one that is three windows of calls later, and compared with
N / (T + J + L). That is what is promised: what is answered sooner than J, or returned before its lease ends, makes it
more.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import mean
from typing import Final

from apiflux_grpc.client import Call, Client, Result
from apiflux_grpc.core.lease.terms import life_of
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from bench.figures import Figure
from bench.shared.house import JITTER, check, config, over, redis, valid, worst
from bench.workers import OWN_CONNECTION

KEYS: Final = {f"key-{number}": f"bench-secret-{number}" for number in range(1, 6)}
LIMIT: Final = Limit(100, 10 * SECOND)
LATENCY: Final = (10 * MILLISECOND, 50 * MILLISECOND)
CYCLES: Final = 4
CALLS: Final = CYCLES * LIMIT.max * len(KEYS)
MET: Final = 3.0  # seconds until replicas that began at once have heard of each other
LIFE: Final = life_of(LIMIT.per_ns) / SECOND


@dataclass(frozen=True, slots=True)
class Kind:
    """How the job is run."""

    case: str
    replicas: int = 0  # over a Redis
    workers: int = 0  # of one server

    async def open(self, stack: AsyncExitStack, url: str) -> list[Client]:
        """Clients that have all of it together."""
        if not self.replicas:
            head = f"[server]\nworkers = {self.workers}" if self.workers else ""
            target = await _served(stack, config(url, (LIMIT,), KEYS, head))
            return await _each_worker(stack, target, self.workers) if self.workers else [await _to(stack, target)]
        text = config(url, (LIMIT,), KEYS, over(stack.enter_context(redis()).url))
        targets = [await _served(stack, text) for _ in range(self.replicas)]
        return [await _to(stack, targets)]


KINDS: Final = (
    Kind("one process"),
    *(Kind(f"{count} replica{'s' * (count > 1)}", replicas=count) for count in (1, 2, 4, 8)),
    *(Kind(f"{count} workers", workers=count) for count in (2, 4, 8)),
)


async def _served(stack: AsyncExitStack, text: str) -> str:
    """The address of a server; nothing else waits for its start."""
    return (await asyncio.to_thread(stack.enter_context, ServedProcess(text, secrets_for(KEYS)))).target


async def _to(stack: AsyncExitStack, target: str | Sequence[str]) -> Client:
    return await stack.enter_async_context(Client(target, options=OWN_CONNECTION))


async def _each_worker(stack: AsyncExitStack, target: str, workers: int) -> list[Client]:
    """A client of each worker: the kernel chooses whose a connection is."""
    found: dict[int, Client] = {}
    while len(found) < workers:
        client = await _to(stack, target)
        found.setdefault((await client.info()).worker, client)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a job: seconds, the use of N / (T + J + L), and the fullest window over its limit."""

    makespan: float
    use: float
    worst: float


async def job(clients: Sequence[Client], judge: JudgeProcess) -> Done:
    """All calls, an even part by each client. Raises Void, and RuntimeError if one has no answer."""
    await asyncio.to_thread(judge.reset)  # it was late while so many servers began
    calls = [Call(f"/{number}") for number in range(CALLS)]
    start = time.perf_counter()
    parts = [part(client, calls[place :: len(clients)]) for place, client in enumerate(clients)]
    results = [result for part in await asyncio.gather(*parts) for result in part]
    makespan = time.perf_counter() - start
    report = await asyncio.to_thread(judge.report)
    check(report, CALLS)
    if not all(result.ok for result in results):
        raise RuntimeError("a call failed")
    return Done(makespan, use_of(results), report.worst)


async def part(client: Client, calls: Sequence[Call]) -> list[Result]:
    """The results of these calls, from as many servers as the client has."""
    return [result async for result in client.process_stream(calls, resume=True)]


def use_of(results: Sequence[Result]) -> float:
    """The mean over the keys."""
    times = defaultdict(list)
    for result in results:
        times[result.key].append(result.completed_at.timestamp())
    uses = []
    for each in map(sorted, times.values()):
        cycles = (len(each) - 1) // LIMIT.max
        least = LIMIT.per_ns / SECOND + JITTER + LIFE
        uses.append(cycles * least / (each[cycles * LIMIT.max] - each[0]))
    return mean(uses)


async def jobs(kinds: Sequence[Kind]) -> Sequence[Done]:
    """What each of these came to; all at once. Raises Void."""
    async with AsyncExitStack() as stack:
        opened = []
        for kind in kinds:
            judge = stack.enter_context(JudgeProcess(JudgeOptions(KEYS, (LIMIT,), latency_ns=LATENCY)))
            opened.append((await kind.open(stack, judge.url), judge))
        await asyncio.sleep(MET)

        async def run(place: int, clients: Sequence[Client], judge: JudgeProcess) -> Done:
            await asyncio.sleep(place * LIMIT.per_ns / SECOND / len(kinds))
            return await job(clients, judge)

        return await asyncio.gather(*(run(place, *one) for place, one in enumerate(opened)))


async def figures(kinds: Sequence[Kind] = KINDS) -> list[Figure]:
    done = await valid(lambda: jobs(kinds))
    alone = done[0].makespan
    found = []
    for kind, one in zip(kinds, done, strict=True):
        found += [
            worst([one.worst], kind.case),
            Figure("use of N / (T + J + L)", [one.use], target=0.97, better="more", case=kind.case),
            Figure("makespan / one process", [one.makespan / alone], case=kind.case),
        ]
    return found
