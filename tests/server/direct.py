"""The service without gRPC, on one loop and virtual time: for what depends on time alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.testing import SilentObserver, loop_clock
from apiflux_grpc.v1 import apiflux_pb2 as pb


class Context:
    """What the service asks of an RPC's context. `timeout` is seconds; while `stalled`, no write returns."""

    def __init__(self, timeout: float | None = None) -> None:
        self.written: list[pb.ProcessResponse] = []
        self.stalled = False
        self._timeout = timeout

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return self._timeout

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        pass

    async def write(self, message: pb.ProcessResponse) -> None:
        if self.stalled:
            await asyncio.Event().wait()
        self.written.append(message)

    @property
    def results(self) -> list[pb.CallResult]:
        return [result for message in self.written for result in message.results]


class Direct:
    """A service, and its engine."""

    def __init__(self, engine: Engine, defaults: Defaults) -> None:
        self.engine = engine
        self._service = FluxService(engine, defaults)

    async def process(self, calls: int, context: Context | None = None) -> list[pb.CallResult]:
        """The results of a repeated call. Raises what the service raises."""
        context = context or Context()
        await self._service.Process(pb.ProcessRequest(repeat=pb.RepeatedCall(count=calls)), context)
        return context.results

    async def stream(self, messages: Any, context: Context | None = None) -> list[pb.CallResult]:
        """The results of a ProcessStream of these messages."""
        context = context or Context()
        await self._service.ProcessStream(messages, context)
        return context.results

    async def estimate(self, calls: int) -> pb.EstimateResponse:
        return await self._service.Estimate(pb.EstimateRequest(calls=calls), Context())

    async def info(self) -> pb.GetInfoResponse:
        return await self._service.GetInfo(pb.GetInfoRequest(), Context())


@asynccontextmanager
async def direct(
    *limits: Limit, latency: int = 0, jitter: int = 0, defaults: Defaults | None = None
) -> AsyncIterator[Direct]:
    """A service over a simulated upstream; `latency` and `jitter` are ns."""
    pool = Pool("default", (Key("key-1", "secret", limits),), arrival_jitter=jitter, allow_repeat=True)
    parts = PoolParts(pool, lambda: SimulatedUpstream((latency, latency), clock=loop_clock), None)
    engine = Engine([parts], SilentObserver(), clock=loop_clock)
    await engine.start(own_thread=False)
    try:
        yield Direct(engine, defaults or Defaults())
    finally:
        await engine.stop()
