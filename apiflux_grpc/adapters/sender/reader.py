"""Reads one answer from the bytes of its connection.

Rule: an answer is whole only if its framing says where it ends and that end came; what can't be told from a whole one
is refused. Head, body and framing each have a bound, so that no upstream costs more memory than head cap + body cap.

llhttp splits the bytes; what it lets pass and we must not is decided in the callbacks below. Names that begin with
`on_` are the parser's. Not known here: connections, who asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpResponseParser

from apiflux_grpc.adapters.sender.exchange import Reply
from apiflux_grpc.adapters.sender.idle import told

if TYPE_CHECKING:
    from apiflux_grpc.core.outcome import Reason
    from apiflux_grpc.engine.ports import Clock

SLACK: Final = 64 << 10  # bytes: as much as one read may bring, so a head may end that far past its cap
_NO_PARSER: Final = HttpResponseParser(None)


class Malformed(Exception):
    """The answer can't be read on; the text is safe to show."""


class _Stop(Exception):
    """Raised in a callback: llhttp then ends as it does for bytes that aren't HTTP."""


class Reader:
    """The answer that is coming; `expect` begins the next one."""

    __slots__ = (
        "_answered_at",
        "_behind",
        "_body_cap",
        "_clock",
        "_framed",
        "_head_cap",
        "_head_only",
        "_keep_alive",
        "_kept_for",
        "_names",
        "_parser",
        "_pieces",
        "_received",
        "_size",
        "_status",
        "_values",
        "_whole",
    )

    def __init__(self, head_cap: int, body_cap: int, clock: Clock) -> None:
        self._head_cap = head_cap
        self._body_cap = body_cap
        self._clock = clock
        self._parser = _NO_PARSER
        self._head_only = False
        self.reset()

    def expect(self, head_only: bool) -> None:
        """The next answer begins; `head_only`: it has no body, whatever its head says."""
        # A new parser for each answer: no state of an earlier one can leak into this one.
        self._parser = HttpResponseParser(self)
        self._head_only = head_only

    def reset(self) -> None:
        """Forget the last answer: a connection may be idle for long, and a body large."""
        self._status = 0  # of the final answer, once its head is whole
        self._names: list[bytes] = []  # of headers, in lower case, as often as they came
        self._values: list[bytes] = []
        self._answered_at = 0
        self._framed = False  # its head says where its body ends
        self._whole = False
        self._behind = False  # something came after its end
        self._keep_alive = False
        self._kept_for: int | None = None
        self._pieces: list[bytes] = []
        self._size = 0  # of the body
        self._received = 0

    def close(self) -> None:
        """Nothing more is read."""
        # A parser holds our methods, and we hold it. Only the garbage collector would find that circle, and late.
        self._parser = _NO_PARSER

    @property
    def received(self) -> int:
        """Bytes of this answer so far."""
        return self._received

    @property
    def reusable(self) -> bool:
        """After a whole answer: the connection may carry another exchange."""
        return self._keep_alive and not self._behind

    @property
    def kept_for(self) -> int | None:
        """How long the upstream keeps the connection when it is idle (ns), as far as this answer says."""
        return self._kept_for

    # -- bytes in -----------------------------------------------------------------------------

    def feed(self, data: memoryview) -> Reply | None:
        """The reply, if it is over; None: more is to come. Raises Malformed."""
        self._received += len(data)
        try:
            # The last byte goes in alone: if the answer was whole before it, something comes after the answer, and
            # llhttp, which stops at the end of a message, would not tell.
            self._parser.feed_data(data[:-1])
            self._behind = self._whole
            self._parser.feed_data(data[-1:])
        except HttpParserError:
            if self._whole:
                self._behind = True
                return self._reply(None)
            if self._size > self._body_cap:
                self._behind = True  # the rest of the body
                return self._reply(None, truncated=True)
            raise Malformed("the answer is not HTTP") from None
        if self._whole:
            return self._reply(None)
        if not self._status:
            if self._received > self._head_cap:
                raise Malformed("the answer's head is too large")
        # Framing may cost as much as a head of its own twice over, and 8 bytes for each byte of body: an upstream may
        # send one byte per chunk ("1\r\nx\r\n" is 6), but not extensions, zeros or trailers without end.
        elif self._received - self._size > 2 * self._head_cap + 8 * self._size:
            raise Malformed("the answer's framing is too large")
        return None

    def end(self) -> Reply | None:
        """The connection ended in order. The reply, if that is what ends its body (RFC 9112, section 6.3, rule 8)."""
        return self._reply(None) if self._status and not self._framed else None

    def cut(self, fault: Reason) -> Reply | None:
        """What has come of it, with this fault; None: not even a whole head."""
        return self._reply(fault) if self._status else None

    def _reply(self, fault: Reason | None, truncated: bool = False) -> Reply:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return Reply(self._status, self._names, self._values, body, self._answered_at, truncated, fault)

    # -- the parser's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._whole:
            raise _Stop  # the next answer, and nobody asked for one

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # a trailer: taken for a header, it could change what was decided by the head
        self._names.append(name.lower())
        self._values.append(value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # llhttp takes a code of 000 and a version of 2.0; neither has a meaning in HTTP/1.
        if status < 100 or not self._parser.get_http_version().startswith("1."):
            raise _Stop
        if 100 <= status < 200 and status != 101:
            # An interim answer, RFC 9110, section 15.2: the one that counts is still to come.
            self._names, self._values = [], []
            return
        if self._received > self._head_cap + SLACK:
            raise _Stop
        self._status = status
        self._answered_at = self._clock()
        self._keep_alive = self._parser.should_keep_alive()
        names = self._names
        if b"keep-alive" in names:
            self._kept_for = told(b", ".join(self._all(b"keep-alive")))
        if self._head_only:
            self._whole = True
            return
        # llhttp takes "gzip, chunked" for chunked and lets a 101 pass. We asked for neither, and what follows can't be
        # told from a whole body.
        coded = b"transfer-encoding" in names
        if status == 101 or (coded and not self._chunked()):
            raise _Stop
        self._framed = coded or b"content-length" in names or status in (204, 304)

    def _chunked(self) -> bool:
        return [coding.lower() for coding in self._all(b"transfer-encoding")] == [b"chunked"]

    def _all(self, name: bytes) -> list[bytes]:
        """The values of a header, as often as it came."""
        return [value for other, value in zip(self._names, self._values, strict=True) if other == name]

    def on_body(self, data: bytes) -> None:
        if self._whole:
            return  # HEAD: llhttp doesn't know the method, and takes what comes for a body
        self._size += len(data)
        self._pieces.append(data)
        if self._size > self._body_cap:
            raise _Stop

    def on_message_complete(self) -> None:
        if self._status:
            self._whole = True  # and not that of an interim answer

    def __repr__(self) -> str:
        return f"<Reader: {self._received} bytes, {'whole' if self._whole else f'status {self._status}'}>"
