"""Methods that nobody serves, kept away from grpc.aio's main loop.

grpc.aio (1.85) decodes the path of each request as UTF-8 in the loop that takes requests in, for methods that nobody
registered. A path that is no UTF-8 ends that loop, and with it the whole server: the port is closed, every stream is
cancelled, and the process stays. Any client can send one, as a single HEADERS frame.

Rule: what isn't registered is UNIMPLEMENTED, whatever its name, and its name is never looked at. All that is served
here is registered: generated code does so. This takes names of grpc that aren't public; a version without them gets
grpc's own server, and lifecycle.py ends the process if that ends by itself.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any, Final

import grpc

_cygrpc: Any = import_module("grpc._cython.cygrpc")  # it has no types
_PRIVATE: Final = ("AioServer", "_MethodResolver", "_handle_rpc", "_schedule_rpc_coro")
_KNOWN: Final = all(hasattr(_cygrpc, name) for name in _PRIVATE) and all(
    hasattr(_cygrpc.AioServer, name) for name in ("_make_request_call_future", "_request_call")
)


def make_server(**arguments: Any) -> grpc.aio.Server:
    """As grpc.aio.server."""
    if not _KNOWN:
        return grpc.aio.server(**arguments)
    original = _cygrpc.AioServer
    _cygrpc.AioServer = _core(original)
    try:
        return grpc.aio.server(**arguments)
    finally:
        _cygrpc.AioServer = original


def _core(original: Any) -> Any:
    class Core(original):  # type: ignore[misc]  # it has no types
        def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
            if method is not None:
                call: asyncio.Future[Any] = super()._make_request_call_future(method)
                return call
            return asyncio.get_running_loop().create_task(self._refuse_unknown())

        async def _refuse_unknown(self) -> None:
            """Ends as grpc's own does: with an exception when the server stops."""
            loop = asyncio.get_running_loop()
            nobody = _cygrpc._MethodResolver([], {})
            tasks: set[asyncio.Task[None]] = set()
            while True:
                state = await self._request_call()
                answer = _cygrpc._handle_rpc("", nobody, (), state, loop, False)
                task = loop.create_task(_cygrpc._schedule_rpc_coro(answer, state, loop, ""))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    return Core
