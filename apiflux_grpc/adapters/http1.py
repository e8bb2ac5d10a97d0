"""One origin over HTTP/1.1: each request is written once, and we know what became of it.

Rules
1. An exchange is handed to one connection, head and body in one write, once. Nothing here ever sends again.
2. It ends as exactly one of Reply (a whole, valid head came; `fault` says if the body didn't), NotSent (not one byte
   reached the kernel) and Unknown (bytes went out, no head came back: it may have been executed). `sent` is told at
   the write: at once on a warm connection, after the dial on a new one.
3. A connection is used again only after an answer that ended where its framing says, with nothing behind it, the
   request fully written, and keep-alive on both sides. Else it is closed, after a cancel too.
4. One exchange at a time on a connection. Bytes that nobody asked for close it. Before it is used again the kernel is
   asked whether there is something to read or a hang-up.
5. No queue: the scheduler is the only one.
6. Network input never costs more than head cap + body cap; interim answers count as head, and chunk sizes,
   extensions and trailers have a bound of their own.
7. Requests come as bytes; they were checked where they entered.
8. An exchange may carry `send_by`: past it, it isn't written and ends NotSent, while its dial goes on for the next.
9. One timer for all busy exchanges, one for all idle connections.

Where each rule is kept: `_Connection.write` is the only write (1, 2), `_Connection._end` decides on reuse (3),
`_Connection.buffer_updated` is the only reader (4, 6), `Origin.begin` and `Origin._dial` pair exchange and connection
(5, 8). The parser is llhttp, TLS is OpenSSL, dialing is aiohappyeyeballs. TLS is done here, over memory, and not by the
loop: only so we know what reached the kernel, and it is faster and smaller than both loops' own.

Not here: retries, limits, redirects, cookies, proxies, HTTP/2, decompression. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpResponseParser

from apiflux_grpc.adapters.wheel import Wheel
from apiflux_grpc.core.model import MILLISECOND, SECOND
from apiflux_grpc.core.outcome import (
    CANCELLED,
    CLOSED,
    LATE,
    NO_CONNECTION,
    OUT_OF_TIME,
    Cause,
    NotSent,
    Reason,
    Unknown,
    unsent,
)

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

    from apiflux_grpc.engine.ports import Clock

TICK: Final = 4 * MILLISECOND  # timeouts are at most so late
NAMES_KEPT: Final = 10 * SECOND  # how long a looked-up address is used for new connections
EYEBALLS_DELAY: Final = 0.25  # seconds until the next address is tried beside the first, RFC 8305
SETTLING: Final = 0.01  # seconds in which the loop reads what lies in the kernel
HANG_UP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

# Everything that arrives is parsed, and so copied, before the loop goes on: two buffers serve all connections.
_BUFFER: Final = memoryview(bytearray(64 << 10))
_PLAIN: Final = memoryview(bytearray(64 << 10))  # what TLS makes of it
_NO_PARSER: Final = HttpResponseParser(None)


class Reply:
    """An answer: `headers` by name in lower case, the values of one name joined; `answered_at`: its head came."""

    __slots__ = ("answered_at", "body", "fault", "headers", "status", "truncated")

    def __init__(
        self,
        status: int,
        headers: dict[bytes, bytes],
        body: bytes,
        answered_at: int,
        truncated: bool,
        fault: Reason | None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.answered_at = answered_at
        self.truncated = truncated
        self.fault = fault


class Exchange:
    """One request on its way, and who is told. Instants are ns of the origin's clock."""

    __slots__ = ("_connection", "_over", "_slot", "deadline", "head_only", "request", "send_by")

    def __init__(self, request: bytes, *, head_only: bool, deadline: int, send_by: int | None = None) -> None:
        self.request = request
        self.head_only = head_only  # HEAD: an answer has no body, whatever its head says
        self.deadline = deadline
        self.send_by = send_by
        self._connection: _Connection | None = None
        self._over = False
        self._slot = 0

    def sent(self, at: int) -> None:
        """The request's bytes went to the socket."""
        raise NotImplementedError

    def done(self, ending: Reply | NotSent | Unknown) -> None:
        """It is over; said exactly once, never before `begin` has returned."""
        raise NotImplementedError


class Origin:
    """The connections to one host and port. `tls` None: plain."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        clock: Clock,
        head_cap: int,
        body_cap: int,
        connect_timeout: int,
        idle_timeout: int,
        max_connections: int,
    ) -> None:
        self.clock = clock
        self.head_cap = head_cap
        self.body_cap = body_cap
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_timeout = connect_timeout / SECOND
        self._idle_timeout = idle_timeout
        self._max_connections = max_connections
        self._busy: Wheel[Exchange] = Wheel(TICK, clock, self._time_out)
        self._idle: dict[_Connection, int] = {}  # since when; the last one in is the first one out
        self._idle_timer: asyncio.TimerHandle | None = None
        self._all: set[_Connection] = set()
        self._dials: dict[asyncio.Task[None], Exchange] = {}
        self._lookup: asyncio.Future[list[AddrInfoType]] | None = None
        self._lookup_until = 0
        self._gone: asyncio.Event | None = None  # set when the last connection is gone, after close
        self._closed = False
        self.connecting = 0  # the longest that opening a connection took lately, ns, fading

    # -- exchanges ----------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> None:
        """Send it, on a connection that is open or on a new one. Never raises."""
        now = self.clock()
        if self._closed:
            return self.finish_soon(exchange, CLOSED)
        if exchange.deadline <= now:
            return self.finish_soon(exchange, OUT_OF_TIME)
        if exchange.send_by is not None and exchange.send_by < now:
            return self.finish_soon(exchange, LATE)
        exchange._slot = self._busy.put(exchange.deadline, exchange)
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.is_quiet():
                connection.write(exchange, now)
                return None
            connection.set_aside()
        task = asyncio.get_running_loop().create_task(self._dial(exchange))
        self._dials[task] = exchange
        task.add_done_callback(self._dialed)
        return None

    def cancel(self, exchange: Exchange) -> None:
        """Stop it; it is done in the next pass of the loop, as what is known of it. Idempotent."""
        asyncio.get_running_loop().call_soon(self._cancel, exchange)

    def finish(self, exchange: Exchange, ending: Reply | NotSent | Unknown) -> None:
        """For connections: the exchange's last word, if it hasn't been said."""
        if not exchange._over:
            exchange._over = True
            exchange._connection = None
            self._busy.take_back(exchange._slot, exchange)
            exchange.done(ending)

    def finish_soon(self, exchange: Exchange, ending: NotSent | Unknown) -> None:
        """The same, in the next pass of the loop."""
        asyncio.get_running_loop().call_soon(self.finish, exchange, ending)

    def _cancel(self, exchange: Exchange) -> None:
        self._stop(exchange, CANCELLED, Unknown(CANCELLED.detail), Reason.BODY_CUT)

    def _time_out(self, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            self._stop(exchange, NO_CONNECTION, Unknown("no answer in time", Reason.TIMEOUT), Reason.TIMEOUT)

    def _stop(self, exchange: Exchange, unsent: NotSent, unknown: Unknown, fault: Reason) -> None:
        if exchange._over:
            return
        if exchange._connection is None:
            self.finish(exchange, unsent)  # its dial goes on for the next one
        else:
            exchange._connection.cut(unknown.detail, fault, unknown.reason)

    # -- dialing ------------------------------------------------------------------------------

    async def _dial(self, exchange: Exchange) -> None:
        """Open a connection and write the exchange on it, if it is still wanted then."""
        loop = asyncio.get_running_loop()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                addresses = await self._resolve()
                start = self.clock()
                sock = await start_connection(addresses, happy_eyeballs_delay=EYEBALLS_DELAY, loop=loop)
                self.connecting = max(self.clock() - start, self.connecting - self.connecting // 64)
                connection = made = _Connection(self, sock)
                await loop.create_connection(lambda: made, sock=sock)
                if self._tls is not None:
                    await made.handshake(self._tls, self._host)
        except BaseException as error:
            if connection is not None:
                connection.give_up()
            if not isinstance(error, OSError | ValueError):
                raise
            self._lookup_until = 0  # maybe it moved
            self.finish(exchange, NotSent(Cause.UNREACHABLE, words_for(error)))
            return
        now = self.clock()
        if not exchange._over and exchange.send_by is not None and exchange.send_by < now:
            self.finish(exchange, LATE)
        if exchange._over or connection.lost:
            self.finish(exchange, NotSent(Cause.DROPPED, "the connection was closed before it was used"))
            self.keep(connection)
        else:
            connection.write(exchange, now)

    def _dialed(self, task: asyncio.Task[None]) -> None:
        exchange = self._dials.pop(task)
        error = None if task.cancelled() else task.exception()
        detail = CANCELLED.detail if error is None else type(error).__name__
        if exchange._connection is None:
            self.finish(exchange, unsent(detail))
        elif error is not None:
            self.finish(exchange, Unknown(detail))

    async def _resolve(self) -> list[AddrInfoType]:
        """The origin's addresses; asked once for all who dial at a time. Raises OSError."""
        if self._lookup is None or (self._lookup.done() and self.clock() >= self._lookup_until):
            loop = asyncio.get_running_loop()
            self._lookup = loop.create_task(loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
            self._lookup.add_done_callback(lambda lookup: lookup.cancelled() or lookup.exception())
            self._lookup_until = self.clock() + NAMES_KEPT
        return await asyncio.shield(self._lookup)

    # -- connections --------------------------------------------------------------------------

    def joined(self, connection: _Connection) -> None:
        """A connection is open."""
        self._all.add(connection)

    def left(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._all.discard(connection)
        self._idle.pop(connection, None)
        if self._gone is not None and not self._all:
            self._gone.set()

    def keep(self, connection: _Connection) -> None:
        """A connection that may be used again."""
        if connection.lost:
            return
        if self._closed or len(self._all) > self._max_connections:
            connection.abort()
            return
        self._idle[connection] = self.clock()
        if self._idle_timer is None:
            self._arm(self._idle_timeout)

    def keep_if_quiet(self, connection: _Connection) -> None:
        """One that was set aside."""
        if connection.is_quiet():
            self.keep(connection)
        else:
            connection.abort()

    def drop_idle(self, connection: _Connection) -> None:
        """Don't use it again."""
        self._idle.pop(connection, None)

    def _arm(self, delay: int) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(max(delay, TICK) / SECOND, self._sweep)

    def _sweep(self) -> None:
        self._idle_timer = None
        now = self.clock()
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            left = since + self._idle_timeout - now
            if left > 0:
                self._arm(left)
                return
            del self._idle[connection]
            connection.abort()

    async def close(self) -> None:
        """End every exchange, and return when every connection is closed."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        dials = list(self._dials)
        for task in dials:
            task.cancel()
        for exchange in self._busy.close():
            self._cancel(exchange)
        for connection in list(self._all):
            connection.abort()
        await asyncio.gather(*dials, return_exceptions=True)
        await asyncio.sleep(0)  # a connection that was being made is made, and then aborted, in the next pass
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.gather(self._lookup, return_exceptions=True)
        for connection in list(self._all):
            connection.abort()
        if self._all:
            self._gone = asyncio.Event()
            await self._gone.wait()

    def __repr__(self) -> str:
        return f"<Origin {self._host}:{self._port}: {len(self._all)} connections, {len(self._idle)} idle>"


class _Stop(Exception):
    """Raised in a callback of the parser: there is no use in reading on."""


class _Connection(asyncio.BufferedProtocol):
    """One connection, and the answer that is coming on it."""

    __slots__ = (
        "_answered_at",
        "_encrypted",
        "_exchange",
        "_framed",
        "_greeting",
        "_headers",
        "_incoming",
        "_keep_alive",
        "_origin",
        "_outgoing",
        "_parser",
        "_pieces",
        "_poll",
        "_received",
        "_size",
        "_socket",
        "_status",
        "_tls",
        "_told",
        "_transport",
        "_whole",
        "_wire",
        "lost",
    )

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self._origin = origin
        self._socket = sock
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._greeting: asyncio.Future[None] | None = None  # waits for more of the handshake
        self._encrypted = False  # the handshake is done
        self._exchange: Exchange | None = None
        self._wire = 0  # bytes of the one write
        self._told = False  # that it was sent
        self.lost = False
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # from connection_made on
        self._parser = _NO_PARSER
        self._poll = select.poll()
        self._poll.register(sock.fileno(), HANG_UP | select.POLLIN)
        self._reset()

    def _reset(self) -> None:
        self._status = 0  # of the final answer, once its head is whole
        self._headers: dict[bytes, bytes] = {}
        self._answered_at = 0
        self._framed = False  # its head says where its body ends
        self._whole = False
        self._keep_alive = False
        self._pieces: list[bytes] = []
        self._size = 0  # of the body
        self._received = 0

    # -- out ----------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Nothing to read and no hang-up; else it is of no use any more."""
        return not self.lost and not self._transport.is_closing() and not self._poll.poll(0)

    def write(self, exchange: Exchange, now: int) -> None:
        """The one write of the exchange."""
        self._exchange = exchange
        exchange._connection = self
        self._parser = HttpResponseParser(self)
        wire = exchange.request
        try:
            if self._tls is not None:
                self._tls.write(wire)
                wire = self._outgoing.read()
            self._wire = len(wire)
            written = self._socket.send(wire)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError:  # of TLS too
            return self._unwritten()
        self._told = False
        if written < len(wire):
            self._transport.write(memoryview(wire)[written:])
        if not self._nothing_went_out():
            self._tell(now)
        return None

    def _tell(self, now: int) -> None:
        if not self._told and self._exchange is not None:
            self._told = True
            self._exchange.sent(now)

    def resume_writing(self) -> None:
        """The kernel took what it had not taken at first."""
        self._tell(self._origin.clock())

    def _unwritten(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange._connection = None
        self._origin.finish_soon(exchange, NotSent(Cause.DROPPED, "the connection was closed before it was used"))
        self.abort()

    def _nothing_went_out(self) -> bool:
        """Whether the request is still whole in our own buffer."""
        return self._transport.get_write_buffer_size() >= self._wire

    # -- in -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        self._transport.set_write_buffer_limits(0)  # or uvloop would keep what is written for the end of its pass
        self._origin.joined(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        if self._tls is not None:
            self._incoming.write(_BUFFER[:count])
            if self._encrypted:
                self._decrypt()
            elif self._greeting is not None and not self._greeting.done():
                self._greeting.set_result(None)
        else:
            self._read(_BUFFER[:count])

    def _read(self, data: memoryview) -> None:
        if self._exchange is None:
            self._origin.drop_idle(self)  # nobody asked for it
            self.abort()
            return
        self._received += len(data)
        try:
            # The last byte goes in alone: an answer that was whole before it has something behind it.
            self._parser.feed_data(data[:-1])
            behind = self._whole
            self._parser.feed_data(data[-1:])
        except HttpParserError:
            if self._whole:
                self._end(self._reply(None), keep=False)
            elif self._size > self._origin.body_cap:
                self._end(self._reply(None, truncated=True), keep=False)
            else:
                self.cut("the answer is not HTTP", Reason.BODY_CUT)
            return
        if self._whole:
            self._end(self._reply(None), keep=not behind and self._keep_alive)
        elif not self._status:
            if self._received > self._origin.head_cap:
                self.cut("the answer's head is too large", Reason.BODY_CUT)
        elif self._received - self._size > 2 * self._origin.head_cap + 8 * self._size:
            self.cut("the answer's framing is too large", Reason.BODY_CUT)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # a trailer
        name, value = name.lower(), value.strip(b" \t")
        headers = self._headers
        if name in headers:
            headers[name] = b"%b, %b" % (headers[name], value)
        else:
            headers[name] = value

    def on_message_begin(self) -> None:
        if self._whole:
            raise _Stop  # the next answer, and nobody asked for one

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100 or not self._parser.get_http_version().startswith("1."):
            raise _Stop
        if 100 <= status < 200 and status != 101:
            self._headers = {}
            return  # an interim answer: the one that counts is still to come
        if self._received > self._origin.head_cap + len(_BUFFER):
            raise _Stop
        self._status = status
        self._answered_at = self._origin.clock()
        self._keep_alive = self._parser.should_keep_alive()
        assert self._exchange is not None
        if self._exchange.head_only:
            self._whole = True
            return
        coding = self._headers.get(b"transfer-encoding")
        if status == 101 or (coding is not None and coding.lower() != b"chunked"):
            raise _Stop  # not asked for: what follows can't be told from a whole body
        self._framed = coding is not None or b"content-length" in self._headers or status in (204, 304)

    def on_body(self, data: bytes) -> None:
        if self._whole:
            return
        self._size += len(data)
        self._pieces.append(data)
        if self._size > self._origin.body_cap:
            raise _Stop

    def on_message_complete(self) -> None:
        if self._status:
            self._whole = True

    # -- the end ------------------------------------------------------------------------------

    def eof_received(self) -> None:
        self._ended(clean=self._tls is None)  # over TLS an end is clean after close_notify only

    def _ended(self, clean: bool) -> None:
        """Nothing more will come."""
        self._origin.drop_idle(self)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(ConnectionResetError(errno.ECONNRESET, "in the handshake"))
        if self._exchange is None:
            self.abort()
        elif clean and self._status and not self._framed:
            self._end(self._reply(None), keep=False)
        else:
            self.cut("the connection was closed before an answer", Reason.BODY_CUT)

    def connection_lost(self, error: Exception | None) -> None:
        if self._exchange is not None and error is not None:
            self._read_rest()
        self.lost = True
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(error or ConnectionResetError(errno.ECONNRESET, "in the handshake"))
        if self._exchange is not None:
            detail = "the connection was closed before an answer"
            if isinstance(error, OSError) and error.errno:
                detail = f"the connection was lost: {os.strerror(error.errno).lower()}"
            self.cut(detail, Reason.BODY_CUT)
        self._parser = _NO_PARSER  # one of our own holds our methods: only the collector would find us, and late
        self._origin.left(self)

    def _read_rest(self) -> None:
        """An answer may have come just before the reset that made our write fail: the kernel still has it."""
        while self._exchange is not None:
            try:
                count = self._socket.recv_into(_BUFFER)
            except OSError:
                return
            if not count:
                return
            self.buffer_updated(count)

    # -- TLS ----------------------------------------------------------------------------------

    async def handshake(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS. Raises OSError, of which ssl.SSLError is one."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            while not self._encrypted:
                self._greeting = asyncio.get_running_loop().create_future()
                try:
                    self._tls.do_handshake()
                    self._encrypted = True
                except ssl.SSLWantReadError:
                    self._flush()
                    await self._greeting
        finally:
            self._greeting = None
            self._flush()  # an alert too
        if self._incoming.pending:
            self._decrypt()

    def _decrypt(self) -> None:
        """What came, in plain."""
        assert self._tls is not None
        while True:
            try:
                count = cast("int", self._tls.read(len(_PLAIN), cast("bytearray", _PLAIN)))  # a number with a buffer
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                count = 0
            except ssl.SSLError:
                self._ended(clean=False)
                return
            if not count:
                self._ended(clean=True)
                return
            self._read(_PLAIN[:count])
            if self.lost or self._transport.is_closing():
                return
            if not self._incoming.pending and not self._tls.pending():
                break
        if self._outgoing.pending:
            self._flush()  # TLS answers messages of its own

    def _flush(self) -> None:
        if self._outgoing.pending and not self.lost:
            self._transport.write(self._outgoing.read())

    # -- the end, continued -------------------------------------------------------------------

    def cut(self, detail: str, fault: Reason, reason: Reason = Reason.UNKNOWN) -> None:
        """The exchange ends here, as what is known of it: an answer with a fault, nothing sent, or unknown."""
        ending: Reply | NotSent | Unknown
        if self._status:
            ending = self._reply(fault)
        elif self._nothing_went_out():
            ending = unsent(detail)
        else:
            ending = Unknown(detail, reason)
        self._end(ending, keep=False)

    def set_aside(self) -> None:
        """It isn't quiet: close it; over TLS the loop finds out first whether it was but a message of TLS's own."""
        if self._tls is not None and not self.lost and not self._transport.is_closing():
            asyncio.get_running_loop().call_later(SETTLING, self._origin.keep_if_quiet, self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once; idempotent."""
        if not self.lost:
            self._transport.abort()

    def give_up(self) -> None:
        """It came to nothing while it was being made. uvloop then closes it and says so to nobody."""
        if self._transport is not None:
            self.abort()
        self.lost = True
        self._parser = _NO_PARSER  # one of our own holds our methods: only the collector would find us, and late
        self._origin.left(self)

    def _reply(self, fault: Reason | None, truncated: bool = False) -> Reply:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return Reply(self._status, self._headers, body, self._answered_at, truncated, fault)

    def _end(self, ending: Reply | NotSent | Unknown, keep: bool) -> None:
        if not isinstance(ending, NotSent):
            self._tell(self._origin.clock())
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if keep and not self._transport.get_write_buffer_size() and not self._transport.is_closing():
            self._reset()
            self._origin.keep(self)
        else:
            self.abort()
        self._origin.finish(exchange, ending)

    def __repr__(self) -> str:
        return f"<connection: {'idle' if self._exchange is None else 'busy'}, {self._received} bytes read>"


# The first class that fits; {why} is what the system says of the errno.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (socket.gaierror, "the host name was not found"),
    (ssl.SSLCertVerificationError, "the TLS certificate is not trusted: {verify}"),
    (ssl.CertificateError, "the TLS certificate is not trusted"),
    (ssl.SSLError, "the TLS handshake failed"),
    (TimeoutError, "connecting took too long"),
    (OSError, "can't connect: {why}"),
)


def words_for(error: BaseException) -> str:
    """What to say of an error while connecting; never its own text, which may hold more than one wants to show."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number).lower() if number else "unknown reason"
            return words.format(why=why, verify=getattr(error, "verify_message", ""))
    return type(error).__name__
