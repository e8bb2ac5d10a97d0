"""The connections to one host and port: pairs each exchange with one of them, and ends what takes too long.

Rule: an exchange goes to the idle connection that was used last, or to a new one; it never waits for another exchange.
The last one in is the first one out, so that few connections are in use and the others grow old and are closed. For how
long one may be used stands in idle.py, and is asked when it is taken: the sweep, which closes old ones, may be late.

Who writes what: `carrier`, `over` and `slot` of an exchange, `usable_for` of a connection, the set of connections and
the idle ones are changed here alone. One timer serves all deadlines (the wheel), one all idle connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from apiflux_grpc.adapters.sender.connection import Connection
from apiflux_grpc.adapters.sender.dial import Dialer, NotConnected
from apiflux_grpc.adapters.sender.idle import FRESH, usable_for
from apiflux_grpc.adapters.sender.short import NO_FILE, Short
from apiflux_grpc.adapters.sender.wheel import Wheel
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
)
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    import socket
    import ssl

    from apiflux_grpc.adapters.sender.exchange import Exchange, Reply
    from apiflux_grpc.engine.ports import Clock

TICK: Final = 4 * MILLISECOND  # timeouts are at most so late
SETTLING: Final = 0.01  # seconds in which the loop reads what lies in the kernel
UNUSED: Final = NotSent(Cause.DROPPED, "the connection was closed before it was used")


class Origin:
    """The connections to `host`:`port`. `tls` None: plain. Caps are bytes, timeouts ns, instants those of `clock`."""

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
        self.body_cap = body_cap
        self._head_cap = head_cap
        self._name = f"{host}:{port}"
        self._dialer = Dialer(host, port, tls, connect_timeout, clock)
        self._idle_timeout = idle_timeout
        self._max_connections = max_connections
        self._busy: Wheel[Exchange] = Wheel(TICK, clock, self._time_out)
        self._idle: dict[Connection, int] = {}  # until when each may be used; the one used last is the last
        self._idle_timer: asyncio.TimerHandle | None = None
        self._all: set[Connection] = set()
        self._dials: dict[asyncio.Task[None], Exchange] = {}
        self._short = Short()
        self._gone: asyncio.Event | None = None  # set when the last connection is gone, after close
        self._closed = False

    @property
    def connecting(self) -> int:
        """The longest that opening a connection took lately, ns, fading; 0: never opened one."""
        return self._dialer.longest

    # -- exchanges ----------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> None:
        """Send it, on a connection that is open or on a new one. Never raises."""
        now = self.clock()
        # Checked before the write, for after it "not sent" would be a lie. `deadline` counts when it is reached, for no
        # time is left then; `send_by` when it is passed, for it names the last instant that is allowed.
        if self._closed:
            return self._finish_soon(exchange, CLOSED)
        if exchange.deadline <= now:
            return self._finish_soon(exchange, OUT_OF_TIME)
        if exchange.send_by is not None and exchange.send_by < now:
            return self._finish_soon(exchange, LATE)
        # From here on its deadline is watched: the time to connect is part of the call's.
        exchange.slot = self._busy.put(exchange.deadline, exchange)
        if (connection := self._take(exchange, now)) is not None:
            return self._write(exchange, connection, now)
        task = asyncio.get_running_loop().create_task(self._dial(exchange))
        self._dials[task] = exchange
        task.add_done_callback(self._dialed)
        return None

    def _take(self, exchange: Exchange, now: int) -> Connection | None:
        """An idle connection that it may go on; None: there is none."""
        idle = self._idle
        while idle:
            connection, until = idle.popitem()  # the last one in: the upstream is least likely to have closed it
            if now >= until:
                connection.abort()
            elif not exchange.idempotent and now - until + connection.usable_for >= FRESH:
                idle[connection] = until  # others may have it; the ones below it are older still
                break
            elif connection.is_quiet():
                return connection
            else:
                self._set_aside(connection, until)
        return None

    def cancel(self, exchange: Exchange) -> None:
        """Stop it; it is done in the next pass of the loop, as what is known of it. Idempotent."""
        # Not now: the engine cancels many in one sweep, and isn't ready for their results inside it.
        asyncio.get_running_loop().call_soon(self._cancel, exchange)

    def finish(self, exchange: Exchange, ending: Reply | NotSent | Unknown) -> None:
        """The exchange's last word, if it hasn't been said."""
        # Whoever comes second is right to come: a cancel and an answer may be on their way in one pass of the loop.
        if not exchange.over:
            exchange.over = True
            exchange.carrier = None
            self._busy.take_back(exchange.slot, exchange)
            exchange.done(ending)

    def _finish_soon(self, exchange: Exchange, ending: NotSent | Unknown) -> None:
        """The same, in the next pass of the loop: callers of `begin` aren't ready for `done` inside it."""
        asyncio.get_running_loop().call_soon(self.finish, exchange, ending)

    def _write(self, exchange: Exchange, connection: Connection, now: int) -> None:
        exchange.carrier = connection
        if not connection.write(exchange, now):
            # Nothing went out, and yet there is no second try here: the engine decides about that, as about any other.
            exchange.carrier = None
            self._finish_soon(exchange, UNUSED)

    def _cancel(self, exchange: Exchange) -> None:
        self._stop(exchange, CANCELLED, Unknown(CANCELLED.detail), Reason.BODY_CUT)

    def _time_out(self, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            self._stop(exchange, NO_CONNECTION, Unknown("no answer in time", Reason.TIMEOUT), Reason.TIMEOUT)

    def _stop(self, exchange: Exchange, unsent: NotSent, unknown: Unknown, fault: Reason) -> None:
        if exchange.over:
            return
        if exchange in self._short:
            self.finish(exchange, NO_FILE if unsent is NO_CONNECTION else unsent)
        elif exchange.carrier is None:
            self.finish(exchange, unsent)  # its dial goes on for the next one
        else:
            exchange.carrier.cut(unknown.detail, fault, unknown.reason, unsent.cause)

    # -- dialing ------------------------------------------------------------------------------

    async def _dial(self, exchange: Exchange) -> None:
        """Open a connection and write the exchange on it, if it is still wanted then."""
        connection: Connection | None = None
        while connection is None:
            try:
                connection = await self._dialer.dial(self._connection)
            except NotConnected as error:
                if not error.is_short:
                    return self.finish(exchange, NotSent(Cause.UNREACHABLE, str(error)))
                await self._short.wait(exchange)
                if exchange.over:
                    return None
                connection = self._take(exchange, self.clock())
        now = self.clock()  # again: a dial takes time, and so the checks of `begin` are made again
        if not exchange.over and exchange.send_by is not None and exchange.send_by < now:
            self.finish(exchange, LATE)
        if exchange.over or connection.lost:
            self.finish(exchange, UNUSED)
            self.keep(connection, None)  # a handshake may have cost more than the call: the next one has it for nothing
        else:
            self._write(exchange, connection, now)
        return None

    def _connection(self, sock: socket.socket) -> Connection:
        return Connection(self, sock, self._head_cap, self.body_cap)

    def _dialed(self, task: asyncio.Task[None]) -> None:
        """Whatever ended the dial, the exchange is told.

        Not left to `_dial` itself: of a task cancelled before its first step no code runs.
        """
        exchange = self._dials.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            if exchange.carrier is None:
                self.finish(exchange, CANCELLED)
        elif exchange.carrier is None:
            self.finish(exchange, NotSent(Cause.UNREACHABLE, type(error).__name__))
        else:
            self.finish(exchange, Unknown(type(error).__name__))

    # -- connections --------------------------------------------------------------------------

    def joined(self, connection: Connection) -> None:
        """A connection is open."""
        self._all.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._all.discard(connection)
        self._idle.pop(connection, None)
        self._short.freed()
        if self._gone is not None and not self._all:
            self._gone.set()

    def keep(self, connection: Connection, told: int | None) -> None:
        """A connection that may be used again; `told`: the upstream keeps it for so long (ns)."""
        usable = self._idle_timeout if told is None else usable_for(told, self._dialer.longest)
        connection.usable_for = usable
        self._keep_until(connection, self.clock() + usable)

    def _keep_until(self, connection: Connection, until: int) -> None:
        if connection.lost:
            return
        if self._closed or len(self._all) > self._max_connections:
            # The limit may be passed for a moment: dials go on after their calls gave up. Here it is kept again.
            connection.abort()
            return
        self._idle[connection] = until
        self._short.freed()
        if self._idle_timer is None:
            self._arm(connection.usable_for)

    def never_again(self, connection: Connection) -> None:
        """One that was kept must not be used."""
        self._idle.pop(connection, None)

    def _set_aside(self, connection: Connection, until: int) -> None:
        """It isn't quiet: close it. Over TLS, let the loop first find out whether it was only a message of TLS's own.

        TLS 1.3 servers send session tickets after the handshake (RFC 8446, section 4.6.1). Without this, each
        connection that was dialed for a call that gave up would be closed unused.
        """
        if connection.may_chatter:
            asyncio.get_running_loop().call_later(SETTLING, self._keep_if_quiet, connection, until)
        else:
            connection.abort()

    def _keep_if_quiet(self, connection: Connection, until: int) -> None:
        if connection.is_quiet():
            self._keep_until(connection, until)  # it is as old as it was
        else:
            connection.abort()

    def _arm(self, delay: int) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(max(delay, TICK) / SECOND, self._sweep)

    def _sweep(self) -> None:
        """Close what can't be used any more, from the one that has been idle for longest up to one that still can."""
        self._idle_timer = None
        now = self.clock()
        while self._idle:
            connection, until = next(iter(self._idle.items()))  # the oldest: no more than what is due is looked at
            left = until - now
            if left > 0:
                self._arm(left)
                return
            del self._idle[connection]
            connection.abort()

    async def close(self) -> None:
        """End every exchange, and return when every connection is closed."""
        # Three kinds of open ends, each of which may still become the next: a dial a connection, an exchange a dial.
        # So the door is shut first, and connections are looked for twice.
        self._closed = True
        self._short.close()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        dials = list(self._dials)
        for task in dials:
            task.cancel()
        for exchange in self._busy.close():
            self._cancel(exchange)  # as what is known of it, and not just NotSent: it may have been written
        for connection in list(self._all):
            connection.abort()
        await asyncio.gather(*dials, return_exceptions=True)
        await asyncio.sleep(0)  # a connection that was being made is made, and then aborted, in the next pass
        await self._dialer.close()
        for connection in list(self._all):
            connection.abort()
        if self._all:
            self._gone = asyncio.Event()
            await self._gone.wait()

    def __repr__(self) -> str:
        return f"<Origin {self._name}: {len(self._all)} connections, {len(self._idle)} idle>"
