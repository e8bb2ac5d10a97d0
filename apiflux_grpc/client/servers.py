"""The connections of the asynchronous client to its servers, one channel each.

Rule: a batch that goes to one server goes to the next in turn that is connected, so that several batches go to several.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import grpc

from apiflux_grpc.client.channel import Route
from apiflux_grpc.client.errors import ApifluxError, silent
from apiflux_grpc.client.targets import resolved, targets_of
from apiflux_grpc.v1 import apiflux_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from apiflux_grpc.client.channel import Options
    from apiflux_grpc.client.tls import TlsOptions


_OTHERS: Final = 2.0  # seconds that others have once one has answered
T = TypeVar("T")


class Server(NamedTuple):
    """One of them, by its HOST:PORT."""

    target: str
    channel: grpc.aio.Channel
    stub: apiflux_pb2_grpc.FluxServiceAsyncStub


class Servers:
    """Of these targets, as `targets_of` takes them; `options` and what follows are those of each Route."""

    def __init__(
        self,
        targets: str | Sequence[str],
        options: Options,
        tls: TlsOptions | None,
        credentials: grpc.ChannelCredentials | None,
        token: str | None,
    ) -> None:
        self.targets = targets_of(targets)
        self.all: list[Server] = []  # while they are open
        self._options = options
        self._tls = tls
        self._given = credentials
        self._token = token
        self._turn = -1
        self.metadata = self._route("localhost:1", "").metadata  # what can't be is known now

    async def open(self) -> None:
        """Open the channels. Raises Unavailable if a name has no address, and as Route.credentials."""
        for target, name in await resolved(self.targets):
            route = self._route(target, name)
            credentials = route.credentials()
            if credentials is None:
                channel = grpc.aio.insecure_channel(route.target, options=route.options)
            else:
                channel = grpc.aio.secure_channel(route.target, credentials, options=route.options)
            self.all.append(Server(target, channel, apiflux_pb2_grpc.FluxServiceStub(channel)))

    async def close(self) -> None:
        """Close them."""
        await asyncio.gather(*(server.channel.close() for server in self.all))

    def pick(self) -> Server:
        """The one that is next, of those that are connected if any is. Raises RuntimeError before they are open."""
        if not self.all:
            raise RuntimeError("use the client as `async with Client(target) as client`")
        if len(self.all) == 1:
            return self.all[0]
        self._turn = (self._turn + 1) % len(self.all)
        in_turn = [*self.all[self._turn :], *self.all[: self._turn]]
        ready = (one for one in in_turn if one.channel.get_state() is grpc.ChannelConnectivity.READY)
        return next(ready, in_turn[0])

    def _route(self, target: str, name: str) -> Route:
        options = [*self._options, ("grpc.ssl_target_name_override", name)] if name else self._options
        return Route(target, options, self._tls, self._given, self._token)

    def __repr__(self) -> str:
        return f"<servers at {', '.join(self.targets)}>"


async def of_all(servers: Sequence[Server], ask: Callable[[Server], Awaitable[T]]) -> dict[str, T | ApifluxError]:
    """What each server answers, by its target, or why it doesn't."""
    asked = [asyncio.ensure_future(ask(server)) for server in servers]
    try:
        left = set(asked)
        while left and not any(one.done() and one.exception() is None for one in asked):
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        if left:
            await asyncio.wait(left, timeout=_OTHERS)
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
