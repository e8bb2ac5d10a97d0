"""How connections are made: in plaintext, or by TLS whose files may change while the server serves.

Rule: whatever changes, open streams go on, but for those of a peer that isn't trusted any more (peers.py). grpc for
Python can't close one connection; so if clients show certificates, each connection is closed after an hour once its
streams have ended. A client connects anew without noticing, and is judged by the certificates of then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.server.certificates import LOOK_EVERY, Certificates
from apiflux_grpc.server.peers import Peers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc

    from apiflux_grpc.server.tls_files import Pair, TlsFiles

_log = logging.getLogger("apiflux.server")

CONNECTION_AGE: Final = 3600.0  # seconds; grpc takes a tenth more or less, so that not all connect anew together
# How long streams may go on then, in ms: for ever. It means that to grpc, and less would cut healthy ones.
_GRACE: Final = (1 << 31) - 1


class Transport:
    """Of one port. `files` None: plaintext. Raises BadFile."""

    def __init__(self, files: TlsFiles | None) -> None:
        self._certificates = None if files is None else Certificates(files)
        self._peers: Peers | None = None
        self._following: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()  # one at a time
        self._tell: Callable[[Pair], Awaitable[None]] | None = None
        if self._certificates is not None and self._certificates.pair.client_ca:
            self._peers = Peers(self._certificates.pair.client_ca)

    @property
    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """What has to be asked about each RPC."""
        return [] if self._peers is None else [self._peers]

    @property
    def options(self) -> list[tuple[str, Any]]:
        """Of the server."""
        if self._peers is None:
            return []
        return [
            ("grpc.max_connection_age_ms", int(CONNECTION_AGE * 1_000)),
            ("grpc.max_connection_age_grace_ms", _GRACE),
        ]

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Returns the port. Raises RuntimeError if it can't be had."""
        if self._certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificates.credentials())

    @property
    def pair(self) -> Pair | None:
        """What connections are made with now; None: plaintext."""
        return None if self._certificates is None else self._certificates.pair

    def follow(self, tell: Callable[[Pair], Awaitable[None]] | None = None) -> None:
        """Look at the files from now on, until `close`. `tell` is told of each change that counts."""
        self._tell = tell
        if self._certificates is not None:
            self._following = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """The server has stopped."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def look(self) -> None:
        """At the files, now. What has changed counts once it is the same at the next look."""
        if self._certificates is None:
            return
        async with self._looking:
            pair = await asyncio.to_thread(self._certificates.look)
        if pair is None:
            return
        if self._peers is not None and (ended := self._peers.trust(pair.client_ca)):
            _log.warning("clients no longer trusted", extra={"requests": ended})
        if self._tell is not None:
            await self._tell(pair)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except Exception:  # whatever a disk can do: the server goes on, and looks again
                _log.exception("can't look at the TLS files")
