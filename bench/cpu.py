"""Section cpu: what a call costs the processor, from the decision alone up to the whole server.

Rule: microseconds per call. The server is compared with a bare aiohttp loop that does the same work against the same
judge, turn by turn.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import psutil

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.client import Client
from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.engine.ports import Attempt, Upstream
from apiflux_grpc.judge.limits import Limit as JudgeLimit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.figures import Figure
from bench.sender import bare_loop, certificate

CALLS = 20_000
AT_ONCE = 200
RUNS = 3
KEYS = {"key-1": "bench-secret-1", "key-2": "bench-secret-2"}
WIDE = JudgeLimit(1_000_000, 60 * SECOND)
SIMULATOR = """
[pools.default]
limits = [{ max = 10000000, per = "60s" }]
simulator = { latency = ["0ms", "0ms"] }
[[pools.default.keys]]
label = "a"
secret = "bench-a"
[[pools.default.keys]]
label = "b"
secret = "bench-b"
"""


async def figures() -> list[Figure]:
    found = decisions()
    found += await without_network()
    for tls in (False, True):
        found += await against_a_bare_loop(tls)
    return found


# -- the decision --------------------------------------------------------------------------------


def decisions() -> list[Figure]:
    """`assign` alone, per permit."""
    kinds = (
        ("assign, one window", 1, False, 3.0),
        ("assign, one window and its pacer", 1, True, 5.0),
        ("assign, two windows and their pacers", 2, True, 8.0),
    )
    found = []
    gc.disable()
    for name, windows, paced, target in kinds:
        for keys in (10, 1_000, 10_000):
            samples = [assign_cost(keys, windows, paced) for _ in range(RUNS)]
            found.append(Figure(name, samples, "us", target, case=f"{keys:,} keys"))
    for batches in (100, 10_000):
        samples = [assign_cost(1_000, 2, True, batches) for _ in range(RUNS)]
        found.append(Figure(kinds[-1][0], samples, "us", 8.0, case=f"1,000 keys, {batches:,} batches"))
    gc.enable()
    return found


def assign_cost(keys: int, windows: int, paced: bool, batches: int = 1, permits: int = 40_000) -> float:
    """Microseconds of `assign` per permit, 100 calls in flight; on a running loop."""
    most = max(1_000, 2 * permits // keys)
    limits = (Limit(most, 60 * SECOND), Limit(10 * most, 3600 * SECOND))[:windows]
    pool = Pool("default", tuple(Key(f"k{n}", "s", limits) for n in range(keys)), max_connections=100)
    scheduler = Scheduler(pool, AiolimiterPacer if paced else None)
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


# -- without a network ---------------------------------------------------------------------------


async def without_network() -> list[Figure]:
    """The engine alone, and the served service on its simulator."""
    found = []
    for case, make in (("a callback per call", SimulatedUpstream), ("a task per call", TaskUpstream)):
        found.append(Figure("engine alone", [await engine_alone(make) for _ in range(RUNS)], "us", case=case))
    with ServedProcess(SIMULATOR, {}) as served:
        repeat = [pb.ProcessRequest(repeat=pb.RepeatedCall(count=CALLS))]
        await through(served, repeat)
        costs = [await through(served, repeat) for _ in range(RUNS)]
    turns = [await bare_sleep() for _ in range(RUNS)]
    found.append(Figure("service on its simulator", costs, "us", 15.0))
    ratios = [cost / turn for cost, turn in zip(costs, turns, strict=True)]
    found.append(Figure("the same / one turn of a bare `await sleep(0)` loop", ratios))
    return found


async def engine_alone(make_upstream: Callable[[], Upstream], calls: int = 50_000) -> float:
    """Microseconds of CPU per call of the engine alone, 200 at once."""
    keys = tuple(Key(label, "s", (Limit(1_000_000, 60 * SECOND),)) for label in KEYS)
    pool = Pool("default", keys, max_connections=AT_ONCE)
    engine = Engine([PoolParts(pool, make_upstream, AiolimiterPacer)], LogObserver())
    await engine.start(own_thread=False)
    ticket = engine.submit(BatchSpec("default", "caller", [Call()] * calls, RetryPolicy(), size=calls))
    start = time.process_time()
    over = None
    while over is None:
        message = await ticket.next(100)
        ticket.credit(len(message.items), message.size)
        over = message.over
    spent = time.process_time() - start
    await engine.stop()
    return spent / calls * 1e6


class TaskUpstream:
    """What an upstream costs that makes a task of each attempt; otherwise it does nothing."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, attempt: Attempt) -> None:
        task = asyncio.get_running_loop().create_task(self._run(attempt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        attempt.sent(time.monotonic_ns())
        await asyncio.sleep(0)
        attempt.done(Answer(200, NO_HEADERS, b"", time.monotonic_ns()))

    def cancel(self, attempt: Attempt) -> None:
        """Never asked for here."""

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        """Nothing is open."""


async def bare_sleep(turns: int = 100_000) -> float:
    """Microseconds of CPU of one turn of a bare `await sleep(0)` loop."""
    start = time.process_time()
    for _ in range(turns):
        await asyncio.sleep(0)
    return (time.process_time() - start) / turns * 1e6


# -- over the network ----------------------------------------------------------------------------


async def through(served: ServedProcess, requests: list[pb.ProcessRequest]) -> float:
    """Microseconds of the server's CPU per call for these batches at once."""
    process = psutil.Process(served.pid)

    async def one(client: Client, request: pb.ProcessRequest) -> int:
        count = 0
        async for message in client.send(request).raw():
            count += sum(1 for result in message.results if result.response.status_code == 200)
        return count

    async with Client(served.target) as client:
        before = process.cpu_times()
        done = sum(await asyncio.gather(*(one(client, request) for request in requests)))
        after = process.cpu_times()
    if done != CALLS:
        raise RuntimeError(f"{done} of {CALLS} calls succeeded")
    return (after.user + after.system - before.user - before.system) / CALLS * 1e6


def batches(name: str, streams: int) -> list[pb.ProcessRequest]:
    each = CALLS // streams
    return [
        pb.ProcessRequest(calls=[pb.Call(path=f"/{name}/{stream}/{number}") for number in range(each)])
        for stream in range(streams)
    ]


async def against_a_bare_loop(tls: bool) -> list[Figure]:
    """The server's CPU per call, its client not included."""
    with certificate() as (cert, cert_key):
        files = (cert, cert_key) if tls else (None, None)
        with JudgeProcess(JudgeOptions(KEYS, (WIDE,), tls_cert=files[0], tls_key=files[1])) as judge:
            extra = f"max_connections = {AT_ONCE}" + (f'\nca_file = "{cert}"' if tls else "")
            config = config_for(judge.url, (WIDE,), list(KEYS), extra)
            with ServedProcess(config, secrets_for(KEYS)) as served:
                bare, single, many = [], [], []
                for run in range(RUNS):
                    seconds = await bare_loop(judge.url, CALLS, AT_ONCE, cert if tls else None, f"bare-{run}")
                    bare.append(seconds / CALLS * 1e6)
                    single.append(await through(served, batches(f"one-{run}", 1)) / bare[-1])
                    many.append(await through(served, batches(f"many-{run}", 100)) / bare[-1])
            report = judge.report()
    kind = "TLS" if tls else "plain"
    return [
        Figure("bare aiohttp loop", bare, "us", case=kind),
        Figure("server / bare loop, one batch", single, target=0.45 if tls else 0.36, case=kind),
        Figure("server / bare loop, 100 streams", many, target=None if tls else 0.55, case=kind),
        Figure(
            "what the judge found wrong", [len(report.violations) + report.rejected], target=0, case=kind, must=True
        ),
    ]
