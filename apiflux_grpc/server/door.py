"""The door of the gRPC server: who calls is known before their request is read, and what isn't allowed is denied.

Rule: a method that isn't in NEEDS is denied to everybody, so one that is added later and forgotten here serves nobody.
A refusal takes the place of the method's handler and reads nothing of the request: it has the form of a method that
takes a stream, for grpc reads the message of any other before it calls the handler. Whose certificate a connection has
is known only to a handler, so who shows no token is asked for it there, by `arrived`, before anything is read.

A server without callers has no door, and its handlers ask in vain who calls: then a caller is the peer's address.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc

from apiflux_grpc.core.callers import Credentials, Identity, Role
from apiflux_grpc.core.errors import Forbidden, Refused, Unauthenticated
from apiflux_grpc.server.peer import peer_of
from apiflux_grpc.server.refusals import Refusals
from apiflux_grpc.server.until import AFTER_EXPIRY, ending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from apiflux_grpc.core.callers import Callers

# What each method needs. Of health see `open_health`.
NEEDS: Final = {
    "/apiflux.v1.FluxService/Process": Role.CALLER,
    "/apiflux.v1.FluxService/ProcessStream": Role.CALLER,
    "/apiflux.v1.FluxService/Estimate": Role.READER,
    "/apiflux.v1.FluxService/GetInfo": Role.READER,
    "/apiflux.v1.AdminService/ListKeys": Role.READER,
    "/apiflux.v1.AdminService/PauseKeys": Role.ADMIN,
    "/apiflux.v1.AdminService/ResumeKeys": Role.ADMIN,
    "/apiflux.v1.AdminService/RotateKeys": Role.ADMIN,
    "/grpc.health.v1.Health/Check": Role.READER,
    "/grpc.health.v1.Health/List": Role.ADMIN,  # it has the names of all pools
    "/grpc.health.v1.Health/Watch": Role.READER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READER,
}
_HEALTH: Final = "/grpc.health.v1.Health/"
_AUTHORIZATION: Final = "authorization"

_identity: ContextVar[Identity | None] = ContextVar("_identity", default=None)
_asks: ContextVar[Callable[[Any], object] | None] = ContextVar("_asks", default=None)


def identity() -> Identity | None:
    """Whose RPC is being handled; None: nobody asked."""
    return _identity.get()


def enter(known: Identity) -> None:
    """From now on, in this task, it is their request that is handled: said by a door that isn't gRPC's."""
    _identity.set(known)


def arrived(context: Any) -> None:
    """Ask the connection of an RPC who it is, if that is still to be known. Raises Unauthenticated or Forbidden."""
    asks = _asks.get()
    if asks is not None:
        asks(context)


def ask_first(check: Callable[[Any], object]) -> None:
    """When this RPC has arrived, `check(context)` comes before whatever else is asked of its connection."""
    later = _asks.get()

    def both(context: Any) -> None:
        check(context)
        if later is not None:
            later(context)

    _asks.set(both)


def caller_of(peer: str) -> str:
    """The peer's address without its port: `ipv4:10.1.2.3:4711` -> `10.1.2.3`. Who asks, if callers have no names."""
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind or "unknown"
    host, _, _ = address.replace("%5B", "[").replace("%5D", "]").rpartition(":")
    return host.strip("[]") or address


def caller_in(context: Any) -> str:
    """Who calls: the identity, else the peer's address."""
    known = _identity.get()
    return caller_of(context.peer()) if known is None else known.name


class Door(grpc.aio.ServerInterceptor):
    """Lets in who is known, to what they may do. It must be the innermost interceptor."""

    def __init__(self, callers: Callers, *, open_health: bool = True) -> None:
        self._callers = callers
        self._refusals = Refusals()
        self._open = frozenset(method for method in (f"{_HEALTH}Check", f"{_HEALTH}Watch") if open_health)

    # grpc's handlers are records of callables whose types no stub can tell; hence Any.
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method in self._open:
            return handler
        shown = tuple(value for key, value in handler_call_details.invocation_metadata if key == _AUTHORIZATION)
        if not shown and self._callers.by_certificate:
            _asks.set(lambda context: _enter(self._callers.admit(Credentials(names=names_in(context))), method))
            return handler
        try:
            known = await self._callers.admit_soon(Credentials(shown))
            _enter(known, method)
        except Refused as refusal:
            return _refusing(handler, refusal, self._refusals if isinstance(refusal, Unauthenticated) else None)
        return handler if known.until is None else ending(handler, known.until + AFTER_EXPIRY)


def _enter(known: Identity, method: str) -> None:
    """Raises Forbidden; else whoever handles the RPC knows whose it is."""
    allowed(known, method)
    _identity.set(known)


def allowed(known: Identity, method: str) -> None:
    """Raises Forbidden if this caller may not call the method."""
    role = NEEDS.get(method)
    if role is None:
        raise Forbidden("no caller may use this method")
    known.require(role)


def names_in(context: Any) -> tuple[str, ...]:
    """What the certificate of the connection may be called in `identities`: its URIs, and its whole subject."""
    peer = peer_of(context)
    return () if peer is None else (*peer.uris, peer.subject)


def _refusing(handler: Any, refusal: Refused, line: Refusals | None) -> Any:
    """In the place of a handler: it answers as that does, and asks for no message."""

    async def refuse(messages: Any, context: Any) -> Any:
        if line is not None:
            await line.turn()
        raise refusal

    make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(refuse, None, handler.response_serializer)
