"""One connection: it writes an exchange once, reads its answer, and says what became of it.

Rule: `write` is the only place that hands a request to the kernel, and `_end` the only one that decides whether the
connection is used again. Whatever ends an exchange early (timeout, cancel, reset, nonsense) comes through `cut`, so
"was it sent?" is answered in one place. What connects and pools connections is the Owner's business.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import ssl
from typing import TYPE_CHECKING, Final, Protocol, cast

from apiflux_grpc.adapters.sender.reader import Malformed, Reader
from apiflux_grpc.adapters.sender.tls import Tls
from apiflux_grpc.core.outcome import Cause, NotSent, Reason, Unknown

if TYPE_CHECKING:
    import socket

    from apiflux_grpc.adapters.sender.exchange import Exchange, Reply
    from apiflux_grpc.engine.ports import Clock

HANG_UP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

# Everything that arrives is parsed, and so copied, before the loop goes on: one buffer serves all connections.
_BUFFER: Final = memoryview(bytearray(64 << 10))


class Owner(Protocol):
    """Whose connection it is, as far as the connection needs it."""

    clock: Clock

    def joined(self, connection: Connection) -> None:
        """It is open."""

    def left(self, connection: Connection) -> None:
        """It is gone."""

    def keep(self, connection: Connection, told: int | None) -> None:
        """It may carry another exchange; `told`: for so long, says the upstream (ns)."""

    def never_again(self, connection: Connection) -> None:
        """It must not, though it was kept."""

    def finish(self, exchange: Exchange, ending: Reply | NotSent | Unknown) -> None:
        """This became of the exchange."""


class Connection(asyncio.BufferedProtocol):
    """A connection over `sock`, plain until `greet`. `lost`: it is closed.

    `usable_for` is the owner's: how long it may be idle and still be used (ns).
    """

    __slots__ = (
        "_exchange",
        "_greeting",
        "_owner",
        "_poll",
        "_reader",
        "_socket",
        "_tls",
        "_told",
        "_transport",
        "_wire",
        "lost",
        "usable_for",
    )

    def __init__(self, owner: Owner, sock: socket.socket, head_cap: int, body_cap: int) -> None:
        self._owner = owner
        self._socket = sock
        self._reader = Reader(head_cap, body_cap, owner.clock)
        self._tls: Tls | None = None
        self._greeting: asyncio.Future[None] | None = None  # waits for more of the handshake
        self._exchange: Exchange | None = None
        self._wire = 0  # bytes of the one write
        self._told = False  # that it was sent
        self.lost = False
        self.usable_for = 0
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # from connection_made on
        # It keeps what it watches, so `is_quiet` costs one system call and no more.
        self._poll = select.poll()
        self._poll.register(sock.fileno(), HANG_UP | select.POLLIN)

    # -- out ----------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Nothing to read and no hang-up; if not, it can't carry another exchange.

        The kernel is asked, and not the loop: a loop that was busy hasn't seen yet that the upstream closed the
        connection, and a request written on it would be lost without an answer: Unknown instead of sent.
        """
        return not self.lost and not self._transport.is_closing() and not self._poll.poll(0)

    def write(self, exchange: Exchange, now: int) -> bool:
        """The one write of the exchange. False: not one byte was taken, and the connection closes."""
        self._reader.expect(exchange.head_only)
        wire = exchange.request
        try:
            if self._tls is not None:
                wire = self._tls.seal(wire)
            # Past the transport, and at once: only what `send` returns says what reached the kernel. A transport takes
            # everything into its buffer, and uvloop's writes it at the end of its pass.
            written = self._socket.send(wire)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError:  # ssl.SSLError is one
            self.abort()
            return False
        self._exchange = exchange
        self._wire = len(wire)
        self._told = False
        if written < len(wire):
            # The kernel's buffer is full (a large body). The rest goes through the transport, which keeps the order.
            self._transport.write(memoryview(wire)[written:])
        if written or not self._nothing_went_out():
            self._told = True
            exchange.sent(now)
        return True

    def resume_writing(self) -> None:
        """The kernel took what it had not taken at first."""
        self._tell()

    def _tell(self) -> None:
        """That the request was sent, if it hasn't been told."""
        if not self._told and self._exchange is not None:
            self._told = True
            self._exchange.sent(self._owner.clock())

    def _nothing_went_out(self) -> bool:
        """Whether the request is still whole in our own buffer."""
        return self._transport.get_write_buffer_size() >= self._wire

    # -- in -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        # At 0, a transport passes on at once what it is given, and calls `resume_writing` when its buffer is empty.
        # Else uvloop keeps what is written for the end of its pass, and a cancel in that pass would meet a request that
        # is neither sent nor unsent.
        self._transport.set_write_buffer_limits(0)
        self._owner.joined(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        if self._tls is None:
            self._read(_BUFFER[:count])
            return
        self._tls.feed(_BUFFER[:count])
        if self._tls.ready:
            self._decrypt(self._tls)
        elif self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(None)

    def _read(self, data: memoryview) -> None:
        if self._exchange is None:
            # Nobody asked for it. Some clients hand such bytes to the next call, as its answer.
            self._owner.never_again(self)
            self.abort()
            return
        try:
            reply = self._reader.feed(data)
        except Malformed as fault:
            self.cut(str(fault), Reason.BODY_CUT)
            return
        if reply is not None:
            self._end(reply, keep=self._reader.reusable)

    # -- TLS ----------------------------------------------------------------------------------

    async def greet(self, context: ssl.SSLContext, host: str) -> None:
        """The TLS handshake. Raises OSError, of which ssl.SSLError is one."""
        tls = self._tls = Tls(context, host)
        try:
            while not tls.handshake():
                self._flush(tls)
                self._greeting = asyncio.get_running_loop().create_future()
                await self._greeting
        finally:
            self._greeting = None
            self._flush(tls)  # of a handshake that failed, the alert that says why
        self._decrypt(tls)  # what came in one piece with the end of the handshake, for instance session tickets

    def _decrypt(self, tls: Tls) -> None:
        """Read what came, in plain."""
        try:
            while (plain := tls.read()) is not None:
                if not plain:
                    self._ended(clean=True)
                    return
                self._read(plain)
                if self.lost or self._transport.is_closing():
                    return
        except ssl.SSLError:
            self._ended(clean=False)
            return
        self._flush(tls)  # TLS answers messages of its own, for instance new keys

    def _flush(self, tls: Tls) -> None:
        data = tls.to_send()
        if data and not self.lost:
            self._transport.write(data)

    # -- the end ------------------------------------------------------------------------------

    def eof_received(self) -> None:
        # RFC 9112, section 9.8: over TLS an end without close_notify may be an attacker's cut. A body that ends with
        # its connection is whole only after that goodbye, which `_decrypt` sees.
        self._ended(clean=self._tls is None)

    def _ended(self, clean: bool) -> None:
        """Nothing more will come."""
        self._owner.never_again(self)
        self._fail_greeting(None)
        if self._exchange is None:
            self.abort()
            return
        reply = self._reader.end() if clean else None
        if reply is not None:
            self._end(reply, keep=False)
        else:
            self.cut("the connection was closed before an answer", Reason.BODY_CUT)

    def connection_lost(self, error: Exception | None) -> None:
        if self._exchange is not None and error is not None:
            self._read_rest()  # before `lost`, which ends the reading of TLS
        self.lost = True
        self._fail_greeting(error)
        if self._exchange is not None:
            detail = "the connection was closed before an answer"
            if isinstance(error, OSError) and error.errno:
                detail = f"the connection was lost: {os.strerror(error.errno).lower()}"
            self.cut(detail, Reason.BODY_CUT)
        self._reader.close()
        self._owner.left(self)

    def _fail_greeting(self, error: Exception | None) -> None:
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(error or ConnectionResetError(errno.ECONNRESET, "in the handshake"))

    def _read_rest(self) -> None:
        """An answer may have come just before the reset that made our write fail: the kernel still has it.

        RFC 9112, section 9.5, expects a client to look for it: an upstream answers a large body early (413) and closes.
        """
        while self._exchange is not None:
            try:
                count = self._socket.recv_into(_BUFFER)
            except OSError:
                return
            if not count:
                return
            self.buffer_updated(count)

    def cut(self, detail: str, fault: Reason, reason: Reason = Reason.UNKNOWN, cause: Cause = Cause.DROPPED) -> None:
        """The exchange ends here, as what is known of it; see Carrier."""
        ending: Reply | NotSent | Unknown | None = self._reader.cut(fault)
        if ending is None:
            ending = NotSent(cause, detail) if self._nothing_went_out() else Unknown(detail, reason)
        self._end(ending, keep=False)

    def _end(self, ending: Reply | NotSent | Unknown, keep: bool) -> None:
        if not self._told and not isinstance(ending, NotSent):
            self._tell()  # something came back or may have arrived, so it was sent: said before `done`
        # Free before anybody is told: in `finish` the next exchange may be written on this very connection.
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        # A request that isn't written to its end would be continued by the next one's bytes.
        if keep and not self._transport.get_write_buffer_size() and not self._transport.is_closing():
            told = self._reader.kept_for
            self._reader.reset()
            self._owner.keep(self, told)
        else:
            self.abort()
        self._owner.finish(exchange, ending)

    # -- closing ------------------------------------------------------------------------------

    @property
    def may_chatter(self) -> bool:
        """Whether what came on it while it was idle can be TLS's own: session tickets, new keys."""
        return self._tls is not None and not self.lost and not self._transport.is_closing()

    def abort(self) -> None:
        """Close at once; idempotent. Without FIN first: nobody waits for what is still in our buffer."""
        if not self.lost:
            self._transport.abort()

    def give_up(self) -> None:
        """It came to nothing while it was being made. uvloop then closes it and tells nobody."""
        if self._transport is not None:
            self.abort()
        self.lost = True
        self._reader.close()
        self._owner.left(self)

    def __repr__(self) -> str:
        state = "idle" if self._exchange is None else "busy"
        return f"<connection: {state}, {self._reader.received} bytes read>"
