"""The connections of the blocking client to its servers, one channel each.

Rule: as client/servers.py. A blocking channel doesn't tell whether it is connected, so a server is asked before a batch
goes to it, if there are several.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.errors import ApifluxError, DeadlineExceeded, Unavailable, error_from, silent
from apiflux_grpc.client.roster import Link, Places, Roster
from apiflux_grpc.client.same_pool import SamePool
from apiflux_grpc.client.servers import ADMITTED, OTHERS
from apiflux_grpc.client.targets import resolved
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.client.roster import News


SyncServer = Link[grpc.Channel]


class SyncServers(Roster[SyncServer]):
    """Those of the blocking client."""

    def open(self) -> None:
        """Open the channels. Raises Unavailable if a name has no address, and as Route.credentials."""
        self.found(resolved(self.targets), self._make)

    def look(self) -> None:
        """Ask the names again. A channel that nobody uses any more ends by itself."""
        with contextlib.suppress(Unavailable, ValueError, OSError):
            self.found(resolved(self.targets), self._make)

    def close(self) -> None:
        """Close them."""
        for server in self.all:
            server.channel.close()

    def pick(self) -> SyncServer:
        """The one that is next, of several one that answers if any does."""
        self.refresh()
        if self.is_old:
            self.look()
        if len(self.all) == 1:
            return self.all[0]
        in_turn = self.in_turn()
        return next(filter(self._answers, in_turn), in_turn[0])

    def ask_all(self, ask: Callable[[SyncServer], Any]) -> dict[str, Any | ApifluxError]:
        """What each server answers to the request that `ask` begins, by its target, or why it doesn't."""
        self.refresh()
        asked = [(server.target, ask(server)) for server in self.all]
        return {target: _answer(future) for target, future in asked}

    def _answers(self, server: SyncServer) -> bool:
        try:
            server.stub.GetInfo(pb.GetInfoRequest(), timeout=OTHERS, metadata=self.metadata)
        except grpc.RpcError as error:
            return not isinstance(error_from(error), Unavailable | DeadlineExceeded)  # an answer is one of any kind
        return True

    def _make(self, target: str, name: str) -> SyncServer:
        route = self.route(target, name)

        def dial() -> tuple[grpc.Channel, apiflux_pb2_grpc.FluxServiceStub]:
            credentials = route.credentials()
            if credentials is None:
                channel = grpc.insecure_channel(route.target, options=route.options)
            else:
                channel = grpc.secure_channel(route.target, credentials, options=route.options)
            return channel, apiflux_pb2_grpc.FluxServiceStub(channel)

        return SyncServer(target, dial)


class SyncReach(Places[SyncServer]):
    """The way to each server of a stream to the pool of this name."""

    def __init__(self, servers: SyncServers, pool: str) -> None:
        super().__init__(servers)
        self._all = servers
        self._same = SamePool(pool)

    def connect(self, at: int, timeout: float | None, requests: Any) -> Any:
        """A connection for calls."""
        self._all.refresh()
        return self.servers[at].stub.ProcessStream(requests, timeout=timeout, metadata=self._all.metadata)

    def ask(self, at: int) -> Any:
        """Begin to ask a server for what `admit` judges; it can be cancelled."""
        self._all.refresh()
        return self.servers[at].stub.GetInfo.future(pb.GetInfoRequest(), timeout=ADMITTED, metadata=self._all.metadata)

    def admit(self, at: int, info: pb.GetInfoResponse) -> None:
        """Raises OtherPool for a server that can't work at this batch."""
        self._same.check(self.servers[at].target, info, is_later=self.is_later(at))

    def look(self) -> News:
        """Ask the names again; what has changed since the last time."""
        self._all.look()
        return self.compare()


def _answer(future: Any) -> Any | ApifluxError:
    try:
        return future.result()
    except grpc.RpcError as error:
        failed = error_from(error)
        return silent() if isinstance(failed, DeadlineExceeded) else failed
