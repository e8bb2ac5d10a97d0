"""A server in this process, for tests: one pool, one key, a simulated upstream unless told otherwise.

One takes some 10 ms to start and stop, so each test has its own. What depends on time doesn't belong here but in
direct.py, on virtual time; what must stay in flight waits in a `Held` upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.client import Client
from apiflux_grpc.core.callers import Caller, Callers, Issuer
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.ports import Attempt, Upstream
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.health import Health
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.server.tls_files import TlsFiles
from apiflux_grpc.testing import FakeUpstream
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

OPTIONS = [("grpc.enable_http_proxy", 0)]
WIDE = (Limit(10_000_000, SECOND),)
SERVING = health_pb2.HealthCheckResponse.SERVING


class Held(FakeUpstream):
    """Answers nothing until `release`, and everything from then on. The engine's loop owns it; `release` is for any."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._released = False

    def begin(self, attempt: Attempt) -> None:
        super().begin(attempt)
        self._loop = asyncio.get_running_loop()
        self.send(attempt)
        if self._released:
            self._loop.call_soon(self._answer_all)

    def release(self) -> None:
        self._released = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._answer_all)

    def release_one(self) -> None:
        """Answer the oldest of those that are open."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: self.answer(self.open[0]))

    def _answer_all(self) -> None:
        for attempt in list(self.open):
            self.answer(attempt)


class Bulky:
    """Answers at once, each time with a body of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._body = bytes(size)

    def begin(self, attempt: Attempt) -> None:
        asyncio.get_running_loop().call_soon(self._answer, attempt)

    def _answer(self, attempt: Attempt) -> None:
        now = attempt.permit.taken_at
        attempt.sent(now)
        attempt.done(Answer(200, NO_HEADERS, self._body, now))

    def cancel(self, attempt: Attempt) -> None:
        """It is answered in the same pass."""

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        pass


@asynccontextmanager
async def serving(
    latency: int = 0,
    *,
    pools: Sequence[str] = ("default",),
    limits: Sequence[Limit] = WIDE,
    bounds: Bounds | None = None,
    defaults: Defaults | None = None,
    service: type[FluxService] = FluxService,
    upstream: Upstream | None = None,
    port: int = 0,
    with_reflection: bool = True,
    grace: float = 1.0,
    compressed_requests: bool = False,
    max_connections: int = 100,
    callers: Sequence[Caller] = (),
    issuer: Issuer | None = None,
    open_health: bool = True,
    tls: TlsFiles | None = None,
) -> AsyncIterator[Server]:
    """`upstream` None: one that answers after `latency` ns."""
    keys = (Key("key-1", "canary-9d1", tuple(limits)),)
    health = Health()
    parts = [
        PoolParts(
            Pool(name, keys, allow_repeat=True),
            lambda: SimulatedUpstream((latency, latency)) if upstream is None else upstream,
            None,
        )
        for name in pools
    ]
    engine = Engine(parts, LogObserver(), bounds=bounds, on_health=health.change)
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
        compressed_requests=compressed_requests,
        max_connections=max_connections,
        callers=Callers(callers, issuer),
        open_health=open_health,
        tls=tls,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def connected(server: Server, *options: tuple[str, int | str]) -> grpc.aio.Channel:
    """A bare channel, for what our client doesn't do."""
    return grpc.aio.insecure_channel(server.address, options=[*OPTIONS, *options])


def stub_of(channel: grpc.aio.Channel) -> Any:
    return apiflux_pb2_grpc.FluxServiceStub(channel)


def repeated(count: int, *, ordered: bool = False) -> pb.ProcessRequest:
    return pb.ProcessRequest(repeat=pb.RepeatedCall(count=count), ordered=ordered)


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own timeout is the bound."""
    while not condition():  # noqa: ASYNC110  # of another loop, or of gRPC: nothing there sets an event
        await asyncio.sleep(0.002)


async def settled(value: Callable[[], int], client: Client) -> int:
    """Wait until `value` is the same for 10 round trips to the server, and give it."""
    same, last = 0, value()
    while same < 10:
        await client.info()
        same, last = (same + 1 if value() == last else 0), value()
    return last
