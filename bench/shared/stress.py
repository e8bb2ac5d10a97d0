"""Section stress: the requests of `apiflux stress --full`, scaled down, over four replicas and against one process.

Rule: the two run at once, each with a judge of its own that speaks OpenAI's API and counts tokens. What is scaled:

- A request has 100 calls instead of 2,000, a twentieth. There are 100 requests at once, as there are in full.
- Limits are those of 20 s instead of a minute, so that the windows come three times as fast, and answers take a third
  of the time. `arrival_jitter` stays what it is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from apiflux_grpc.client import Client
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.stress.calls import calls_of
from apiflux_grpc.stress.options import FULL, SECRETS
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.figures import Figure
from bench.shared.house import check, config, over, redis, valid, worst

API: Final = "openai"
JITTER: Final = 1.0  # seconds, as `apiflux stress` has it
EXTRA: Final = f'preset = "{API}"\narrival_jitter = "{JITTER:g}s"'
REPLICAS: Final = 4
REQUESTS, CALLS = FULL.requests, FULL.calls // 20
FASTER: Final = 3
LIMITS: Final = tuple(limit._replace(per_ns=limit.per_ns // FASTER) for limit in FULL.limits)
LATENCY: Final = (FULL.latency_ns[0] // FASTER, FULL.latency_ns[1] // FASTER)
MET: Final = 3.0  # seconds until replicas that began at once have heard of each other


class Done(NamedTuple):
    """Seconds, the fullest window over its limit, and what was refused."""

    makespan: float
    worst: float
    rejected: int


async def figures() -> list[Figure]:
    alone, together = await valid(both)
    case = f"{REQUESTS} requests of {CALLS} calls"
    return [
        Figure("one process", [alone.makespan], "s", case=case),
        Figure("four replicas / one process", [together.makespan / alone.makespan], case=case),
        worst([alone.worst], "one process"),
        worst([together.worst], "four replicas"),
        Figure("429s", [alone.rejected, together.rejected], target=0, must=True),
    ]


async def both() -> tuple[Done, Done]:
    """What one process came to, and what the replicas did. Raises Void."""
    async with AsyncExitStack() as stack:
        sides = []
        for replicas in (0, REPLICAS):
            options = JudgeOptions(SECRETS, LIMITS, speak=API, latency_ns=LATENCY)
            judge = stack.enter_context(JudgeProcess(options))
            head = over(stack.enter_context(redis()).url) if replicas else ""
            text = config(judge.url, LIMITS, SECRETS, head, EXTRA)
            clients = []
            for _ in range(replicas or 1):
                served = stack.enter_context(ServedProcess(text, secrets_for(SECRETS)))
                clients.append(await stack.enter_async_context(Client(served.target)))
            sides.append((judge, clients))
        await asyncio.sleep(MET)
        # Half a window apart: their bursts don't meet.
        alone, together = await asyncio.gather(
            *(run(place * LIMITS[0].per_ns / SECOND / 2, *side) for place, side in enumerate(sides))
        )
    return alone, together


async def run(wait: float, judge: JudgeProcess, clients: Sequence[Client]) -> Done:
    """All requests, each to the next server. Raises Void, and RuntimeError if a call failed."""
    await asyncio.sleep(wait)
    await asyncio.to_thread(judge.reset)  # it was late while the servers began
    requests = [pb.ProcessRequest(calls=calls_of(number, CALLS)) for number in range(REQUESTS)]
    start = time.perf_counter()
    answered = await asyncio.gather(
        *(one(clients[number % len(clients)], request) for number, request in enumerate(requests))
    )
    makespan = time.perf_counter() - start
    report = await asyncio.to_thread(judge.report)
    check(report, REQUESTS * CALLS, JITTER)
    if sum(answered) != REQUESTS * CALLS:
        raise RuntimeError(f"{sum(answered)} calls were answered")
    return Done(makespan, report.worst, report.rejected)


async def one(client: Client, request: pb.ProcessRequest) -> int:
    """How many of its calls were answered with 200."""
    count = 0
    async for message in client.send(request).raw():
        count += sum(result.response.status_code == 200 for result in message.results)
    return count
