"""Section workers: calls per second of two workers, against one process.

Rule: both are up all the time and are asked turn by turn, by the same client on as many connections, which each worker
has the same number of. The client takes messages as bytes: it has to share the machine's cores with what it measures.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psutil

from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from bench.figures import Figure

PAIRS, CONNECTIONS, CALLS = 7, 4, 20_000
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
POOL = """
[server]
workers = {workers}
[pools.default]
limits = [{limits}]
simulator = {{ latency = ["0ms", "0ms"] }}
[[pools.default.keys]]
label = "a"
secret = "bench-a"
[[pools.default.keys]]
label = "b"
secret = "bench-b"
"""
CASES = {"no limits": "", "a shared budget": '{ max = 100000000, per = "60s" }'}


async def figures() -> list[Figure]:
    found = []
    for case, limits in CASES.items():
        runs: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        async with AsyncExitStack() as stack:
            sides = {}
            for workers in runs:
                served = stack.enter_context(ServedProcess(POOL.format(workers=workers, limits=limits), {}))
                sides[workers] = served, await evenly(stack, served.target, workers)
                await measured(*sides[workers])
            for turn in range(PAIRS):
                for workers in (1, 2) if turn % 2 else (2, 1):
                    runs[workers].append(await measured(*sides[workers]))
        pairs = list(zip(runs[1], runs[2], strict=True))
        found += [
            Figure("one process", [rate for rate, _ in runs[1]], "calls/s", case=case),
            Figure("two workers", [rate for rate, _ in runs[2]], "calls/s", case=case),
            Figure("two workers / one process", [two[0] / one[0] for one, two in pairs], case=case),
            Figure("CPU per call, two workers / one process", [two[1] / one[1] for one, two in pairs], case=case),
        ]
    return found


async def evenly(stack: AsyncExitStack, target: str, workers: int) -> list[grpc.aio.Channel]:
    """So many connections that each worker has the same number of them."""
    found: dict[int, list[grpc.aio.Channel]] = {}
    each = CONNECTIONS // workers
    while len(found) < workers or any(len(channels) < each for channels in found.values()):
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OWN_CONNECTION))
        info = await apiflux_pb2_grpc.FluxServiceStub(channel).GetInfo(pb.GetInfoRequest())
        found.setdefault(info.worker, []).append(channel)
    return [channel for channels in found.values() for channel in channels[:each]]


async def measured(served: ServedProcess, channels: list[grpc.aio.Channel]) -> tuple[float, float]:
    """Calls per second of one batch on each connection, and the server's CPU seconds per call."""
    start, before = time.perf_counter(), cpu_of(served)
    done = sum(await asyncio.gather(*map(through, channels)))
    return done / (time.perf_counter() - start), (cpu_of(served) - before) / done


def cpu_of(served: ServedProcess) -> float:
    """Seconds so far, of all its processes."""
    supervisor = psutil.Process(served.pid)
    times = [process.cpu_times() for process in (supervisor, *supervisor.children())]
    return sum(each.user + each.system for each in times)


async def through(channel: grpc.aio.Channel) -> int:
    """The calls of one batch. Raises RuntimeError if not all succeeded."""
    request = pb.ProcessRequest(repeat=pb.RepeatedCall(count=CALLS)).SerializeToString()
    process: Any = channel.unary_stream("/apiflux.v1.FluxService/Process")  # without serializers: bytes
    last = b""
    async for message in process(request):
        last = message
    done = pb.ProcessResponse.FromString(last).summary.succeeded
    if done != CALLS:
        raise RuntimeError(f"{done} of {CALLS} calls succeeded")
    return int(done)
