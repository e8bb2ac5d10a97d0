"""A server in this process, for tests: one pool, one key, a simulated upstream unless told otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.model import SECOND, Key, Limit, Pool
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.ports import Upstream
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.health import Health
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.server.service import FluxService

OPTIONS = [("grpc.enable_http_proxy", 0)]
WIDE = (Limit(10_000_000, SECOND),)


@asynccontextmanager
async def serving(
    latency: int = 0,
    *,
    limits: Sequence[Limit] = WIDE,
    bounds: Bounds | None = None,
    defaults: Defaults | None = None,
    service: type[FluxService] = FluxService,
    make_upstream: Callable[[], Upstream] | None = None,
    port: int = 0,
    with_reflection: bool = True,
    grace: float = 1.0,
) -> AsyncIterator[Server]:
    """`latency` is the simulator's, ns."""
    pool = Pool("default", (Key("key-1", "canary-9d1", tuple(limits)),), allow_repeat=True)
    health = Health()
    parts = PoolParts(pool, make_upstream or (lambda: SimulatedUpstream((latency, latency))), None)
    engine = Engine([parts], LogObserver(), bounds=bounds, on_health=health.change)
    defaults = defaults or Defaults()
    server = Server(
        engine,
        service(engine, defaults),
        health,
        host="127.0.0.1",
        port=port,
        max_batch_bytes=defaults.max_batch_bytes,
        with_reflection=with_reflection,
        grace=grace,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
