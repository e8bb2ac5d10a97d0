"""What one connection may do before it has said anything, and how many there may be.

Rule: a connection costs a descriptor and a little memory, and whoever can connect can have it: so there is a bound on
how many are open, and a head must be there in time, the next one of a connection too. What isn't HTTP gets a problem as
everything else does, without a word on what reads it here.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

from aiohttp import web

from apiflux_grpc.ops.problems import CONTENT_TYPE, Problem
from apiflux_grpc.ops.tls import certificate_of

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Awaitable, Callable

_log = logging.getLogger("apiflux.ops")

MOST_CONNECTIONS: Final = 1000
HEAD_WITHIN: Final = 10.0  # seconds from the connection, or from the last answer, until the whole head is there
LINGER: Final = 2.0  # seconds in which the rest of a refused body is read, so that its sender gets to read the answer
LONGEST_FIELD: Final = 16 << 10  # bytes of one header: a token of 8 KiB must fit
SERVER: Final = "apiflux"


class Connections(web.Server):
    """Makes the protocol of each connection; `handle` answers its requests. `head_within` is seconds."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        most: int = MOST_CONNECTIONS,
        head_within: float = HEAD_WITHIN,
    ) -> None:
        # With `handler_cancellation` a caller who goes away ends their request. A body is left as it came: one that is
        # compressed would grow without a bound.
        super().__init__(handle, handler_cancellation=True)
        self._most = most
        self._distrusted: WeakSet[ssl.SSLContext] = WeakSet()
        self._options: dict[str, Any] = {
            "keepalive_timeout": head_within,
            "lingering_time": LINGER,
            "max_field_size": LONGEST_FIELD,
            "auto_decompress": False,
            "access_log": None,
            "logger": _log,
        }

    @property
    def is_full(self) -> bool:
        return len(self.connections) >= self._most

    def distrust(self, context: ssl.SSLContext) -> None:
        """What has a certificate by this one ends, also if its handshake, which may take a while, is still to end."""
        self._distrusted.add(context)
        for one in self.connections:
            if one.transport is not None and self.is_distrusted(one.transport):
                one.transport.abort()

    def is_distrusted(self, transport: asyncio.BaseTransport) -> bool:
        connection = transport.get_extra_info("ssl_object")
        return connection is not None and (
            connection.context in self._distrusted and certificate_of(transport) is not None
        )

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._options)


class _Connection(web.RequestHandler):
    __slots__ = ("_connections",)

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(connections, **options)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.is_full:
            _log.debug("connection refused: too many are open")
            _drop(transport)
            return
        if self._connections.is_distrusted(transport):
            _drop(transport)
            return
        super().connection_made(transport)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Of what can't be read; faults of ours don't come here."""
        _log.debug("what came isn't HTTP")
        if request.writer.output_size > 0:
            raise ConnectionError
        return answer_of(Problem(HTTPStatus(status), "BAD_HTTP", "this isn't a request of HTTP/1.1", closes=True))


def _drop(transport: asyncio.BaseTransport) -> None:
    """End a connection at once. By TLS, closing one waits for the peer's goodbye, for half a minute and its file."""
    if transport.get_extra_info("ssl_object") is None:
        transport.close()
    else:
        cast("asyncio.Transport", transport).abort()


def answer_of(problem: Problem) -> web.Response:
    """The answer that tells of a problem."""
    made = answer(problem.status, problem.document() + b"\n", CONTENT_TYPE)
    made.headers.update(problem.headers)
    if problem.closes:
        made.force_close()
    return made


def answer(status: int, body: bytes, content_type: str) -> web.Response:
    """A whole answer, with the headers that all have."""
    return web.Response(status=status, body=body, headers={**HEADERS, "Content-Type": content_type})


HEADERS: Final = {
    "Server": SERVER,  # else aiohttp says which version of it and of Python this is
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
