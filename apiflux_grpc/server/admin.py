"""AdminService: one short method per RPC, over Administration.

Rule: who may is the door's to say; a server without callers has none, and serves these to callers on its own machine
alone. Each change is a line in the log, with who made it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from apiflux_grpc.core.callers import EVERYTHING
from apiflux_grpc.core.errors import Forbidden
from apiflux_grpc.server import wire
from apiflux_grpc.server.door import caller_in, identity
from apiflux_grpc.server.info import put_key
from apiflux_grpc.v1 import admin_pb2 as pb
from apiflux_grpc.v1 import admin_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.server.administration import Administration
    from apiflux_grpc.server.paused import Place

_log = logging.getLogger("apiflux.admin")


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """The servicer."""

    def __init__(self, engine: Engine, administration: Administration) -> None:
        self._engine = engine
        self._administration = administration

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        places = self._chosen(request, context)
        state = await self._engine.look()
        offset = wire.wall_offset(self._engine.clock)
        response = pb.ListKeysResponse()
        for name, label in places:
            pool = self._engine.pools[name]
            at = next(at for at, key in enumerate(pool.keys) if key.label == label)
            row = response.keys.add(pool=name)
            put_key(row.key, pool.keys[at], None if state is None else state.pools[name].keys[at], offset)
        return response

    async def PauseKeys(self, request: pb.PauseKeysRequest, context: Any) -> pb.PauseKeysResponse:
        places = self._chosen(request, context)
        changed = await self._administration.pause(places, paused=True)
        _tell("keys paused", places, context)
        await self._engine.look()  # once it answers, it is done
        return pb.PauseKeysResponse(kept=self._administration.is_kept, changed=changed)

    async def ResumeKeys(self, request: pb.ResumeKeysRequest, context: Any) -> pb.ResumeKeysResponse:
        places = self._chosen(request, context)
        changed = await self._administration.pause(places, paused=False)
        _tell("keys resumed", places, context)
        await self._engine.look()
        return pb.ResumeKeysResponse(kept=self._administration.is_kept, changed=changed)

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Any) -> pb.RotateKeysResponse:
        places = self._chosen(request, context)
        found = await self._administration.rotate(places)
        _tell("secrets read again", places, context)
        await self._engine.look()
        return pb.RotateKeysResponse(**{name: map("/".join, ones) for name, ones in found._asdict().items()})

    def _chosen(self, request: Any, context: Any) -> list[Place]:
        known = identity()
        if known is None and not _is_here(context.peer()):
            raise Forbidden(
                "without callers in the configuration, keys are administered from the server's machine only"
            )
        access = EVERYTHING if known is None else known.access
        return self._administration.choose(request.pool, request.keys, access)


def _is_here(peer: str) -> bool:
    return peer.startswith(("ipv4:127.", "ipv6:%5B::1%5D:", "ipv6:[::1]:", "unix:"))


def _tell(what: str, places: Iterable[Place], context: Any) -> None:
    _log.warning(what, extra={"caller": caller_in(context), "keys": ",".join(map("/".join, places))})
