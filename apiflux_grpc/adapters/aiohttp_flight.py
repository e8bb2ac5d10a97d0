"""One attempt over aiohttp: what is known of it so far, and what that makes of its end.

Rule: one send per attempt, and nothing the network brings becomes an exception. aiohttp sends GET, HEAD, PUT and
DELETE again by itself when a connection is cut (20,000 calls made 20,410 arrivals, 3.14.5). Every send passes
`Flight.send`, a middleware that turns the cut into an error of ours: aiohttp doesn't know it, and gives up.

One task per attempt. It only works out what became of it; its done callback tells, for a task that is cancelled before
its first step runs none of its own code.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from yarl import URL

from apiflux_grpc.adapters.aiohttp_words import Failed, headers_of, unsent
from apiflux_grpc.adapters.decoding import decode
from apiflux_grpc.core.outcome import (
    CANCELLED,
    LATE,
    NO_CONNECTION,
    OUT_OF_TIME,
    Answer,
    Cause,
    NotSent,
    Reason,
    Unknown,
)
from apiflux_grpc.core.units import MILLISECOND

if TYPE_CHECKING:
    import asyncio

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

    from apiflux_grpc.adapters.http_settings import Requests
    from apiflux_grpc.core.headers import Headers
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.engine.ports import Attempt

STALE_CONNECTIONS: Final = 100  # given up in a row before an attempt ends as NotSent
LARGE_BODY: Final = 1 << 20  # bytes; aiohttp writes larger ones piece by piece if they come as a file


class Home(Protocol):
    """The upstream that a flight belongs to."""

    requests: Requests
    body_cap: int

    def session(self) -> aiohttp.ClientSession:
        """Made when it is first needed. Raises Failed once closed."""

    def now(self) -> int:
        """ns."""

    def over(self, flight: Flight) -> None:
        """It is about to tell its outcome."""

    def is_spent(self, protocol: ResponseHandler, idempotent: bool) -> bool:
        """This connection has been idle for too long, or for too long to carry a call that may not run twice."""

    def on(self, protocol: ResponseHandler, flight: Flight, took: int) -> None:
        """It is on this connection now, and must hear of its end; getting the connection `took` so long (ns)."""


class Stale(Exception):
    """A connection that can't be used any more, seen before anything was written."""


class Spent(Stale):
    """It has been idle for too long."""


class Flight:
    """One attempt on its way: what is known of it so far, and what that makes of its end."""

    __slots__ = (
        "_answered_at",
        "_asked_at",
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

    def __init__(self, home: Home, attempt: Attempt) -> None:
        self._home = home
        self._attempt = attempt
        self._mask = home.requests.mask(attempt.key)
        self._out = False  # the request was handed to a socket
        self._stopped: Reason | None = None  # TIMEOUT; UNKNOWN: cancelled
        self._head: tuple[int, Headers] | None = None
        self._answered_at = 0
        self._asked_at = 0  # for a connection
        self._body = bytearray()
        self._content: aiohttp.StreamReader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.protocol: ResponseHandler | None = None  # of the last connection it was handed to
        self.task: asyncio.Task[Outcome]

    @property
    def has_body(self) -> bool:
        return bool(self._attempt.call.body)

    @property
    def keep_alive(self) -> str | None:
        """What the answer says of that, if there is one."""
        return None if self._head is None else self._head[1].get("keep-alive")

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

    def takes(self, protocol: ResponseHandler) -> None:
        """It is about to write on this connection. Raises Stale."""
        if protocol.should_close:
            raise Stale  # something came on it that nobody had asked for: it would be read as this call's answer
        if self._home.is_spent(protocol, self._attempt.call.idempotent):
            raise Spent
        self._home.on(protocol, self, self._home.now() - self._asked_at)

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
            return self._lost(unsent(error))
        try:
            self._answered_at = self._home.now()
            return await self._read(response)
        finally:
            response.close()  # one whose body was read to its end has gone back to the pool before

    async def send(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """The middleware through which every send passes; there is one per attempt."""
        assert isinstance(request, Request)
        request.flight = self
        if self._attempt.send_by is not None and self._home.now() > self._attempt.send_by:
            raise Failed(LATE)
        stale = 0
        while stale < STALE_CONNECTIONS:
            self._asked_at = self._home.now()
            try:
                return await handler(request)
            except Spent:
                continue  # aiohttp closes it, and idle ones are only so many
            except Stale:
                stale += 1
            except Exception as error:
                # Not aiohttp's own classes: those would make it send again.
                raise Failed(unsent(error)) from None
        raise Failed(NotSent(Cause.DROPPED, "the upstream sends unasked on every connection"))

    async def _read(self, response: aiohttp.ClientResponse) -> Outcome:
        headers = headers_of(response.headers, self._mask)
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

    def _was_reset(self, headers: Headers) -> bool:
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
            return task.result() if error is None else self._lost(unsent(error))
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
        """What has come so far. The mask comes before the cap, which could cut a secret in two."""
        assert self._head is not None
        status, headers = self._head
        cap = self._home.body_cap
        truncated = len(self._body) > cap
        headers, body, fault = decode(headers, bytes(self._body), cap, truncated, fault)
        body = self._mask.body(body, truncated or fault is not None)
        return Answer(status, headers, body[:cap], self._answered_at, truncated or len(body) > cap, fault)

    def __repr__(self) -> str:
        return f"<flight of {self._attempt.permit!r}: {'sent' if self._out else 'not sent'}>"


class Request(aiohttp.ClientRequest):
    """Says when it is written. aiohttp's own signals come before a body's task has even begun to write."""

    flight: Flight

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None:
            raise Stale
        self.flight.takes(conn.protocol)
        response = await super().send(conn)
        if not self.flight.has_body:
            self.flight.wrote()
        return response

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        self.flight.wrote()
        await super().write_bytes(writer, conn, content_length)
