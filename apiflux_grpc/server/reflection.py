"""Server reflection that finds methods too.

Rule: the descriptor pool is Python's own, but a symbol that it doesn't know is looked up by its parent: ghz asks
for the *method* as a symbol, as the protocol allows, and Python's pool knows only services and messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

from apiflux_grpc.server.health import SERVICE

if TYPE_CHECKING:
    import grpc


class _WithMethods:
    """Python's descriptor pool, which also finds the file of a method."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802  # the pool's own name for it
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            descriptor = self._pool.FindServiceByName(service)
            if method not in descriptor.methods_by_name:
                raise
            return descriptor.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def enable(server: grpc.aio.Server) -> None:
    """Serve reflection for our service, health and reflection itself."""
    names = (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_WithMethods())  # type: ignore[arg-type]
