"""Section load: how long a health check and the first result wait while 100 streams keep the server busy."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.client import Client
from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.cpu import KEYS, WIDE
from bench.figures import Figure

STREAMS, CALLS, RUNS = 100, 200, 3


async def figures() -> list[Figure]:
    healths, firsts, bursts = zip(*[await under_load() for _ in range(RUNS)], strict=True)
    return [
        Figure("health check, p99 with 500 calls in flight", healths, "ms", 50),
        Figure("first result, p99 with 500 calls in flight", firsts, "ms", 150),
        Figure("first result, p99 of 100 batches in one instant", bursts, "ms"),
    ]


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


async def under_load(rounds: int = 4) -> tuple[float, float, float]:
    """(health p99 ms, first result p99 ms, the same of the opening burst). Raises RuntimeError where the judge objects.

    100 streams run batch after batch, with 500 calls in flight; the server has one core, judge and client the
    other. The opening burst, 100 batches in one instant, is told apart: much of it is the client's own work.
    """
    os.sched_setaffinity(0, {1})
    options = JudgeOptions(KEYS, (WIDE,), latency_ns=(MILLISECOND, 5 * MILLISECOND))
    healths: list[float] = []
    bursts: list[float] = []
    firsts: list[float] = []
    with JudgeProcess(options, cpu=1) as judge:
        config = config_for(judge.url, (WIDE,), list(KEYS), "max_connections = 500")
        with ServedProcess(config, secrets_for(KEYS), cpu=0) as served:
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
    return p99(healths) * 1000, p99(firsts) * 1000, p99(bursts) * 1000


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
