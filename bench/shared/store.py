"""Section store: what a shared budget asks of its store, and what that costs the first result.

Rules
- A round trip is a read of Redis' socket: an exchange sends the rounds of all keys that need one together, so it is one
  or, if it is large, a few. What Redis does for a call is the time that it says its script took.
- The wait is compared turn by turn: each turn asks servers that differ in nothing but where their budgets are, one
  after the other, in changing order. The key is idle before, so each call needs a lease of its own, which is
  the most that a store can add; or it is at work, and there is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, cast

from apiflux_grpc.charts import quantile
from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.units import MILLISECOND, SECOND, format_duration
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from bench.figures import Figure
from bench.shared.house import check, config, over, redis, valid, worst
from tests.adapters.lease_redis.servers import RedisServer

KEYS: Final = {f"key-{number}": f"bench-secret-{number}" for number in range(1, 11)}
LATENCY: Final = (10 * MILLISECOND, 50 * MILLISECOND)
RUNS: Final = 2
MET: Final = 3.0  # seconds until replicas that began at once have heard of each other
# All share this machine, which delays an arrival by more than a network does.
JITTER: Final = 1.0  # seconds
EXTRA: Final = f'max_connections = 200\narrival_jitter = "{JITTER:g}s"'


class Load(NamedTuple):
    """So many calls with ten keys of this limit, by so many replicas."""

    replicas: int
    limit: Limit
    calls: int

    @property
    def case(self) -> str:
        limit = f"{self.limit.max:,} per {format_duration(self.limit.per_ns)}"
        return f"{self.replicas} replicas, {len(KEYS)} keys of {limit}"


LOADS: Final = (
    Load(2, Limit(150, SECOND), 6_000),
    Load(8, Limit(150, SECOND), 6_000),
    Load(8, Limit(500, 5 * SECOND), 12_000),
    Load(2, Limit(6_000, 60 * SECOND), 12_000),
)

TURNS, ROUNDS = 200, 3
PAUSE: Final = 0.005  # seconds between calls; an idle key gives back what it has left within that
WIDE: Final = Limit(100_000, 10 * SECOND)


async def figures() -> list[Figure]:
    found = []
    for load in LOADS:
        found += await traffic(load)
    for busy in (False, True):
        found += await waits(busy=busy)
    return found


# -- what the store is asked ----------------------------------------------------------------------


class Asked(NamedTuple):
    """Of one call: calls per second, round trips, rounds of a key, and microseconds of Redis' time."""

    rate: float
    trips: float
    rounds: float
    spent: float
    worst: float


async def traffic(load: Load) -> list[Figure]:
    runs = [await valid(lambda: asked(load)) for _ in range(RUNS)]
    rates, trips, rounds, spent, full = map(list, zip(*runs, strict=True))
    return [
        Figure("calls", rates, "/s", case=load.case),
        Figure("round trips per call", trips, target=0.1, case=load.case),
        Figure("rounds of a key per call", rounds, case=load.case),
        Figure("Redis' time per call", spent, "us", case=load.case),
        worst(full, load.case),
    ]


async def asked(load: Load) -> Asked:
    """What the replicas ask of their Redis while they make these calls. Raises Void."""
    options = JudgeOptions(KEYS, (load.limit,), latency_ns=LATENCY)
    async with AsyncExitStack() as stack:
        judge, store = stack.enter_context(JudgeProcess(options)), stack.enter_context(redis())
        text = config(judge.url, (load.limit,), KEYS, over(store.url), EXTRA)
        starts = [
            asyncio.to_thread(stack.enter_context, ServedProcess(text, secrets_for(KEYS))) for _ in range(load.replicas)
        ]
        servers = await asyncio.gather(*starts)
        client = await stack.enter_async_context(Client([one.target for one in servers]))
        await asyncio.sleep(MET)
        judge.reset()  # it was late while so many servers began
        before, start = _told(store), time.perf_counter()
        calls = [Call(f"/{number}") for number in range(load.calls)]
        answered = sum([result.ok async for result in client.process_stream(calls, resume=True)])
        seconds, after = time.perf_counter() - start, _told(store)
        report = judge.report()
    check(report, answered, JITTER)
    trips, rounds, spent = (now - then for now, then in zip(after, before, strict=True))
    trips -= 1  # the question itself
    return Asked(answered / seconds, trips / answered, rounds / answered, spent / answered, report.worst)


def _told(store: RedisServer) -> tuple[int, int, int]:
    """Reads of sockets, runs of the script, and microseconds of those, so far."""
    info = cast("Mapping[str, Any]", store.client.info("everything"))
    scripts = [info.get(f"cmdstat_{name}", {"calls": 0, "usec": 0}) for name in ("evalsha", "eval")]
    return info["total_reads_processed"], sum(one["calls"] for one in scripts), sum(one["usec"] for one in scripts)


# -- what it adds to the first result -------------------------------------------------------------


async def waits(*, busy: bool) -> list[Figure]:
    async with _sides() as (judge, sides):
        others = [asyncio.ensure_future(_work(client)) for client in sides.values() if busy]
        await asyncio.sleep(1)
        found: dict[str, list[list[float]]] = {name: [] for name in sides}
        for _ in range(ROUNDS):
            times = await _turns(sides)
            for name in sides:
                found[name].append(times[name])
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        report = judge.report()
    check(report, report.arrivals, JITTER)
    case = "the key is at work" if busy else "the key is idle"
    figures = [
        Figure(
            f"first result, {part}, in memory",
            [quantile(times, share) * 1000 for times in found["memory"]],
            "ms",
            case=case,
        )
        for part, share in (("p50", 0.5), ("p99", 0.99))
    ]
    for name in ("SQLite", "Redis"):
        for part, share in (("p50", 0.5), ("p99", 0.99)):
            added = [
                (quantile(with_store, share) - quantile(without, share)) * 1000
                for with_store, without in zip(found[name], found["memory"], strict=True)
            ]
            figures.append(Figure(f"added by {name}, {part}", added, "ms", case=case))
    return [*figures, worst([report.worst], case)]


@asynccontextmanager
async def _sides() -> AsyncIterator[tuple[JudgeProcess, dict[str, Client]]]:
    """A judge, and a client of each of three servers, by where its budgets are. Each has a key of its own."""
    names = ("memory", "SQLite", "Redis")
    keys = dict([*KEYS.items()][: len(names)])
    with ExitStack() as stack, TemporaryDirectory() as folder:
        judge = stack.enter_context(JudgeProcess(JudgeOptions(keys, (WIDE,))))
        heads = {
            "memory": "",
            "SQLite": f'[server]\nstate_dir = "{folder}"',
            "Redis": over(stack.enter_context(redis()).url),
        }
        async with AsyncExitStack() as clients:
            sides = {}
            for name, (label, secret) in zip(names, keys.items(), strict=True):
                own = {label: secret}
                served = stack.enter_context(
                    ServedProcess(config(judge.url, (WIDE,), own, heads[name], EXTRA), secrets_for(own))
                )
                sides[name] = await clients.enter_async_context(Client(served.target))
            await asyncio.sleep(MET)
            yield judge, sides


async def _turns(sides: Mapping[str, Client]) -> dict[str, list[float]]:
    """Seconds until the only result of a batch came, of each side in turn."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    order: Sequence[str] = list(sides)
    for turn in range(TURNS):
        for name in order if turn % 2 else reversed(order):
            start = time.perf_counter()
            async for result in sides[name].process([Call(f"/{name}/{time.monotonic_ns()}")]):
                found[name].append(time.perf_counter() - start)
                if not result.ok:
                    raise RuntimeError(f"{name}: {result.failure}")
            await asyncio.sleep(PAUSE)
    return found


async def _work(client: Client) -> None:
    """Other calls, about 100 a second."""
    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(_one(client))
            await asyncio.sleep(0.01)


async def _one(client: Client) -> None:
    async for _ in client.process([Call(f"/busy/{time.monotonic_ns()}")]):
        pass
