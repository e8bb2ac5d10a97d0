"""Start, serve, drain, stop.

Rule: health says SERVING once everything works and NOT_SERVING before anything stops. A drain goes: NOT_SERVING,
refuse new batches, let calls in flight finish (at most the grace), end the streams, stop the server, stop the
engine. The server object is held here: one that nobody refers to is collected and refuses connections.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from grpc_health.v1 import health_pb2_grpc

from apiflux_grpc.core.callers import Callers
from apiflux_grpc.core.units import format_address
from apiflux_grpc.server import reflection
from apiflux_grpc.server.admin import AdminService
from apiflux_grpc.server.administration import Administration
from apiflux_grpc.server.defaults import MOST_CONNECTIONS
from apiflux_grpc.server.door import Door
from apiflux_grpc.server.interceptors import CanonicalLine
from apiflux_grpc.server.transport import Transport
from apiflux_grpc.server.unknown import make_server
from apiflux_grpc.v1 import admin_pb2_grpc, apiflux_pb2_grpc

if TYPE_CHECKING:
    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.server.health import Health
    from apiflux_grpc.server.service import FluxService
    from apiflux_grpc.server.tls_files import Pair, TlsFiles

_log = logging.getLogger("apiflux.server")

# One connection can open so many streams at once; the next waits. More lets one client's resets starve others.
MAX_STREAMS: Final = 400
# Seconds between a client's pings of an idle connection. The third that comes sooner ends the connection (GOAWAY
# too_many_pings); grpc's default is 5 min. Clients may ping every 10 s, the least that Go's and Java's allow. Half of
# that, since pings that the network delayed arrive closer together than they were sent.
LEAST_PING_INTERVAL: Final = 5.0
NOBODY: Final = Callers()


HANDSHAKE_WITHIN: Final = 20.0  # seconds; grpc's default is two minutes
# Bits of grpc's enumeration of codings: identity, deflate, gzip.
_IDENTITY: Final = 1
_ALL_CODINGS: Final = 7


class PortInUse(OSError):
    """Somebody else listens on this address."""


class OtherPort(Protocol):
    """A port that this process serves beside gRPC's, over the same engine."""

    async def take(self, pair: Pair | None) -> None:
        """Take the address, for connections made with this; None: in plaintext. Raises PortInUse."""
        ...

    async def open(self) -> None:
        """Answer from now on. Raises PortInUse."""
        ...

    async def change(self, pair: Pair) -> None:
        """New connections are made with this, and those of peers that it doesn't trust end."""
        ...

    async def close(self, grace: float) -> None:
        """Stop; what was begun has `grace` seconds."""
        ...


class Server:
    """The gRPC server over an engine. `port` is the one it listens on, once started; `grace` is seconds.

    Without `callers` everybody who can connect may call. `tls` None: in plaintext. Raises BadFile.
    """

    def __init__(
        self,
        engine: Engine,
        service: FluxService,
        health: Health,
        *,
        host: str,
        port: int,
        max_batch_bytes: int,
        with_reflection: bool,
        shares_port: bool = False,
        grace: float,
        callers: Callers = NOBODY,
        open_health: bool = True,
        tls: TlsFiles | None = None,
        other: OtherPort | None = None,
        administration: Administration | None = None,
        max_connections: int = MOST_CONNECTIONS,
        compressed_requests: bool = False,
    ) -> None:
        self.engine = engine
        self.health = health
        self.host = host
        self.port = port
        self._grace = grace
        self._other = other
        self._administration = administration or Administration(engine)
        self.failed = False  # grpc's server ended by itself
        self.transport = Transport(tls)
        self._server = make_server(
            interceptors=[
                CanonicalLine(service.expect),
                *self.transport.interceptors,
                *([Door(callers, open_health=open_health)] if callers else []),
            ],
            options=[
                # A second server on the port must fail, not share it in silence; but workers do, and their supervisor
                # keeps others out.
                ("grpc.so_reuseport", int(shares_port)),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                # With it, streams that take the place of ones that just ended are refused (REFUSED_STREAM).
                ("grpc.http.overload_protection", 0),
                # Above our own maximum, so that a batch over it gets our error and not the transport's.
                ("grpc.max_receive_message_length", 2 * max_batch_bytes),
                ("grpc.max_send_message_length", -1),
                # One more is closed at once, and so is one that has said nothing for a while: each takes a file.
                ("grpc.max_allowed_incoming_connections", max_connections),
                ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_WITHIN * 1_000)),
                # What we don't ask for yet stays at a window of 64 KiB for each stream; it would grow to 8 MiB.
                ("grpc.http2.bdp_probe", 0),
                # A request may be a thousandth of what it decodes to, and nobody knows which before it is decoded.
                ("grpc.compression_enabled_algorithms_bitset", _ALL_CODINGS if compressed_requests else _IDENTITY),
                ("grpc.http2.min_ping_interval_without_data_ms", int(LEAST_PING_INTERVAL * 1_000)),
                ("grpc.keepalive_permit_without_calls", 1),
                *self.transport.options,
            ],
        )
        apiflux_pb2_grpc.add_FluxServiceServicer_to_server(service, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(engine, self._administration), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health.servicer, self._server)
        if with_reflection:
            reflection.enable(self._server)

    @property
    def address(self) -> str:
        """HOST:PORT, with brackets around an IPv6 host."""
        return format_address(self.host, self.port)

    async def start(self) -> None:
        """Listen, then start the engine; returns when health says SERVING. Raises PortInUse, EngineFailed."""
        try:
            self.port = self.transport.add_port(self._server, self.address)
        except RuntimeError as error:
            raise PortInUse(f"can't listen on {self.address}; is another program using it?") from error
        if self._other is not None:
            await self._other.take(self.transport.pair)
        await self.health.set(False)
        await self.engine.start()
        await self._administration.begin()
        await self._server.start()
        self.transport.follow(None if self._other is None else self._other.change)
        await self.health.set(True)
        if self._other is not None:
            await self._other.open()

    async def stop(self) -> None:
        """Drain, then stop. At most the grace and a few seconds."""
        await self.health.drain()
        if self.engine.failure is None:
            self.engine.drain(int(self._grace * 1e9))
            idle = await self.engine.wait_idle(self._grace + 2)
            if not idle:
                _log.warning("some batches did not end within the grace of %.0f s", self._grace)
        # The last messages of the streams are on their way; a reader that stalls is cut.
        await asyncio.gather(self._server.stop(2.0), *([] if self._other is None else [self._other.close(2.0)]))
        await self.transport.close()
        await self._administration.close()
        await self.engine.stop()

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, or the engine or grpc's server ended by itself, then stop."""
        asked = asyncio.ensure_future(stop.wait())
        ended = asyncio.ensure_future(self._server.wait_for_termination())
        waits = [asked, ended, asyncio.ensure_future(self.engine.down.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not asked.done():
            _log.critical("grpc's server ended by itself")
            self.failed = True
        for wait in waits:
            if wait is not ended:  # cancelling that would cancel what grpc's own stop waits for
                wait.cancel()
        await self.stop()
