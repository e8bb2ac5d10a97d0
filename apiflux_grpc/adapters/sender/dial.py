"""Opens the connections of one origin: name, address, TLS.

Rule: a dial that fails says so in words of ours. A system's or a library's own text may hold more than one wants to
show; an errno and an exception's class can't.

All who dial at a time share one look-up of the name. Not known here: exchanges, who uses a connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final

from aiohappyeyeballs import start_connection

from apiflux_grpc.adapters.sender.idle import longest_lately
from apiflux_grpc.adapters.sender.short import is_short
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohappyeyeballs import AddrInfoType

    from apiflux_grpc.adapters.sender.connection import Connection
    from apiflux_grpc.engine.ports import Clock

NAMES_KEPT: Final = 10 * SECOND  # how long a looked-up address is used: a pool that grows asks once, and not per dial
EYEBALLS_DELAY: Final = 0.25  # seconds until the next address is tried as well, RFC 8305, section 8


class NotConnected(Exception):
    """There is no connection; the text is safe to show. `is_short`: no file was free for it."""

    def __init__(self, words: str, *, is_short: bool = False) -> None:
        super().__init__(words)
        self.is_short = is_short


class Dialer:
    """Dials `host`:`port`, with TLS unless `tls` is None. `timeout` (ns): for name, connection and handshake together.

    `longest` is how long connecting took at most lately (ns), fading; 0: never connected.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, timeout: int, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._timeout = timeout / SECOND
        self._clock = clock
        self._lookup: asyncio.Future[list[AddrInfoType]] | None = None
        self._lookup_until = 0
        self.longest = 0

    async def dial(self, make: Callable[[socket.socket], Connection]) -> Connection:
        """A connection that can be written on. Raises NotConnected."""
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            # One bound for all three: an upstream that takes the connection and then says nothing in the handshake is
            # as unreachable as one that swallows the SYN.
            async with asyncio.timeout(self._timeout):
                addresses = await self._resolve()
                start = self._clock()
                # Not left to the loop: uvloop's create_connection has no happy_eyeballs_delay.
                sock = await start_connection(addresses, happy_eyeballs_delay=EYEBALLS_DELAY, loop=loop)
                self.longest = longest_lately(self.longest, self._clock() - start)
                connection = made = make(sock)
                await loop.create_connection(lambda: made, sock=sock)
                if self._tls is not None:
                    await made.greet(self._tls, self._host)
                return made
        except BaseException as error:  # a cancel too: an open socket would be left to the collector
            if connection is not None:
                connection.give_up()
            if not isinstance(error, OSError | ValueError):  # a ValueError: a host name that IDNA can't encode
                raise
            self._lookup_until = 0  # the host may have moved
            raise NotConnected(words_for(error), is_short=is_short(error)) from error

    async def _resolve(self) -> list[AddrInfoType]:
        """The addresses; asked once for all who dial at a time. Raises OSError."""
        if self._lookup is None or (self._lookup.done() and self._clock() >= self._lookup_until):
            loop = asyncio.get_running_loop()
            self._lookup = loop.create_task(loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
            # If everybody who waited is gone, nobody takes its exception, and asyncio would log that.
            self._lookup.add_done_callback(lambda lookup: lookup.cancelled() or lookup.exception())
            self._lookup_until = self._clock() + NAMES_KEPT
        return await asyncio.shield(self._lookup)  # one who is cancelled must not end it for the others

    async def close(self) -> None:
        """End a look-up that nobody waits for any more."""
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.gather(self._lookup, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<Dialer of {self._host}:{self._port}>"


# The first class that fits; {why} is what the system says of the errno.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (socket.gaierror, "the host name was not found"),
    (ssl.SSLCertVerificationError, "the TLS certificate is not trusted: {verify}"),
    (ssl.CertificateError, "the TLS certificate is not trusted"),
    (ssl.SSLError, "the TLS handshake failed"),
    (TimeoutError, "connecting took too long"),
    (OSError, "can't connect: {why}"),
)


def words_for(error: BaseException) -> str:
    """What to say of an error while connecting."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number).lower() if number else "unknown reason"
            return words.format(why=why, verify=getattr(error, "verify_message", ""))
    return type(error).__name__
