"""The door of the gRPC server: who calls is known before their request is read, and what isn't allowed is denied.

Rule: a method that isn't in NEEDS is denied to everybody, so one that is added later and forgotten here serves nobody.
A refusal takes the place of the method's handler and reads nothing of the request: it has the form of a method that
takes a stream, for grpc reads the message of any other before it calls the handler.

A server without callers has no door, and its handlers ask in vain who calls: then a caller is the peer's address.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc

from apiflux_grpc.core.callers import Credentials, Identity, Role
from apiflux_grpc.core.errors import Forbidden, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from apiflux_grpc.core.callers import Callers

# What each method needs. Of health see `open_health`.
NEEDS: Final = {
    "/apiflux.v1.FluxService/Process": Role.CALLER,
    "/apiflux.v1.FluxService/ProcessStream": Role.CALLER,
    "/apiflux.v1.FluxService/Estimate": Role.READER,
    "/apiflux.v1.FluxService/GetInfo": Role.READER,
    "/grpc.health.v1.Health/Check": Role.READER,
    "/grpc.health.v1.Health/List": Role.READER,
    "/grpc.health.v1.Health/Watch": Role.READER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READER,
}
_HEALTH: Final = "/grpc.health.v1.Health/"
_AUTHORIZATION: Final = "authorization"

_identity: ContextVar[Identity | None] = ContextVar("_identity", default=None)


def identity() -> Identity | None:
    """Whose RPC is being handled; None: nobody asked."""
    return _identity.get()


def enter(known: Identity) -> None:
    """From now on, in this task, it is their request that is handled: said by a door that isn't gRPC's."""
    _identity.set(known)


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
        self._open = frozenset(method for method in NEEDS if open_health and method.startswith(_HEALTH))

    # grpc's handlers are records of callables whose types no stub can tell; hence Any.
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method in self._open:
            return handler
        shown = tuple(value for key, value in handler_call_details.invocation_metadata if key == _AUTHORIZATION)
        try:
            known = self._callers.admit(Credentials(shown))
            allowed(known, method)
        except Refused as refusal:
            return _refusing(handler, refusal)
        _identity.set(known)
        return handler


def allowed(known: Identity, method: str) -> None:
    """Raises Forbidden if this caller may not call the method."""
    role = NEEDS.get(method)
    if role is None:
        raise Forbidden("no caller may use this method")
    known.require(role)


def _refusing(handler: Any, refusal: Refused) -> Any:
    async def refuse(_: Any, context: Any) -> Any:
        raise refusal

    make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(refuse, handler.request_deserializer, handler.response_serializer)
