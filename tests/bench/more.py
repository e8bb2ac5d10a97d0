"""The figures that need a set-up of their own: latency under load, a million queued calls, steady use."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.client import Call as ClientCall
from apiflux_grpc.client import Client
from apiflux_grpc.core.model import SECOND, Answer, Call, Key, Limit, Pool, RetryPolicy
from apiflux_grpc.engine.intake import BatchSpec
from apiflux_grpc.engine.ports import Attempt, Upstream
from apiflux_grpc.engine.runtime import Engine, PoolParts
from apiflux_grpc.server.wire import Checking
from apiflux_grpc.tools.judge import JudgeOptions, JudgeProcess
from apiflux_grpc.tools.ledger import Limit as JudgeLimit
from apiflux_grpc.tools.stress import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb

KEYS = {"key-1": "bench-secret-1", "key-2": "bench-secret-2"}
STREAMS, CALLS = 100, 200


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


async def under_load(rounds: int = 4) -> tuple[float, float, float, float]:
    """(health p99 ms, first result p99 ms, the same of the opening burst, worst window / limit).

    100 streams run batch after batch, with 500 calls in flight; the server has one core, judge and client the
    other. The opening burst, 100 batches in one instant, is told apart: much of it is the client's own work.
    """
    limit = JudgeLimit(1_000_000, 60 * SECOND)
    os.sched_setaffinity(0, {1})
    options = JudgeOptions(KEYS, (limit,), latency_ns=(1_000_000, 5_000_000))
    config = config_for("{url}", (limit,), list(KEYS), "max_connections = 500")
    healths: list[float] = []
    bursts: list[float] = []
    firsts: list[float] = []
    with JudgeProcess(options, cpu=1) as judge:
        with ServedProcess(config.replace("{url}", judge.url), secrets_for(KEYS), cpu=0) as served:
            async with (
                Client(served.target) as client,
                grpc.aio.insecure_channel(served.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
            ):
                watch = asyncio.create_task(_watch_health(channel, healths))
                work = [[_request(number, stream) for number in range(rounds)] for stream in range(STREAMS)]
                await asyncio.gather(*(_stream(client, requests, bursts, firsts) for requests in work))
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
        report = judge.report()
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    if not report.ok or report.accepted != rounds * STREAMS * CALLS:
        raise RuntimeError(f"the judge: {report.violations}, {report.accepted} calls")
    return p99(healths) * 1000, p99(firsts) * 1000, p99(bursts) * 1000, report.worst


def _request(number: int, stream: int) -> pb.ProcessRequest:
    return pb.ProcessRequest(calls=[pb.Call(path=f"/{number}/{stream}/{place}") for place in range(CALLS)])


async def _stream(client: Client, requests: list[pb.ProcessRequest], bursts: list[float], firsts: list[float]) -> None:
    for place, request in enumerate(requests):
        await _one(client, request, firsts if place else bursts)


async def _one(client: Client, request: pb.ProcessRequest, firsts: list[float]) -> None:
    start = time.perf_counter()
    first = True
    async for _ in client.send(request).raw():
        if first:
            firsts.append(time.perf_counter() - start)
            first = False


async def _watch_health(channel: grpc.aio.Channel, healths: list[float]) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    while True:
        start = time.perf_counter()
        await health.Check(health_pb2.HealthCheckRequest())
        healths.append(time.perf_counter() - start)
        await asyncio.sleep(0.01)


async def million_queued() -> tuple[float, float]:
    """(MB of RSS above idle, longest pause of the collector in ms) with 100 batches of 10,000 calls queued."""
    pool = Pool("default", (Key("key-1", "s", (Limit(1, 3600 * SECOND),)),))
    engine = Engine([PoolParts(pool, lambda: SimulatedUpstream((SECOND, SECOND)), None)], LogObserver())
    await engine.start()
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    pauses: list[float] = []
    started = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - started)

    idle = psutil.Process().memory_info().rss
    gc.callbacks.append(watch)
    tickets = []
    for batch in range(100):
        calls = [pb.Call(id=f"{batch}-{place}", path=f"/v1/things/{batch}/{place}") for place in range(10_000)]
        sent = pb.ProcessRequest(calls=calls).SerializeToString()
        del calls
        request = pb.ProcessRequest.FromString(sent)
        checking = Checking(request, pool, "c", default_repeat=1, max_calls=50_000, max_bytes=32 << 20)
        for _ in checking.slices():
            pass
        tickets.append(engine.submit(checking.spec()))
        del checking, request, sent
        await asyncio.sleep(0)
    gc.collect()
    gc.callbacks.remove(watch)
    queued = psutil.Process().memory_info().rss
    gc.set_threshold(*before)
    await engine.stop()
    return (queued - idle) / 1e6, max(pauses) * 1000


async def steady_use() -> tuple[float, float]:
    """(share of N / (T + the mean latency seen) that was used while work waited, worst window / limit)."""
    limit = JudgeLimit(100, SECOND)
    cycles = 15
    options = JudgeOptions({"key-1": "bench-secret-1"}, (limit,), latency_ns=(30_000_000, 30_000_000))
    with JudgeProcess(options) as judge:
        keys = {"key-1": "bench-secret-1"}
        with ServedProcess(config_for(judge.url, (limit,), ["key-1"]), secrets_for(keys)) as served:
            async with Client(served.target) as client:
                stream = client.process([ClientCall(f"/{number}") for number in range(100 * cycles)])
                results = [result async for result in stream]
        report = judge.report()
    times = [result.completed_at.timestamp() for result in results]
    latency = sum(result.latency for result in results) / len(results)
    elapsed = max(times) - min(times)
    return (cycles - 1) * (1 + latency) / elapsed, report.worst


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
        attempt.done(Answer(200, {}, b"", time.monotonic_ns()))

    def cancel(self, attempt: Attempt) -> None:
        """Never asked for here."""

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        """Nothing is open."""


async def engine_alone(make_upstream: Callable[[], Upstream], calls: int = 50_000) -> float:
    """Microseconds of CPU per call of the engine alone, 200 at once."""
    keys = tuple(Key(f"key-{number}", "s", (Limit(1_000_000, 60 * SECOND),)) for number in range(2))
    pool = Pool("default", keys, max_connections=200)
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
