"""Where the operations port listens, and for how long.

Rule: the address is taken before the engine starts, so that a port in use ends the start at once; requests are answered
only once gRPC serves, and until the last batch is over, for probes must hear of a drain. It lives on the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import format_address
from apiflux_grpc.ops.connections import Connections
from apiflux_grpc.server.lifecycle import PortInUse

if TYPE_CHECKING:
    from apiflux_grpc.ops.handling import Handling

_log = logging.getLogger("apiflux.ops")

WILDCARDS: Final = ("0.0.0.0", "::")


class OpsPort:
    """`host` has no brackets; `port` is the one it listens on, once it does."""

    def __init__(self, handling: Handling, host: str, port: int, *, shares_port: bool = False) -> None:
        self.host = host
        self.port = port
        self._handling = handling
        self._shares_port = shares_port
        self._connections: Connections | None = None
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, with brackets around an IPv6 host."""
        return format_address(self.host, self.port)

    async def take(self) -> None:
        """Take the address, without listening yet. Raises PortInUse."""
        loop = asyncio.get_running_loop()
        self._connections = Connections(self._handling.handle)
        try:
            if self.host in WILDCARDS and socket.has_dualstack_ipv6():
                # Either wildcard is that of both families, as it is for gRPC.
                both = _both(self.port, self._shares_port)
                self._server = await loop.create_server(self._connections, sock=both, start_serving=False)
            else:
                self._server = await loop.create_server(
                    self._connections,
                    self.host,
                    self.port,
                    reuse_port=self._shares_port,  # else a second server would share it in silence
                    start_serving=False,
                )
        except OSError as error:
            raise self._in_use() from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def open(self) -> None:
        """Answer from now on. Raises PortInUse: somebody who had taken the address too was faster."""
        assert self._server is not None
        try:
            await self._server.start_serving()
        except OSError as error:
            raise self._in_use() from error
        _log.info("operations port", extra={"address": self.address})

    async def close(self, grace: float) -> None:
        """Let answers that were begun end for `grace` seconds, then cut them."""
        if self._server is not None:
            self._server.close()
        if self._connections is not None:
            self._connections.pre_shutdown()  # else it waits for idle connections too
            await self._connections.shutdown(grace)

    def _in_use(self) -> PortInUse:
        return PortInUse(f"can't listen on {self.address}; is another program using it?")


def _both(port: int, shares_port: bool) -> socket.socket:
    one = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("::", port))
    except OSError:
        one.close()
        raise
    return one
