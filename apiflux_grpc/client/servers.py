"""The connections of the asynchronous client to its servers, one channel each.

Rule: as client/roster.py, whose turn it is being one that is connected.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from apiflux_grpc.client.errors import ApifluxError, DeadlineExceeded, Unavailable, error_from, silent
from apiflux_grpc.client.roster import Link, Places, Roster
from apiflux_grpc.client.same_pool import SamePool
from apiflux_grpc.client.targets import resolved
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from apiflux_grpc.client.channel import Options
    from apiflux_grpc.client.roster import News
    from apiflux_grpc.client.tls import TlsOptions
    from apiflux_grpc.client.token import Tokens


OTHERS: Final = 2.0  # seconds that others have once one has answered
ADMITTED: Final = 10.0  # seconds that a server has to tell its pool
T = TypeVar("T")


Server = Link[grpc.aio.Channel]


class Servers(Roster[Server]):
    """Those of the asynchronous client."""

    def __init__(
        self,
        targets: str | Sequence[str],
        options: Options,
        tls: TlsOptions | None,
        credentials: grpc.ChannelCredentials | None,
        tokens: Tokens,
    ) -> None:
        super().__init__(targets, options, tls, credentials, tokens)
        self._leaving: list[Server] = []  # a channel that nobody holds is closed, and so are the batches over it
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the channels. Raises Unavailable if a name has no address, and as Route.credentials."""
        self.found(await asyncio.to_thread(resolved, self.targets), self._make)

    async def look(self) -> None:
        """Ask the names again."""
        before = self.all
        with contextlib.suppress(Unavailable, ValueError, OSError):
            self.found(await asyncio.to_thread(resolved, self.targets), self._make)
        left = [one for one in before if one not in self.all]
        self._leaving = [one for one in (*self._leaving, *left) if _is_ready(one)]

    async def close(self) -> None:
        """Close them."""
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.gather(*(server.channel.close() for server in (*self.all, *self._leaving)))

    def pick(self) -> Server:
        """The one that is next, of those that are connected if any is. Raises RuntimeError before they are open."""
        if not self.all:
            raise RuntimeError("use the client as `async with Client(target) as client`")
        self.refresh()
        if self.is_old and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self.look())  # for the next one: this one is not to wait
        if len(self.all) == 1:
            return self.all[0]
        in_turn = self.in_turn()
        return next(filter(_is_ready, in_turn), in_turn[0])

    def _make(self, target: str, name: str) -> Server:
        route = self.route(target, name)

        def dial() -> tuple[grpc.aio.Channel, apiflux_pb2_grpc.FluxServiceAsyncStub]:
            credentials = route.credentials()
            if credentials is None:
                channel = grpc.aio.insecure_channel(route.target, options=route.options)
            else:
                channel = grpc.aio.secure_channel(route.target, credentials, options=route.options)
            return channel, apiflux_pb2_grpc.FluxServiceStub(channel)

        return Server(target, dial)


def _is_ready(server: Server) -> bool:
    return server.channel.get_state() is grpc.ChannelConnectivity.READY


class Reach(Places[Server]):
    """The way to each server of a stream to the pool of this name."""

    def __init__(self, servers: Servers, pool: str) -> None:
        super().__init__(servers)
        self._all = servers
        self._same = SamePool(pool)

    def connect(self, at: int, timeout: float | None) -> Any:
        """A connection for calls."""
        self._all.refresh()
        return self.servers[at].stub.ProcessStream(None, timeout=timeout, metadata=self._all.metadata)

    async def admit(self, at: int) -> None:
        """Raises OtherPool for a server that can't work at this batch, and other ApifluxErrors."""
        self._all.refresh()
        server = self.servers[at]
        try:
            info = await server.stub.GetInfo(pb.GetInfoRequest(), timeout=ADMITTED, metadata=self._all.metadata)
        except grpc.aio.AioRpcError as failed:
            error = error_from(failed)
            raise (silent() if isinstance(error, DeadlineExceeded) else error) from None
        self._same.check(server.target, info, is_later=self.is_later(at))

    async def look(self) -> News:
        """Ask the names again; what has changed since the last time."""
        await self._all.look()
        return self.compare()


async def of_all(servers: Sequence[Server], ask: Callable[[Server], Awaitable[T]]) -> dict[str, T | ApifluxError]:
    """What each server answers, by its target, or why it doesn't."""
    asked = [asyncio.ensure_future(ask(server)) for server in servers]
    try:
        left = set(asked)
        while left and not any(one.done() and one.exception() is None for one in asked):
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        if left:
            await asyncio.wait(left, timeout=OTHERS)
        found: dict[str, T | ApifluxError] = {}
        for server, one in zip(servers, asked, strict=True):
            found[server.target] = _answer(one)
        return found
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _answer(asked: asyncio.Task[T]) -> T | ApifluxError:
    if not asked.done():
        return silent()
    try:
        return asked.result()
    except ApifluxError as error:
        return error
