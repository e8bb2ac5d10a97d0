"""aiohttp as a way upstream: for pools with an egress proxy, and as the control of our own sender in the tests.

What an attempt ends as is decided in aiohttp_flight.py; here are the session, its connections and the attempts that are
open. Everything lives on the loop of the first `begin`, which makes the session.

What aiohttp's pool can't do: keep a connection for longer than the pool's setting, though the upstream tells a longer
time; and hand out the one used last, so a call that may not run twice closes older ones on its way to a fresh one.

Not here: retries, limits, redirects, cookies, a queue (the scheduler is the only one).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp

from apiflux_grpc.adapters.aiohttp_flight import Flight, Request
from apiflux_grpc.adapters.aiohttp_words import Failed
from apiflux_grpc.adapters.http_settings import HttpSettings, Requests
from apiflux_grpc.adapters.sender.idle import FRESH, longest_lately, told, usable_for
from apiflux_grpc.core.outcome import CLOSED, Reason
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

    from apiflux_grpc.engine.ports import Attempt, Clock


class AiohttpUpstream:
    """The calls of one pool over HTTP/1.1. Fulfils Upstream.

    Raises OSError or ssl.SSLError if a certificate file can't be read. Instants are those of `clock`.
    """

    def __init__(self, settings: HttpSettings, clock: Clock = time.monotonic_ns) -> None:
        self._settings = settings
        self._clock = clock
        self.requests = Requests(settings)
        self.body_cap = settings.body_cap
        self._ssl = settings.tls() or True
        self._open: set[Flight] = set()
        self._connections: dict[ResponseHandler, _Connection] = {}  # open ones
        self._round_trip = 0  # ns; the longest that connecting took lately
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def begin(self, attempt: Attempt) -> None:
        flight = Flight(self, attempt)
        attempt.handle = flight
        self._open.add(flight)
        flight.start(asyncio.get_running_loop())

    def cancel(self, attempt: Attempt) -> None:
        if isinstance(attempt.handle, Flight):
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
        """Made when it is first needed; raises Failed once closed."""
        if self._closed:
            raise Failed(CLOSED)
        if self._session is None:
            idle = self._settings.idle_timeout / SECOND
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=idle, ssl=self._ssl)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=Request,
                raise_for_status=False,
                auto_decompress=False,
                skip_auto_headers=("Content-Type",),
                max_line_size=self._settings.head_cap,
                max_field_size=self._settings.head_cap,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout / SECOND),
                trust_env=False,
                proxy=self._settings.egress_proxy,
            )
        return self._session

    def now(self) -> int:
        return self._clock()

    def over(self, flight: Flight) -> None:
        self._open.discard(flight)
        protocol = flight.protocol
        connection = None if protocol is None else self._connections.get(protocol)
        if connection is not None and connection.flight is flight:
            keep_alive = flight.keep_alive
            kept_for = None if keep_alive is None else told(keep_alive.encode())
            # As long as the pool's setting at most: aiohttp's own pool has one time for all connections.
            usable = self._settings.idle_timeout
            if kept_for is not None:
                usable = min(usable, usable_for(kept_for, self._round_trip))
            connection.flight, connection.since, connection.usable_for = None, self._clock(), usable

    def is_spent(self, protocol: ResponseHandler, idempotent: bool) -> bool:
        """The connection has been idle for too long, or for too long to carry a call that may not run twice."""
        connection = self._connections.get(protocol)
        if connection is None or connection.flight is not None:
            return False  # new, or given back a moment ago: `over` is still to come
        idle = self._clock() - connection.since
        return idle >= connection.usable_for or (idle >= FRESH and not idempotent)

    def on(self, protocol: ResponseHandler, flight: Flight, took: int) -> None:
        """The flight is on this connection now, and hears of its end; getting the connection `took` so long (ns).

        aiohttp doesn't end a body in which garbage came: its reader would wait until the attempt's time is up.
        """
        flight.protocol = protocol
        connection = self._connections.get(protocol)
        if connection is not None:
            connection.flight = flight
            return
        self._round_trip = longest_lately(self._round_trip, took)
        closed = protocol.closed
        if closed is not None:
            closed.add_done_callback(lambda future: self._lost(protocol, future))
            self._connections[protocol] = _Connection(flight)

    def _lost(self, protocol: ResponseHandler, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # or asyncio would log that nobody asked
        connection = self._connections.pop(protocol, None)
        if connection is not None and connection.flight is not None:
            connection.flight.connection_lost()

    def __repr__(self) -> str:
        return f"<AiohttpUpstream {self.requests.origin}: {len(self._open)} open>"


class _Connection:
    """An open connection: who is on it or, if nobody is, since when, and for how long it may be used (ns)."""

    __slots__ = ("flight", "since", "usable_for")

    def __init__(self, flight: Flight) -> None:
        self.flight: Flight | None = flight
        self.since = 0
        self.usable_for = 0
