"""The way upstream over our own sender.

Rule: sender/ knows connections and this file knows calls. It makes the request's bytes, and of a reply the answer:
text, decoded if an upstream compressed it though nobody asked, without the key, and no larger than the cap.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from apiflux_grpc.adapters.decoding import decode
from apiflux_grpc.adapters.http_settings import HttpSettings, Requests
from apiflux_grpc.adapters.sender.exchange import Exchange, Reply
from apiflux_grpc.adapters.sender.origin import Origin
from apiflux_grpc.core.headers import Headers, text_of
from apiflux_grpc.core.outcome import Answer, NotSent, Unknown

if TYPE_CHECKING:
    from apiflux_grpc.adapters.masking import Mask
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.engine.ports import Attempt, Clock

# Heads of which the names are kept, and bytes of names: an upstream must not fill the memory with them.
_HEADS_KEPT: Final = 256
_LONGEST_KEPT: Final = 2_000


class HttpUpstream:
    """The calls of one pool over HTTP/1.1. Fulfils Upstream.

    Raises OSError or ssl.SSLError if a certificate file can't be read. Instants are those of `clock`.
    """

    def __init__(self, settings: HttpSettings, clock: Clock = time.monotonic_ns) -> None:
        if settings.egress_proxy is not None:
            raise ValueError("egress_proxy: use AiohttpUpstream, this sender can't go through a proxy")
        self._settings = settings
        self._requests = Requests(settings)
        self._names: dict[tuple[bytes, ...], tuple[str, ...]] = {}  # of a head, as bytes and as text
        self._origin = Origin(
            self._requests.host,
            self._requests.port,
            tls=settings.tls(),
            clock=clock,
            head_cap=settings.head_cap,
            body_cap=settings.body_cap,
            connect_timeout=settings.connect_timeout,
            idle_timeout=settings.idle_timeout,
            max_connections=settings.max_connections,
        )

    def begin(self, attempt: Attempt) -> None:
        call, key = attempt.call, attempt.key
        flight = _Flight(
            self._requests.made(call, key),
            head_only=call.method == "HEAD",
            deadline=attempt.permit.taken_at + attempt.timeout,
            send_by=attempt.send_by,
            idempotent=call.idempotent,
        )
        flight.attempt = attempt
        flight.home = self
        attempt.handle = flight
        self._origin.begin(flight)

    def cancel(self, attempt: Attempt) -> None:
        if isinstance(attempt.handle, _Flight):
            self._origin.cancel(attempt.handle)

    def connecting(self) -> int | None:
        return self._origin.connecting or None

    async def close(self) -> None:
        await self._origin.close()

    def outcome_of(self, attempt: Attempt, ending: Reply | NotSent | Unknown) -> Outcome:
        """What an exchange came to, as an outcome without the key in it."""
        if not isinstance(ending, Reply):
            return ending
        mask = self._requests.mask(attempt.key)  # the call's own key; no other can come back
        headers = self._text_of(ending, mask)
        body, fault, truncated = ending.body, ending.fault, ending.truncated
        cap = self._settings.body_cap
        if "content-encoding" in headers:
            headers, body, fault = decode(headers, body, cap, truncated, fault)
        # Before the cap, or that could cut a secret in two, and half of it would not be found.
        body = mask.body(body, truncated or fault is not None)
        if len(body) > cap:
            body, truncated = body[:cap], True
        return Answer(ending.status, headers, body, ending.answered_at, truncated, fault)

    def _text_of(self, reply: Reply, mask: Mask) -> Headers:
        values = reply.values
        if mask.finds(b"\n".join(values)):
            values = [mask.body(value) for value in values]
        raw = tuple(reply.names)
        names = self._names.get(raw)  # nearly all answers of an upstream have the same headers
        if names is None:
            names = tuple([name.decode("latin-1") for name in raw])
            if len(self._names) < _HEADS_KEPT and sum(map(len, raw)) <= _LONGEST_KEPT:
                self._names[raw] = names
        try:
            return Headers(names, tuple([value.decode() for value in values]))
        except UnicodeDecodeError:
            return Headers(names, tuple(map(text_of, values)))

    def __repr__(self) -> str:
        return f"<HttpUpstream {self._origin!r}>"


class _Flight(Exchange):
    """The exchange of one attempt."""

    __slots__ = ("attempt", "home")

    attempt: Attempt
    home: HttpUpstream

    def sent(self, at: int) -> None:
        self.attempt.sent(at)

    def done(self, ending: Reply | NotSent | Unknown) -> None:
        attempt = self.attempt
        attempt.handle = None
        attempt.done(self.home.outcome_of(attempt, ending))
