"""The way upstream over our own sender.

Rule: sender/ knows connections and this file knows calls. It makes the request's bytes, and of a reply the answer:
text, decoded if an upstream compressed it though nobody asked, without the key, and no larger than the cap.
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Final

from apiflux_grpc.adapters.http_settings import HttpSettings, Requests
from apiflux_grpc.adapters.sender.exchange import Exchange, Reply
from apiflux_grpc.adapters.sender.origin import Origin
from apiflux_grpc.core.outcome import Answer, NotSent, Reason, Unknown

if TYPE_CHECKING:
    from apiflux_grpc.adapters.masking import Mask
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.engine.ports import Attempt, Clock

# What zlib calls them: 47 is gzip or zlib, found out by its first bytes; 15 zlib, -15 the same without a frame.
_WBITS: Final = {"gzip": 47, "x-gzip": 47, "deflate": 15}
_NAMES_KEPT: Final = 1_000


class HttpUpstream:
    """The calls of one pool over HTTP/1.1. Fulfils Upstream.

    Raises OSError or ssl.SSLError if a certificate file can't be read. Instants are those of `clock`.
    """

    def __init__(self, settings: HttpSettings, clock: Clock = time.monotonic_ns) -> None:
        if settings.egress_proxy is not None:
            raise ValueError("egress_proxy: use AiohttpUpstream, this sender can't go through a proxy")
        self._settings = settings
        self._requests = Requests(settings)
        self._names: dict[bytes, str] = {}
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
        headers = self._text_of(ending.headers, mask)
        body, fault, truncated = ending.body, ending.fault, ending.truncated
        if body and "content-encoding" in headers:
            body, fault, truncated = self._decoded(headers, body, fault, truncated)
        # Before the cap, or that could cut a secret in two, and half of it would not be found.
        body = mask.body(body, truncated or fault is not None)
        cap = self._settings.body_cap
        if len(body) > cap:
            body, truncated = body[:cap], True
        return Answer(ending.status, headers, body, ending.answered_at, truncated, fault)

    def _text_of(self, headers: dict[bytes, bytes], mask: Mask) -> dict[str, str]:
        names = self._names
        if mask.finds(b"\n".join(headers.values())):
            headers = {name: mask.body(value) for name, value in headers.items()}
        texts = {}
        for name, value in headers.items():
            text = names.get(name)
            if text is None:
                text = name.decode("latin-1")
                if len(names) < _NAMES_KEPT:
                    names[name] = text
            texts[text] = value.decode("utf-8", "replace")
        return texts

    def _decoded(
        self, headers: dict[str, str], body: bytes, fault: Reason | None, truncated: bool
    ) -> tuple[bytes, Reason | None, bool]:
        """The body decompressed, up to the cap; unchanged if we can't."""
        coding = headers["content-encoding"].strip().lower()
        if coding not in _WBITS:
            return body, fault, truncated
        most = self._origin.body_cap + 1
        for wbits in (_WBITS[coding], -15):
            decoder = zlib.decompressobj(wbits)
            try:
                text = decoder.decompress(body, most)
            except zlib.error:
                if coding != "deflate":
                    break
                continue
            del headers["content-encoding"]
            headers.pop("content-length", None)
            if not decoder.eof and len(text) < most and not truncated:
                fault = fault or Reason.BODY_CUT
            return text, fault, truncated
        return body, fault or Reason.BODY_CUT, truncated

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
