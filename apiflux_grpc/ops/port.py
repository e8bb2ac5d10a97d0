"""Where the operations port listens, and for how long.

Rule: the address is taken before the engine starts, so that a port in use ends the start at once; requests are answered
only once gRPC serves, and until the last batch is over, for probes must hear of a drain. It lives on the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from apiflux_grpc.core.units import format_address
from apiflux_grpc.ops.connections import HEAD_WITHIN, MOST_CONNECTIONS, Connections
from apiflux_grpc.ops.tls import context_of
from apiflux_grpc.server.lifecycle import PortInUse

if TYPE_CHECKING:
    import ssl

    from apiflux_grpc.ops.handling import Handling
    from apiflux_grpc.server.tls_files import Pair, TlsFiles

_log = logging.getLogger("apiflux.ops")

WILDCARDS: Final = ("0.0.0.0", "::")


class OpsPort:
    """`host` has no brackets; `port` is the one it listens on, once it does. `files`: of TLS, if there is any.

    `head_within` is seconds, those of a handshake too.
    """

    def __init__(
        self,
        handling: Handling,
        host: str,
        port: int,
        *,
        shares_port: bool = False,
        files: TlsFiles | None = None,
        head_within: float = HEAD_WITHIN,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self.host = host
        self.port = port
        self._handling = handling
        self._shares_port = shares_port
        self._files = files
        self._head_within = head_within
        self._most_connections = most_connections
        self._pair: Pair | None = None
        self._connections: Connections | None = None
        self._contexts: WeakSet[ssl.SSLContext] = WeakSet()  # that connections were made with, or are being made
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    @property
    def address(self) -> str:
        """HOST:PORT, with brackets around an IPv6 host."""
        return format_address(self.host, self.port)

    @property
    def connections(self) -> int:
        """How many are open."""
        return 0 if self._connections is None else len(self._connections.connections)

    async def take(self, pair: Pair | None) -> None:
        """Take the address, without listening yet. Raises PortInUse."""
        self._pair = pair
        try:
            self._sockets = await _bound(self.host, self.port, self._shares_port)
        except OSError as error:
            raise self._in_use() from error
        self.port = self._sockets[0].getsockname()[1]

    async def open(self) -> None:
        """Answer from now on. Raises PortInUse: somebody who had taken the address too was faster."""
        self._connections = Connections(
            self._handling.handle, most=self._most_connections, head_within=self._head_within
        )
        try:
            self._servers = await self._listening(self._pair)
        except OSError as error:
            raise self._in_use() from error
        _log.info("operations port", extra={"address": self.address})

    async def change(self, pair: Pair) -> None:
        """New connections are made with this. Those that had shown a certificate end once an authority was removed."""
        earlier = [*self._contexts]
        try:
            servers = await self._listening(pair)
        except OSError as error:  # changed again meanwhile: the next look tells
            _log.warning("TLS files can't be used at the operations port: %s", error)
            return
        before, self._pair = self._pair, pair
        for server in self._servers:
            server.close()
        self._servers = servers
        if before is None or self._connections is None or set(before.client_ca) <= set(pair.client_ca):
            return
        for context in earlier:
            self._connections.distrust(context)

    async def close(self, grace: float) -> None:
        """Let answers that were begun end for `grace` seconds, then cut them."""
        for server in self._servers:
            server.close()
        for one in self._sockets:
            one.close()
        if self._connections is not None:
            self._connections.pre_shutdown()  # else it waits for idle connections too
            await self._connections.shutdown(grace)

    async def _listening(self, pair: Pair | None) -> list[asyncio.Server]:
        """On each socket, with what connections are made with. It is the socket that has the queue of new ones."""
        assert self._connections is not None
        more: dict[str, Any] = {}
        if pair is not None and self._files is not None:
            context = await asyncio.to_thread(context_of, self._files, pair)
            self._contexts.add(context)
            more = {"ssl": context, "ssl_handshake_timeout": self._head_within}
        loop = asyncio.get_running_loop()
        return [await loop.create_server(self._connections, sock=one.dup(), **more) for one in self._sockets]

    def _in_use(self) -> PortInUse:
        return PortInUse(f"can't listen on {self.address}; is another program using it?")


async def _bound(host: str, port: int, shares_port: bool) -> list[socket.socket]:
    """A socket for each address of the host, with the same port. Raises OSError."""
    if host in WILDCARDS and socket.has_dualstack_ipv6():
        # Either wildcard is that of both families, as it is for gRPC.
        found = [(socket.AF_INET6, "::")]
    else:
        addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = [(family, str(address[0])) for family, _, _, _, address in addresses]
    sockets: list[socket.socket] = []
    with ExitStack() as failed:
        for family, address in dict.fromkeys(found):
            one = failed.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier server may linger
            if shares_port:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((address, port))
            port = one.getsockname()[1]
            sockets.append(one)
        failed.pop_all()
    return sockets
