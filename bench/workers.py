"""Section workers: calls per second of two workers, against one process.

Rule: both are up all the time and are asked turn by turn, by the same client on as many connections, which each worker
has the same number of. The client takes messages as bytes: it has to share the machine's cores with what it measures,
and its part of them is told.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import grpc
import psutil

from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from bench.figures import Figure

PAIRS, CONNECTIONS, CALLS = 5, 4, 20_000
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
POOL = """
[server]
workers = {workers}
{state}
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
LIMIT = '{ max = 100000000, per = "60s" }'
# Limits, and whether a single process keeps its budgets in a file too, as workers always do.
CASES = {
    "no limits": ("", False),
    "budgets in a file, of one process in memory": (LIMIT, False),
    "budgets in a file": (LIMIT, True),
}


class Run(NamedTuple):
    """Calls per second, the server's CPU seconds per call, and the client's part of one core meanwhile."""

    rate: float
    spent: float
    client: float


async def figures() -> list[Figure]:
    found = []
    for case, (limits, kept) in CASES.items():
        runs: dict[int, list[Run]] = {1: [], 2: []}
        async with AsyncExitStack() as stack:
            sides = {}
            for workers in runs:
                state = f'state_dir = "{stack.enter_context(TemporaryDirectory())}"' if kept else ""
                text = POOL.format(workers=workers, limits=limits, state=state)
                served = stack.enter_context(ServedProcess(text, {}))
                sides[workers] = served, await evenly(stack, served.target, workers)
                await measured(*sides[workers])
            for turn in range(PAIRS):
                for workers in (1, 2) if turn % 2 else (2, 1):
                    runs[workers].append(await measured(*sides[workers]))
        pairs = list(zip(runs[1], runs[2], strict=True))
        found += [
            Figure("one process", [one.rate for one in runs[1]], "calls/s", case=case),
            Figure("two workers", [two.rate for two in runs[2]], "calls/s", case=case),
            Figure("two workers / one process", [two.rate / one.rate for one, two in pairs], case=case),
            Figure("CPU per call, two workers / one process", [two.spent / one.spent for one, two in pairs], case=case),
            Figure("the client beside two workers, of one core", [100 * two.client for two in runs[2]], "%", case=case),
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


async def measured(served: ServedProcess, channels: list[grpc.aio.Channel]) -> Run:
    """One batch on each connection."""
    start, before, own = time.perf_counter(), cpu_of(served), time.process_time()
    done = sum(await asyncio.gather(*map(through, channels)))
    seconds = time.perf_counter() - start
    return Run(done / seconds, (cpu_of(served) - before) / done, (time.process_time() - own) / seconds)


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
