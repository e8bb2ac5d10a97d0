"""Section memory: a stream of a million calls on both sides, a million queued calls, an idle connection.

Rule: memory is what a process grew by. Where it is our own process it is a fresh one each time.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import psutil

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.bootstrap import loop_factory
from apiflux_grpc.client import Client
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.server.checking import Checking
from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.cpu import SIMULATOR
from bench.figures import Figure
from bench.sender import KEYS, Driver, certificate

BATCH = 20_000
RUNS = 3


async def figures() -> list[Figure]:
    ratios, servers, clients = zip(*[afresh(long_stream) for _ in range(RUNS)], strict=True)
    queued, pauses = zip(*[afresh(million_queued) for _ in range(RUNS)], strict=True)
    found = [
        Figure("throughput, one stream of 1,000,000 calls / batches of 20,000", ratios, target=0.7, better="more"),
        Figure("growth over that stream", servers, "MB", 150, case="the server"),
        Figure("growth over that stream", clients, "MB", 150, case="its client"),
        Figure("1,000,000 queued calls", queued, "MB", 400),
        Figure("longest pause of the collector meanwhile", pauses, "ms", 50),
    ]
    for case, tls, target in (("plain", False, 10), ("TLS", True, 70)):
        samples = [afresh(partial(idle_memory, tls))[0] for _ in range(RUNS)]
        found.append(Figure("an idle connection", samples, "KB", target, case=case))
    return found


Measure = Callable[[], Coroutine[Any, Any, tuple[float, ...]]]


def afresh(measure: Measure) -> tuple[float, ...]:
    """What it measures in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run, measure).result()


def _run(measure: Measure) -> tuple[float, ...]:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(measure())


def _calls(count: int) -> Iterator[pb.Call]:
    for number in range(count):
        yield pb.Call(id=f"c{number}", path=f"/v1/things/{number}")


async def long_stream(total: int = 1_000_000) -> tuple[float, float, float]:
    """(throughput of one stream / of batches one after the other, MB that the server grew, MB that we grew)."""
    with ServedProcess(SIMULATOR, {}) as served:
        process, own = psutil.Process(served.pid), psutil.Process()
        async with Client(served.target) as client:
            await _batches(client, 2)
            start = time.perf_counter()
            await _batches(client, 10)
            batches = 10 * BATCH / (time.perf_counter() - start)
            server_before, own_before = process.memory_info().rss, own.memory_info().rss
            server_most, own_most = server_before, own_before
            start = time.perf_counter()
            done = 0
            async for message in client.process_stream(_calls(total)).raw():
                done += len(message.results)
                if done % 50_000 < len(message.results):
                    server_most = max(server_most, process.memory_info().rss)
                    own_most = max(own_most, own.memory_info().rss)
            stream = total / (time.perf_counter() - start)
    if done != total:
        raise RuntimeError(f"{done} results of {total}")
    return stream / batches, (server_most - server_before) / 1e6, (own_most - own_before) / 1e6


async def _batches(client: Client, count: int) -> None:
    for _ in range(count):
        done = 0
        async for message in client.send(pb.ProcessRequest(calls=_calls(BATCH))).raw():
            done += len(message.results)
        if done != BATCH:
            raise RuntimeError(f"{done} results of {BATCH}")


async def million_queued() -> tuple[float, float]:
    """(MB of RSS above idle, longest pause of the collector in ms) with 100 batches of 10,000 calls queued."""
    pool = Pool("default", (Key("key-1", "s", (Limit(1, 3600 * SECOND),)),))
    engine = Engine([PoolParts(pool, lambda: SimulatedUpstream((SECOND, SECOND)), None)], LogObserver())
    await engine.start()
    gc.collect()
    gc.freeze()
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
    await engine.stop()
    return (queued - idle) / 1e6, max(pauses) * 1000


async def idle_memory(tls: bool, connections: int = 400) -> tuple[float]:
    """KB of RSS per idle connection of our sender."""
    latency = 500 * MILLISECOND
    with certificate() as (cert, key):
        files = (cert, key) if tls else (None, None)
        options = JudgeOptions(KEYS, latency_ns=(latency, latency), tls_cert=files[0], tls_key=files[1])
        with JudgeProcess(options) as judge:
            upstream = HttpUpstream(HttpSettings(base_url=judge.url, ca_file=files[0]))
            process = psutil.Process()
            driver = Driver(upstream, connections)
            await driver.run([Call(path="/first")])
            before = process.memory_info().rss
            await driver.run([Call(path=f"/{number}") for number in range(connections)])
            after = process.memory_info().rss
            await upstream.close()
    return ((after - before) / connections / 1000,)
