"""aiohttp as a way upstream.

Rule: one send per attempt, and nothing the network brings becomes an exception. aiohttp sends GET, HEAD, PUT and
DELETE again by itself when a connection is cut; every send passes `_Flight.send`, which turns that into an error
of our own and so stops it. An attempt ends as

- Answer     a whole, valid head came; `fault` says if the body didn't
- NotSent    the request was never handed to a socket
- Unknown    it was, and no head came

Rule: no text of aiohttp's leaves this file. Its exceptions hold URLs, and a URL may hold the key: details are
made from an exception's class and errno alone.

One task per attempt. It only works out what became of it; its done callback tells, for a task cancelled before its
first step runs none of its own code. Everything lives on the loop of the first `begin`, where the session is made.
Not here: retries, limits, redirects, cookies, a queue (the scheduler is the only one).
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from apiflux_grpc.adapters.http_settings import HttpSettings, Requests
from apiflux_grpc.core.model import MILLISECOND, SECOND
from apiflux_grpc.core.outcome import (
    CANCELLED,
    CLOSED,
    LATE,
    NO_CONNECTION,
    OUT_OF_TIME,
    Answer,
    Cause,
    NotSent,
    Reason,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

    from apiflux_grpc.adapters.masking import Mask
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.engine.ports import Attempt, Clock

STALE_CONNECTIONS: Final = 100  # given up in a row before an attempt ends as NotSent
LARGE_BODY: Final = 1 << 20  # aiohttp writes larger ones bit by bit if they come as a file
CODINGS: Final = frozenset({"gzip", "deflate", "br", "zstd"})  # what aiohttp may have decoded


class AiohttpUpstream:
    """The calls of one pool over HTTP/1.1. Fulfils Upstream.

    Raises OSError or ssl.SSLError where `ca_file` can't be read. Instants are those of `clock`.
    """

    def __init__(self, settings: HttpSettings, clock: Clock = time.monotonic_ns) -> None:
        self._settings = settings
        self._clock = clock
        self.requests = Requests(settings)
        self._ssl = settings.tls() or True
        self._open: set[_Flight] = set()
        self._connections: dict[ResponseHandler, _Flight | None] = {}  # open ones, and who is on them
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def begin(self, attempt: Attempt) -> None:
        flight = _Flight(self, attempt)
        attempt.handle = flight
        self._open.add(flight)
        flight.start(asyncio.get_running_loop())

    def cancel(self, attempt: Attempt) -> None:
        if isinstance(attempt.handle, _Flight):
            attempt.handle.stop(Reason.UNKNOWN)

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        self._closed = True
        while self._open:
            flights = list(self._open)
            for flight in flights:
                flight.stop(Reason.UNKNOWN)
            await asyncio.wait([flight.task for flight in flights])
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- for its flights ----------------------------------------------------------------------

    def session(self) -> aiohttp.ClientSession:
        """Made when it is first needed; raises _Failed once closed."""
        if self._closed:
            raise _Failed(CLOSED)
        if self._session is None:
            idle = self._settings.idle_timeout / SECOND
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=idle, ssl=self._ssl)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=_Request,
                raise_for_status=False,
                skip_auto_headers=("Content-Type",),
                max_line_size=self._settings.head_cap,
                max_field_size=self._settings.head_cap,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout / SECOND),
                trust_env=False,
                proxy=self._settings.egress_proxy,
            )
        return self._session

    @property
    def body_cap(self) -> int:
        return self._settings.body_cap

    def now(self) -> int:
        return self._clock()

    def over(self, flight: _Flight) -> None:
        self._open.discard(flight)
        protocol = flight.protocol
        if protocol is not None and self._connections.get(protocol) is flight:
            self._connections[protocol] = None

    def on(self, protocol: ResponseHandler, flight: _Flight) -> None:
        """The flight is on this connection now, and hears of its end.

        aiohttp forgets to end a body in which garbage came: its reader would wait until the attempt's time is up.
        """
        flight.protocol = protocol
        if protocol not in self._connections:
            closed = protocol.closed
            if closed is None:
                return
            closed.add_done_callback(lambda future: self._lost(protocol, future))
        self._connections[protocol] = flight

    def _lost(self, protocol: ResponseHandler, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # or asyncio would log that nobody asked
        flight = self._connections.pop(protocol, None)
        if flight is not None:
            flight.connection_lost()

    def __repr__(self) -> str:
        return f"<AiohttpUpstream {self.requests.origin}: {len(self._open)} open>"


class _Failed(Exception):
    """An attempt that came to nothing: `unsent`, unless its request went out before."""

    def __init__(self, unsent: NotSent) -> None:
        super().__init__(unsent.detail)
        self.unsent = unsent


class _Stale(Exception):
    """A connection that can't be used any more, seen before anything was written."""


class _Flight:
    """One attempt on its way: what is known of it so far, and what that makes of its end."""

    __slots__ = (
        "_answered_at",
        "_attempt",
        "_body",
        "_content",
        "_head",
        "_home",
        "_mask",
        "_out",
        "_stopped",
        "_timer",
        "protocol",
        "task",
    )

    def __init__(self, home: AiohttpUpstream, attempt: Attempt) -> None:
        self._home = home
        self._attempt = attempt
        self._mask = home.requests.mask(attempt.key)
        self._out = False  # the request was handed to a socket
        self._stopped: Reason | None = None  # TIMEOUT; UNKNOWN: cancelled
        self._head: tuple[int, dict[str, str]] | None = None
        self._answered_at = 0
        self._body = bytearray()
        self._content: aiohttp.StreamReader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.protocol: ResponseHandler | None = None  # of the last connection it was handed to
        self.task: asyncio.Task[Outcome]

    @property
    def has_body(self) -> bool:
        return bool(self._attempt.call.body)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self._run())
        self.task.add_done_callback(self._tell)
        left = self._attempt.permit.taken_at + self._attempt.timeout - self._home.now()
        if left <= 0:
            self.stop(Reason.TIMEOUT)
        else:
            # Whole milliseconds, rounded up: uvloop cuts its clock to them.
            self._timer = loop.call_later(-(-left // MILLISECOND) / 1_000, self.stop, Reason.TIMEOUT)

    def stop(self, why: Reason) -> None:
        if self._stopped is None and not self.task.done():
            self._stopped = why
            self.task.cancel()

    def wrote(self) -> None:
        """The request goes to the socket in this very step of the loop."""
        if not self._out:
            self._out = True
            self._attempt.sent(self._home.now())

    def connection_lost(self) -> None:
        content = self._content
        if content is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(ConnectionError("the body ended in garbage"))

    # -- the task -----------------------------------------------------------------------------

    async def _run(self) -> Outcome:
        call, key = self._attempt.call, self._attempt.key
        requests = self._home.requests
        try:
            response = await self._home.session().request(
                call.method,
                URL(requests.origin + requests.target(call, key), encoded=True),
                headers=requests.headers(call, key),
                data=io.BytesIO(call.body) if len(call.body) > LARGE_BODY else call.body or None,
                allow_redirects=False,
                middlewares=(self.send,),
            )
        except Exception as error:
            return self._lost(_unsent(error))
        try:
            self._answered_at = self._home.now()
            return await self._read(response)
        finally:
            response.close()  # one whose body was read to its end has gone back to the pool before

    async def send(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """The middleware through which every send passes; there is one per attempt."""
        assert isinstance(request, _Request)
        request.home, request.flight = self._home, self
        if self._attempt.send_by is not None and self._home.now() > self._attempt.send_by:
            raise _Failed(LATE)
        for _ in range(STALE_CONNECTIONS):
            try:
                return await handler(request)
            except _Stale:
                continue
            except Exception as error:
                # Not aiohttp's own classes: those would make it send again.
                raise _Failed(_unsent(error)) from None
        raise _Failed(NotSent(Cause.DROPPED, "the upstream sends unasked on every connection"))

    async def _read(self, response: aiohttp.ClientResponse) -> Outcome:
        headers = _joined(response.headers, self._mask)
        self._head = (response.status, headers)
        coding = headers.get("transfer-encoding", "chunked").strip().lower()
        if response.status == 101 or coding != "chunked":
            return self._answer(fault=Reason.BODY_CUT)  # what follows can't be told from a whole body
        self._content = response.content
        body, most = self._body, self._home.body_cap
        try:
            while len(body) <= most:
                piece = await response.content.readany()
                if not piece:
                    break
                body += piece
        except Exception:
            return self._answer(fault=Reason.BODY_CUT)
        return self._answer(fault=Reason.BODY_CUT if self._was_reset(headers) else None)

    def _was_reset(self, headers: dict[str, str]) -> bool:
        """A body without a length ends with its connection, and aiohttp takes a reset for such an end."""
        if not self._body or "content-length" in headers or "transfer-encoding" in headers:
            return False
        return self.protocol is not None and isinstance(self.protocol.exception(), OSError)

    # -- the end ------------------------------------------------------------------------------

    def _tell(self, task: asyncio.Task[Outcome]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._home.over(self)
        self._attempt.handle = None
        self._attempt.done(self._outcome(task))

    def _outcome(self, task: asyncio.Task[Outcome]) -> Outcome:
        if not task.cancelled():
            error = task.exception()
            return task.result() if error is None else self._lost(_unsent(error))
        if self._stopped is Reason.TIMEOUT:
            if self._head is not None:
                return self._answer(fault=Reason.TIMEOUT)
            if self._out:
                return Unknown("no answer in time", Reason.TIMEOUT)
            return OUT_OF_TIME if self._timer is None else NO_CONNECTION
        if self._head is not None:
            return self._answer(fault=Reason.BODY_CUT)
        return self._lost(CANCELLED)

    def _lost(self, unsent: NotSent) -> Outcome:
        return Unknown(unsent.detail) if self._out else unsent

    def _answer(self, fault: Reason | None = None) -> Answer:
        """What has come so far. The mask comes before the cap, lest that cut a secret in two."""
        assert self._head is not None
        status, headers = self._head
        cap = self._home.body_cap
        truncated = len(self._body) > cap
        body = self._mask.body(bytes(self._body), truncated or fault is not None)
        return Answer(status, headers, body[:cap], self._answered_at, truncated, fault)

    def __repr__(self) -> str:
        return f"<flight of {self._attempt.permit!r}: {'sent' if self._out else 'not sent'}>"


class _Request(aiohttp.ClientRequest):
    """Says when it is written. aiohttp's own signals come before a body's task has even begun to write."""

    home: AiohttpUpstream
    flight: _Flight

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise _Stale  # something came on it that nobody had asked for: it would be read as this call's answer
        self.home.on(conn.protocol, self.flight)
        response = await super().send(conn)
        if not self.flight.has_body:
            self.flight.wrote()
        return response

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        self.flight.wrote()
        await super().write_bytes(writer, conn, content_length)


# -- reading ---------------------------------------------------------------------------------------


def _joined(headers: Mapping[str, str], mask: Mask) -> dict[str, str]:
    """Names in lower case, the values of one name joined; a coding that aiohttp has undone isn't named."""
    joined: dict[str, str] = {}
    for name, value in headers.items():
        name = _unicode(name).lower()
        value = _unicode(mask.text(value))
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    if joined.get("content-encoding", "").strip().lower() in CODINGS:
        del joined["content-encoding"]
        joined.pop("content-length", None)
    return joined


def _unicode(text: str) -> str:
    """aiohttp keeps bytes that aren't UTF-8 as surrogates, which nothing further on could encode."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# -- words -----------------------------------------------------------------------------------------

# The first class that fits; {why} is what the system says of the errno.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "the host name was not found"),
    (aiohttp.ClientConnectorCertificateError, "the TLS certificate is not trusted"),
    (aiohttp.ClientConnectorSSLError, "the TLS handshake failed"),
    (aiohttp.ClientProxyConnectionError, "the egress proxy can't be reached: {why}"),
    (aiohttp.ClientHttpProxyError, "the egress proxy refused"),
    (aiohttp.ClientConnectorError, "can't connect: {why}"),
    (aiohttp.ConnectionTimeoutError, "connecting took too long"),
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer"),
    (aiohttp.ClientOSError, "the connection was lost: {why}"),
    (aiohttp.ClientConnectionResetError, "the connection was closed before an answer"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (aiohttp.InvalidURL, "not a URL"),
    (OSError, "{why}"),
)


def _unsent(error: BaseException) -> NotSent:
    """What to say of an error; never its own text, which may hold a URL and so a key."""
    if isinstance(error, _Failed):
        return error.unsent
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return NotSent(Cause.UNREACHABLE, words.format(why=_why(error)))
    return NotSent(Cause.UNREACHABLE, type(error).__name__)


def _why(error: BaseException) -> str:
    errno = error.errno if isinstance(error, OSError) else None
    return os.strerror(errno).lower() if errno else "unknown reason"
