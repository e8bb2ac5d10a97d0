"""How near the scheduler comes to what limits allow: over a grid on virtual time, and for real against the judge."""

from __future__ import annotations

import asyncio
import time
from heapq import heappop, heappush
from itertools import product

from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.model import MILLISECOND, SECOND, Batch, Key, Limit, Permit, Pool
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.tools.judge import JudgeOptions, JudgeProcess
from apiflux_grpc.tools.ledger import Limit as JudgeLimit
from apiflux_grpc.tools.stress import ServedProcess, config_for, secrets_for

JITTER = 250 * MILLISECOND


def optimum(keys: list[tuple[Limit, ...]], calls: int, latency: int) -> int:
    """The shortest makespan (ns) that the limits allow, all calls being there at 0 and taking `latency`.

    A slot comes back T + min(latency, J) after it was sent. So the i-th permit of a key is at
    t(i) = max over its limits of t(i - N) + T + min(latency, J), and the last of all calls goes out at the calls-th
    smallest instant over all keys.
    """
    instants: list[int] = []
    for limits in keys:
        own: list[int] = []
        for place in range(calls):
            at = 0
            for limit in limits:
                if place >= limit.max:
                    at = max(at, own[place - limit.max] + limit.per + min(latency, JITTER))
            own.append(at)
        instants += own
    return sorted(instants)[calls - 1] + latency


def makespan(keys: list[tuple[Limit, ...]], calls: int, latency: int, batches: int) -> int:
    """What the scheduler takes (ns) for these calls in so many batches of different callers, on virtual time."""
    pool = Pool(
        "default",
        tuple(Key(f"key-{number}", "s", limits) for number, limits in enumerate(keys)),
        arrival_jitter=JITTER,
        max_connections=1 << 40,
    )
    scheduler = Scheduler(pool, None)
    for number in range(batches):
        size = calls // batches + (number < calls % batches)
        if size:
            scheduler.add(Batch(number + 1, f"caller-{number % 7}", size, admitted_at=0))
    flying: list[tuple[int, int, Permit]] = []
    now = done = sequence = 0
    while True:
        permits, _ = scheduler.assign(now)
        for permit in permits:
            sequence += 1
            scheduler.sent(permit, now)
            heappush(flying, (now + latency, sequence, permit))
        wake_at = scheduler.wake_at
        if not flying and wake_at is None:
            return done
        now = min(flying[0][0] if flying else 1 << 80, 1 << 80 if wake_at is None else wake_at)
        while flying and flying[0][0] <= now:
            done, _, permit = heappop(flying)
            scheduler.settle(permit, now, now)


def grid() -> tuple[float, str]:
    """The worst makespan / optimum, and where."""
    worst = (0.0, "")
    one, two = (Limit(10, SECOND),), (Limit(10, SECOND), Limit(120, 60 * SECOND))
    three = (Limit(5, SECOND), Limit(100, 60 * SECOND), Limit(2000, 3600 * SECOND))
    wide = (Limit(1000, 60 * SECOND),)
    kinds: dict[str, tuple[tuple[Limit, ...], ...]] = {
        "one limit": (one,),
        "two limits": (two,),
        "three limits": (three,),
        "mixed keys": (one, wide, two),
    }
    for count, (kind, limits) in product((1, 3, 10, 1000), kinds.items()):
        keys = [limits[number % len(limits)] for number in range(count)]
        calls = 5000 if count == 1000 else 700
        for latency, batches in product((10 * MILLISECOND, 300 * MILLISECOND, 3 * SECOND), (1, 100)):
            if calls // batches == 0:
                continue
            best = optimum(keys, calls, latency) if count < 1000 else optimum_alike(keys, calls, latency)
            ratio = makespan(keys, calls, latency, batches) / best
            worst = max(worst, (ratio, f"{count} keys, {kind}, {latency / 1e9:g} s, {batches} batches"))
    return worst


def optimum_alike(keys: list[tuple[Limit, ...]], calls: int, latency: int) -> int:
    """The same where there are many keys: none makes more than its share of a few rounds."""
    distinct = {limits: keys.count(limits) for limits in set(keys)}
    few = 40
    instants: list[int] = []
    for limits, count in distinct.items():
        own: list[int] = []
        for place in range(few):
            at = 0
            for limit in limits:
                if place >= limit.max:
                    at = max(at, own[place - limit.max] + limit.per + min(latency, JITTER))
            own.append(at)
        instants += own * count
    return sorted(instants)[calls - 1] + latency


async def against_the_judge() -> tuple[float, float, float, int]:
    """(makespan / 20.15 s, small batch / the 9.5 s until capacity next frees, worst window, rejected).

    5 keys x 100 per 10 s, answers after 10 to 50 ms: 1,500 calls at once; then the same with 10 more 0.5 s later.
    """
    large, _, worst, rejected = await _race(small_too=False)
    _, small, again, more = await _race(small_too=True)
    return large / 20.15, small / 9.5, max(worst, again), rejected + more


async def _race(small_too: bool) -> tuple[float, float, float, int]:
    limit = JudgeLimit(100, 10 * SECOND)
    keys = {f"key-{number}": f"bench-secret-{number}" for number in range(5)}
    options = JudgeOptions(keys, (limit,), latency_ns=(10 * MILLISECOND, 50 * MILLISECOND))
    with JudgeProcess(options) as judge:
        with ServedProcess(config_for(judge.url, (limit,), list(keys)), secrets_for(keys)) as served:
            async with Client(served.target) as client:
                await client.wait_ready()

                async def run(name: str, count: int, delay: float) -> float:
                    await asyncio.sleep(delay)
                    began = time.perf_counter()
                    async for _ in client.process([Call(f"/{name}/{number}") for number in range(count)]):
                        pass
                    return time.perf_counter() - began

                others = [run("small", 10, 0.5)] if small_too else []
                large, *small = await asyncio.gather(run("large", 1500, 0.0), *others)
        report = judge.report()
    return large, sum(small), report.worst, report.rejected


def assign_two_windows(keys: int, batches: int, permits: int = 20_000) -> float:
    """Microseconds of `assign` per permit with two windows and their pacers per key; on a running loop."""
    most = max(1_000, 2 * permits // keys)
    limits = (Limit(most, 60 * SECOND), Limit(10 * most, 3600 * SECOND))
    pool = Pool("default", tuple(Key(f"k{n}", "s", limits) for n in range(keys)), max_connections=100)
    scheduler = Scheduler(pool, AiolimiterPacer)
    for number in range(batches):
        scheduler.add(Batch(number + 1, f"caller-{number % 50}", permits // batches + 100, admitted_at=0))
    spent, done, now = 0.0, 0, 0
    while done < permits:
        now += 100_000
        start = time.perf_counter()
        out, _ = scheduler.assign(now)
        spent += time.perf_counter() - start
        for permit in out:
            scheduler.sent(permit, now)
        for permit in out:
            scheduler.settle(permit, now + 10_000, now + 5_000)
        done += len(out)
    return spent / permits * 1e6
