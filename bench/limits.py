"""Section limits: how near the scheduler comes to what limits allow, on virtual time and for real.

The batches against the judge are in section peers.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import product

from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.judge.limits import Limit as JudgeLimit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from bench.figures import Figure

JITTER = 250 * MILLISECOND
RUNS = 3


async def figures() -> list[Figure]:
    ratio, where = grid()
    shares, worsts = zip(*[await steady_use() for _ in range(RUNS)], strict=True)
    return [
        Figure("makespan / optimum, the worst of a grid on virtual time", [ratio], target=1.01, note=where),
        Figure("steady use of N / (T + latency)", shares, target=0.99, better="more"),
        Figure("worst window / limit while it binds", worsts, target=1.0, must=True),
    ]


def optimum(keys: list[tuple[Limit, ...]], calls: int, latency: int) -> int:
    """The shortest makespan (ns) that the limits allow, all calls being there at 0 and taking `latency`.

    A slot comes back T + min(latency, J) after it was sent. So the i-th permit of a key is at
    t(i) = max over its limits of t(i - N) + T + min(latency, J), and the last of all calls goes out at the calls-th
    smallest instant over all keys.
    """
    most = calls if len(keys) < 1000 else 40  # of so many keys none makes more than its share of a few rounds
    instants: list[int] = []
    for limits, count in Counter(keys).items():
        own: list[int] = []
        for place in range(most):
            room = (own[place - one.max] + one.per + min(latency, JITTER) for one in limits if place >= one.max)
            own.append(max(room, default=0))
        instants += own * count
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
            ratio = makespan(keys, calls, latency, batches) / optimum(keys, calls, latency)
            worst = max(worst, (ratio, f"{count} keys, {kind}, {latency / 1e9:g} s, {batches} batches"))
    return worst


async def steady_use() -> tuple[float, float]:
    """(share of N / (T + the mean latency seen) that was used while work waited, worst window / limit)."""
    limit, keys, cycles = JudgeLimit(100, SECOND), {"key-1": "bench-secret-1"}, 15
    options = JudgeOptions(keys, (limit,), latency_ns=(30 * MILLISECOND, 30 * MILLISECOND))
    with JudgeProcess(options) as judge:
        with ServedProcess(config_for(judge.url, (limit,), list(keys)), secrets_for(keys)) as served:
            async with Client(served.target) as client:
                stream = client.process([Call(f"/{number}") for number in range(100 * cycles)])
                results = [result async for result in stream]
        report = judge.report()
    times = [result.completed_at.timestamp() for result in results]
    latency = sum(result.latency for result in results) / len(results)
    elapsed = max(times) - min(times)
    return (cycles - 1) * (1 + latency) / elapsed, report.worst
