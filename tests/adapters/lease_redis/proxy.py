"""A proxy between a replica and its Redis, with what networks do: delay, cut, say nothing any more.

Rule: bytes pass in their order, unchanged. What a fault holds back isn't sent later, as after a broken link.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on `port` for as long as the `async with` block lasts. `tls`: how it speaks with clients, if encrypted.

    `delay`: for how many seconds bytes are on their way, in each direction. `silent`: the link is half open: nothing
    passes, and nobody is told; `deaf`: so it is for what the server says. `refuses`: new connections end at once.
    `taken` counts the connections so far, `ended` those of them that are over.
    """

    def __init__(self, upstream: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.delay = 0.0
        self.silent = False
        self.deaf = False
        self.refuses = False
        self.taken = 0
        self.ended = 0
        self.passed = asyncio.Event()  # set by bytes of a client; a test clears it
        self._tls = tls
        self._ends: set[End] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: End(self, None), "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuses = True
        self._server.close()
        while self._ends:
            self.cut()
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Every connection ends. New ones are taken, unless it `refuses`."""
        for end in self._ends:
            end.transport.abort()

    def made(self, end: End) -> None:
        self._ends.add(end)
        if end.other is None:
            self.taken += 1
            end.dialing = asyncio.ensure_future(self._dial(end))
        if self.refuses:
            end.transport.abort()

    async def _dial(self, end: End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: End(self, end), "127.0.0.1", self.upstream)
        except OSError:
            end.transport.abort()

    def lost(self, end: End) -> None:
        self._ends.discard(end)
        self.ended += end.dialing is not None
        if end.other is not None and not self.silent:
            end.other.transport.close()


class End(asyncio.Protocol):
    """One of the two connections of a link; `other` is the second."""

    def __init__(self, proxy: Proxy, other: End | None) -> None:
        self.proxy = proxy
        self.other = other
        self.dialing: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport
        self._early: list[bytes] = []  # before the other was connected
        self._free_at = 0.0  # when the last bytes are through

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.proxy.made(self)
        if self.other is not None:
            self.other.join(self)

    def join(self, other: End) -> None:
        """The other is connected."""
        self.other = other
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.dialing is not None:
            self.proxy.passed.set()
        if self.proxy.silent or (self.proxy.deaf and self.dialing is None):
            return
        if self.other is None:
            self._early.append(data)
        else:
            loop = asyncio.get_running_loop()
            self._free_at = max(self._free_at, loop.time() + self.proxy.delay)
            if self._free_at <= loop.time():
                self.other.transport.write(data)
            else:
                loop.call_at(self._free_at, self._pass, self.other, data)

    def _pass(self, other: End, data: bytes) -> None:
        if not self.proxy.silent and not other.transport.is_closing():
            other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.lost(self)
