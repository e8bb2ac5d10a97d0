"""Section waiting: what an engine costs that has nothing to do but wait.

Rule: CPU time of the engine's thread alone, while every window is spent and every batch waits. Each second
brings every open batch its estimate, and a snapshot. The readers' side is the server's loop, and isn't counted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.bootstrap import loop_factory
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.errors import EngineFailed
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.engine.ticket import Ticket
from bench.figures import Figure

CALLS = 1_000  # of a batch
CALLERS = 50
SPAN, SPANS = 3, 4  # seconds of a sample, and samples
TIERS = 3  # of keys with different limits
CASES = ((3, 1_000, 100), (1_000, 50, 1_000))  # keys, calls that the least of them may make in 100 s, batches
# Answers come over ten seconds, so that what a window gets back comes at many instants, from 90 s later on.
LATENCY = (0, 10 * SECOND)


async def figures() -> list[Figure]:
    return [
        Figure(
            "an engine that waits, of one core",
            await share(keys, room, batches),
            "%",
            2.0,
            case=f"{keys:,} keys, {batches:,} batches of {CALLS:,}",
        )
        for keys, room, batches in CASES
    ]


async def share(keys: int, room: int, batches: int) -> list[float]:
    """Percent of a core over some spans, once what the limits allow has been done."""
    rooms = [room * (1 + number % TIERS) for number in range(keys)]
    own = tuple(Key(f"k{number}", "s", _limits(most)) for number, most in enumerate(rooms))
    pool = Pool("default", own, max_connections=sum(rooms))
    parts = PoolParts(pool, lambda: SimulatedUpstream(LATENCY), AiolimiterPacer)
    engine = Engine([parts], LogObserver(), loop_factory=loop_factory())
    await engine.start()
    try:
        specs = [
            BatchSpec("default", f"caller-{number % CALLERS}", [Call()] * CALLS, RetryPolicy(), size=CALLS)
            for number in range(batches)
        ]
        tickets = [engine.submit(spec) for spec in specs]
        arrived = asyncio.Semaphore(0)  # one for each result
        readers = [asyncio.ensure_future(_read(ticket, arrived)) for ticket in tickets]
        for _ in range(sum(rooms)):
            await arrived.acquire()
        samples = []
        for _ in range(SPANS):
            before, start = _engine_cpu(), time.perf_counter()
            await asyncio.sleep(SPAN)
            samples.append(100 * (_engine_cpu() - before) / (time.perf_counter() - start))
        if any(ticket.is_over for ticket in tickets):
            raise RuntimeError("the engine had no more to wait for")
    finally:
        await engine.stop()
    await asyncio.gather(*readers)
    return samples


def _limits(room: int) -> tuple[Limit, ...]:
    return Limit(room, 100 * SECOND), Limit(20 * room, 3600 * SECOND), Limit(200 * room, 24 * 3600 * SECOND)


async def _read(ticket: Ticket, arrived: asyncio.Semaphore) -> None:
    with suppress(EngineFailed):  # it is stopped while the batch waits
        while (message := await ticket.next(100)).over is None:
            ticket.credit(len(message.items), message.size)
            for _ in message.items:
                arrived.release()


def _engine_cpu() -> float:
    """Seconds of CPU that the engine's thread has had."""
    (thread,) = (one for one in threading.enumerate() if one.name == "apiflux-engine")
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
