"""A server in this process with an operations port, for tests; what must stay in flight waits in a `Held` upstream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.callers import Callers
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.ports import Upstream
from apiflux_grpc.ops.handling import Handling
from apiflux_grpc.ops.port import OpsPort
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.health import Health
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.server.tls_files import TlsFiles
from tests.server.serving import WIDE

SECRET = "canary-9d1"
NOBODY = Callers()


@dataclass
class Served:
    """`url` is the operations port's, `http` a client of it that follows and decodes nothing."""

    server: Server
    port: OpsPort
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http{'' if self.server.transport.pair is None else 's'}://{self.port.address}"

    async def post(self, body: Any, **headers: str) -> aiohttp.ClientResponse:
        """POST /process; what isn't bytes is sent as JSON. The answer is there whole."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(
            f"{self.url}/process", data=data, headers={"Content-Type": "application/json", **headers}
        ) as answer:
            await answer.read()
        return answer

    async def get(self, path: str, method: str = "GET", **headers: str) -> aiohttp.ClientResponse:
        async with self.http.request(method, f"{self.url}{path}", headers=headers) as answer:
            await answer.read()
        return answer

    @asynccontextmanager
    async def raw(self, data: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection, to which these bytes were written."""
        reader, writer = await asyncio.open_connection(self.port.host, self.port.port)
        try:
            writer.write(data)
            await writer.drain()
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def ops_served(
    *,
    upstream: Upstream | None = None,
    limits: Sequence[Limit] = WIDE,
    bounds: Bounds | None = None,
    defaults: Defaults | None = None,
    callers: Callers = NOBODY,
    open_health: bool = True,
    names: Sequence[str] = (),
    host: str = "127.0.0.1",
    grace: float = 1.0,
    tls: TlsFiles | None = None,
    **more: Any,
) -> AsyncIterator[Served]:
    """`more` is of the port."""
    health = Health(["default"])
    pool = Pool("default", (Key("key-1", SECRET, tuple(limits)),), allow_repeat=True)
    parts = PoolParts(pool, lambda: SimulatedUpstream((0, 0)) if upstream is None else upstream, None)
    engine = Engine([parts], LogObserver(), bounds=bounds, on_health=health.change, on_pool=health.change_pool)
    defaults = defaults or Defaults()
    service = FluxService(engine, defaults)
    handling = Handling(
        engine,
        service,
        health,
        callers=callers,
        open_health=open_health,
        asks_certificates=tls is not None and tls.client_ca_file is not None,
        names=names,
        max_calls=defaults.max_batch_calls,
        most=2 * defaults.max_batch_bytes,
    )
    port = OpsPort(handling, host, 0, files=tls, **more)
    server = Server(
        engine,
        service,
        health,
        host="127.0.0.1",
        port=0,
        max_batch_bytes=defaults.max_batch_bytes,
        with_reflection=False,
        grace=grace,
        callers=callers,
        tls=tls,
        other=port,
    )
    await server.start()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as http:
            yield Served(server, port, http)
    finally:
        await server.stop()


async def lines_of(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await answer.text()).splitlines()]


async def read_into(lines: list[dict[str, Any]], answer: aiohttp.ClientResponse) -> None:
    """The lines as they come, those before a cut included."""
    async for line in answer.content:
        lines.append(json.loads(line))  # noqa: PERF401  # a comprehension would lose all of them


async def problem_in(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem; it has the members that RFC 9457 names, and no answer of this port tells what serves it."""
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Server"] == "apiflux"
    told: dict[str, Any] = json.loads(await answer.text())
    assert (told["status"], told["title"]) == (answer.status, answer.reason)
    return told
