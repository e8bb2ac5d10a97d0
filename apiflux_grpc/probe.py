"""`apiflux check-config --probe`: one real call with each key.

Rule: the calls go the way that every call goes, through checks, engine and upstream, with a pool of its own for each
key so that each gets exactly one. What a server that runs meanwhile has spent isn't known here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server.checking import Checking
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.batches import PoolParts
    from apiflux_grpc.engine.messages import BatchSpec
    from apiflux_grpc.engine.ports import Clock


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of the one call with a key. `latency` is seconds."""

    pool: str
    key: str
    ok: bool
    what: str
    latency: float
    is_no_such_path: bool = False


async def probe(parts: Sequence[PoolParts], path: str, clock: Clock = time.monotonic_ns) -> list[Probed]:
    """`GET path` with every key of these pools, all at once. `clock` is that of their upstreams.

    Raises InvalidRequest if a pool doesn't take that path.
    """
    alone: list[PoolParts] = []
    specs: list[BatchSpec] = []
    for part in parts:
        request = pb.ProcessRequest(calls=[pb.Call(path=path)])
        checking = Checking(request, part.pool, "probe", default_repeat=1, max_calls=1, max_bytes=1 << 20)
        for _ in checking.slices():
            pass
        once = RetryPolicy(max_attempts=1, reasons=frozenset())
        for key in part.pool.keys:
            name = f"{part.pool.name}/{key.label}"
            alone.append(replace(part, pool=replace(part.pool, name=name, keys=(key,), groups=(), retry=once)))
            specs.append(replace(checking.spec(), pool=name, retry=once))
    engine = Engine(alone, LogObserver(), clock=clock)
    await engine.start(own_thread=False)
    try:
        results = await asyncio.gather(*(_result(engine, spec) for spec in specs))
    finally:
        await engine.stop()
    owners = [(part.pool.name, key.label) for part in parts for key in part.pool.keys]
    return [_told(pool, key, result) for (pool, key), result in zip(owners, results, strict=True)]


async def _result(engine: Engine, spec: BatchSpec) -> Result:
    ticket = engine.submit(spec)
    while not (items := (await ticket.next(1)).items):
        pass  # news of the batch's standing
    return items[0]


def _told(pool: str, key: str, result: Result) -> Probed:
    outcome = result.outcome
    if isinstance(outcome, Answer):
        what = f"HTTP {outcome.status}" + (", its body cut" if outcome.fault else "")
        if result.failure is not None and outcome.fault is None and outcome.status < 300:
            what += f", {result.failure.value}"  # a rule of the pool says so
    else:
        what = "never sent" if outcome is None else outcome.detail
    is_no_such_path = isinstance(outcome, Answer) and outcome.status in (404, 405)
    return Probed(pool, key, result.failure is None, what, result.latency / 1e9, is_no_such_path)
