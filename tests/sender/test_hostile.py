"""A hostile server, some hundred cases: what one answer makes of its call, and of the call behind it.

Rule: after each of them the next call gets its own answer, on the same connection only where that is safe.
"""

from __future__ import annotations

import gzip
import time
import zlib
from dataclasses import dataclass, replace

import pytest

from apiflux_grpc.core.model import MILLISECOND
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome, Reason, Unknown
from tests.sender.hostile import (
    CLOSE,
    CUT,
    DEAF,
    ECHO,
    FIN,
    HANG,
    PASSES,
    RST,
    WHOLE,
    Do,
    Stage,
    Step,
    World,
    passes,
    until,
)

BODY_CAP = 100_000
HEAD_CAP = 32_768
LARGE = bytes(24 << 20)  # more than two kernels keep between them

# -- what is expected ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Want:
    """The outcomes that are right: an Answer with one of `faults`, `status` and `body` (None: any), Unknown for one of
    `reasons`.
    """

    status: int | None = None
    body: bytes | None = None
    faults: tuple[Reason | None, ...] = ()
    reasons: tuple[Reason, ...] = ()
    truncated: bool = False

    def fits(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Unknown):
            return outcome.reason in self.reasons
        return (
            isinstance(outcome, Answer)
            and outcome.fault in self.faults
            and outcome.truncated == self.truncated
            and self.status in {None, outcome.status}
            and self.body in {None, outcome.body}
            and "x-stray" not in outcome.headers
        )

    def __str__(self) -> str:
        answer = f"Answer {self.status} {self.body and self.body[:40]!r} {self.faults}" if self.faults else ""
        unknown = f"Unknown {self.reasons}" if self.reasons else ""
        return f"<{' or '.join(filter(None, (answer, unknown)))}>"


def whole(body: bytes | None = b"ok", status: int = 200) -> Want:
    """An answer without a fault."""
    return Want(status, body, (None,))


def cut(body: bytes | None = None, status: int = 200) -> Want:
    """An answer whose body is not whole."""
    return Want(status, body, (Reason.BODY_CUT,))


UNKNOWN = (Reason.UNKNOWN,)
LOST = Want(reasons=UNKNOWN)  # no valid head: may have been executed
REFUSED = Want(faults=(Reason.BODY_CUT,), reasons=UNKNOWN)  # the head may count as valid, the body can't
EITHER = Want(200, b"ok", (None,), UNKNOWN)  # RFC 9112 leaves it open; both are safe
WHOLE_OR_CUT = Want(200, None, (None, Reason.BODY_CUT))  # this too
LATE = Want(reasons=(Reason.TIMEOUT,))


@dataclass(frozen=True)
class Row:
    """`reuse`: may the connection be used again? None: either is right. `control`: aiohttp is held to it too."""

    name: str
    steps: tuple[Step, ...]
    want: Want
    reuse: bool | None
    method: str = "GET"
    body: bytes = b""
    early: bool = False
    control: bool = True
    timeout: int = 30_000 * MILLISECOND


ROWS: dict[str, list[Row]] = {}  # by section


def section(name: str) -> None:
    ROWS[name] = []


def row(
    name: str,
    answer: bytes,
    want: Want,
    *then: Step,
    reuse: bool | None = False,
    method: str = "GET",
    body: bytes = b"",
    early: bool = False,
    control: bool = True,
    timeout: int = 30_000 * MILLISECOND,
) -> None:
    rows = list(ROWS.values())[-1]
    rows.append(Row(name, (answer, *then), want, reuse, method, body, early, control, timeout))


S = b"HTTP/1.1 200 OK\r\n"
OK = S + b"Content-Length: 2\r\n\r\nok"
STRAY = b"HTTP/1.1 418 Stray\r\nX-Stray: 1\r\nContent-Length: 5\r\n\r\nstray"
CHUNKED = S + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
REST = b"\r\nContent-Length: 2\r\n\r\nok"

# -- status lines ----------------------------------------------------------------------------------

section("status lines")

for name, line in {
    "plain": b"HTTP/1.1 200 OK",
    "no reason": b"HTTP/1.1 200 ",
    "no reason and no space": b"HTTP/1.1 200",
    "a long reason": b"HTTP/1.1 200 " + b"x" * 500,
    "a reason of many words": b"HTTP/1.1 200 it is all right",
    "a reason in Latin-1": b"HTTP/1.1 200 d\xe9j\xe0 vu",
    "a reason in UTF-8": "HTTP/1.1 200 déjà vu".encode(),
}.items():
    row(f"status line, {name}", line + REST, whole(), reuse=True)

for code in (200, 201, 202, 206, 226, 300, 301, 302, 400, 401, 404, 418, 429, 451, 500, 502, 503, 599, 600, 999):
    row(f"status {code}", b"HTTP/1.1 %d x" % code + REST, whole(status=code), reuse=True)

for name, line in {
    "empty": b"",
    "nonsense": b"nonsense",
    "code of letters": b"HTTP/1.1 abc OK",
    "code of two digits": b"HTTP/1.1 20 OK",
    "code of four digits": b"HTTP/1.1 2000 OK",
    "code of many digits": b"HTTP/1.1 " + b"2" * 400 + b" OK",
    "negative code": b"HTTP/1.1 -20 OK",
    "code with a plus": b"HTTP/1.1 +20 OK",
    "code with a dot": b"HTTP/1.1 2.0 OK",
    "code in hex": b"HTTP/1.1 0xc OK",
    "no code": b"HTTP/1.1",
    "no code but a space": b"HTTP/1.1 ",
    "code behind two spaces": b"HTTP/1.1  200 OK",
    "code behind a tab": b"HTTP/1.1\t200 OK",
    "code stuck to the version": b"HTTP/1.1200 OK",
    "another protocol": b"ICY 200 OK",
    "nearly HTTP": b"HTTQ/1.1 200 OK",
    "small letters": b"http/1.1 200 OK",
    "a space inside": b"HTTP /1.1 200 OK",
    "a space in front": b" HTTP/1.1 200 OK",
    "no version": b"HTTP 200 OK",
    "half a version": b"HTTP/1 200 OK",
    "version with three parts": b"HTTP/1.1.1 200 OK",
    "version of letters": b"HTTP/a.b 200 OK",
    "version of many digits": b"HTTP/11.1 200 OK",
    "HTTP/2": b"HTTP/2 200 OK",
    "HTTP/2.0": b"HTTP/2.0 200 OK",
    "HTTP/3.0": b"HTTP/3.0 200 OK",
    "HTTP/9.9": b"HTTP/9.9 200 OK",
    "NUL in the version": b"HTTP/1\0.1 200 OK",
    "bare CR in the reason": b"HTTP/1.1 200 O\rK",
    "a request": b"GET / HTTP/1.1",
    "a TLS record": b"\x16\x03\x01\x00\x05hello",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM",
    "NULs": bytes(100),
    "high bytes": b"\xff" * 100,
}.items():
    row(f"status line, {name}", line + REST, LOST, FIN)
    row(f"status line, {name}, and silence", line + REST, LOST, HANG)

row("status line, HTTP/1.0", b"HTTP/1.0 200 OK" + REST, whole())
row("status line, HTTP/1.0, keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive" + REST, whole(), reuse=None)
row("status line, HTTP/0.9", b"HTTP/0.9 200 OK" + REST, EITHER, FIN, reuse=None)
row("status line, HTTP/1.2", b"HTTP/1.2 200 OK" + REST, EITHER, FIN, reuse=None)
row("status line, code 000", b"HTTP/1.1 000 OK" + REST, LOST, FIN, control=False)
row("status line, code 099", b"HTTP/1.1 099 OK" + REST, LOST, FIN, control=False)
row("status line, ended by bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", EITHER, FIN, reuse=None)
row("status line, behind an empty line", b"\r\n" + OK, EITHER, FIN, reuse=None)
row("status line, NUL in the reason", b"HTTP/1.1 200 O\0K" + REST, EITHER, FIN, reuse=None)
row("status line, huge", b"HTTP/1.1 200 " + b"x" * 200_000 + REST, LOST)
row("status line, huge and silence", b"HTTP/1.1 200 " + b"x" * 200_000, LOST, HANG)
row("status line, endless", b"x" * 2_000_000, LOST, HANG)

# -- the end instead of an answer ------------------------------------------------------------------

section("the end instead of an answer")

for end in (FIN, CUT, CLOSE, RST):
    row(f"nothing, {end.name}", b"", LOST, end)
    row(f"half a status line, {end.name}", b"HTTP/1.1 20", LOST, end)
    row(f"half a head, {end.name}", S + b"Content-Le", LOST, end)
    row(f"a head without its empty line, {end.name}", S + b"Content-Length: 2\r\n", LOST, end)
    row(f"half a body, {end.name}", S + b"Content-Length: 4\r\n\r\nok", cut(b"ok"), end)
    row(f"a head and no body, {end.name}", S + b"Content-Length: 4\r\n\r\n", cut(b""), end)
    row(f"half a chunk, {end.name}", CHUNKED + b"4\r\nok", cut(b"ok"), end)
    row(f"chunks without an end, {end.name}", CHUNKED + b"2\r\nok\r\n", cut(b"ok"), end)
    row(f"half a last chunk, {end.name}", CHUNKED + b"2\r\nok\r\n0\r\n", cut(b"ok"), end)
    row(f"nearly all of the last chunk, {end.name}", CHUNKED + b"2\r\nok\r\n0\r\n\r", cut(b"ok"), end)
    row(f"whole by its length, {end.name}", OK, whole(), end)
    row(f"whole by its chunks, {end.name}", CHUNKED + b"2\r\nok\r\n" + END, whole(), end)
    row(f"whole without a body, {end.name}", S + b"Content-Length: 0\r\n\r\n", whole(b""), end)

row("nothing, in time", b"", LATE, HANG, timeout=200 * MILLISECOND)
row("half a head, in time", S, LATE, HANG, timeout=200 * MILLISECOND)
row(
    "half a body, in time",
    S + b"Content-Length: 4\r\n\r\nok",
    Want(200, b"ok", (Reason.TIMEOUT,)),
    HANG,
    timeout=200 * MILLISECOND,
)

# -- keep-alive ------------------------------------------------------------------------------------

section("keep-alive")

for value, kept in {
    b"close": False,
    b"Close": False,
    b"CLOSE": False,
    b" close ": False,
    b"keep-alive, close": False,
    b"close, keep-alive": False,
    b"x-hop,close": False,
    b"keep-alive": True,
    b"Keep-Alive": True,
    b"x-hop": True,
    b"": True,
}.items():
    head = S + b"Connection: " + value + REST
    row(f"Connection: {value.decode()!r}", head, whole(), reuse=kept, control=b"," not in value)
row("Connection twice", S + b"Connection: keep-alive\r\nConnection: close" + REST, whole(), control=False)
row("a name that ends in Connection", S + b"X-Connection: close" + REST, whole(), reuse=True)
row("an upgrade is offered", S + b"Connection: Upgrade\r\nUpgrade: h2c" + REST, whole(), reuse=None)

# -- Content-Length --------------------------------------------------------------------------------

section("Content-Length")

for value in (b"2", b" 2", b"2 ", b"\t2", b"  2  "):
    row(f"Content-Length {value.decode()!r}", S + b"Content-Length:" + value + b"\r\n\r\nok", whole(), reuse=True)
for value in (b"02", b"0" * 30 + b"2"):
    row(f"Content-Length {value.decode()}", S + b"Content-Length: " + value + b"\r\n\r\nok", EITHER, FIN, reuse=None)
for value in (
    *b"-1 -0 -2 +2 2.0 2e0 0x2 2x x2 2;2 2/2 two 0b10 2_0 _2 '2' \"2\"".split(b" "),
    b"",
    b" ",
    b"2 2",
    b"2,",
    b",2",
    b"2\x00",
    b"\xef\xbc\x92",
    b"2\x0b",
    b"\xb2",
    b"2, 3",
    b"3,2",
):
    row(f"Content-Length {value!r}", S + b"Content-Length: " + value + b"\r\n\r\nok", LOST, FIN)
for value in (b"18446744073709551616", b"18446744073709551618", b"340282366920938463463374607431768211458", b"9" * 400):
    row(f"Content-Length {value[:40].decode()}", S + b"Content-Length: " + value + b"\r\n\r\nok", REFUSED, FIN)
for value in (b"9223372036854775807", b"4294967298", b"2147483648"):
    row(f"Content-Length {value.decode()}", S + b"Content-Length: " + value + b"\r\n\r\nok", cut(b"ok"), FIN)
row("Content-Length, doubled", S + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", EITHER, FIN, reuse=None)
row("Content-Length 2, 2", S + b"Content-Length: 2, 2\r\n\r\nok", EITHER, FIN, reuse=None)
row("Content-Length, two", S + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", LOST, FIN)
row("Content-Length, two, longer first", S + b"Content-Length: 3\r\nContent-Length: 2\r\n\r\nok", LOST, FIN)
row("Content-Length, one of them empty", S + b"Content-Length: 2\r\nContent-Length:\r\n\r\nok", LOST, FIN)
row("Content-Length, a space before the colon", S + b"Content-Length : 2\r\n\r\nok", LOST, FIN)
row("Content-Length, a tab before the colon", S + b"Content-Length\t: 2\r\n\r\nok", LOST, FIN)
row("Content-Length in capitals", S + b"CONTENT-LENGTH: 2\r\n\r\nok", whole(), reuse=True)
row("Content_Length is another name", S + b"Content_Length: 1\r\n\r\nok", whole(), FIN)
row("Content-Length 0", S + b"Content-Length: 0\r\n\r\n", whole(b""), reuse=True)
row("Content-Length 0, and a body", S + b"Content-Length: 0\r\n\r\nok", whole(b""))
row("Content-Length too small", S + b"Content-Length: 1\r\n\r\nok", whole(b"o"))
row(
    "Content-Length and chunked",
    S + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + END,
    REFUSED,
)
row(
    "chunked and Content-Length",
    S + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n" + END,
    REFUSED,
)
row(
    "chunked and Content-Length 0",
    S + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n2\r\nok\r\n" + END,
    REFUSED,
)

# -- Transfer-Encoding -----------------------------------------------------------------------------

section("Transfer-Encoding")

for value in (b"chunked", b"Chunked", b"CHUNKED", b"  chunked  "):
    coded = S + b"Transfer-Encoding: " + value + b"\r\n\r\n2\r\nok\r\n" + END
    row(f"Transfer-Encoding {value.decode()!r}", coded, whole(), reuse=True)
for value in (
    b"gzip",
    b"gzip, chunked",
    b"gzip,chunked",
    b"chunked, gzip",
    b"chunked, chunked",
    b"chunked, identity",
    b"identity, chunked",
    b"identity",
    b"xchunked",
    b"x-chunked",
    b"chunkedx",
    b"chunked-x",
    b"chunked;q=1",
    b"chunked; a=b",
    b"chunk ed",
    b'"chunked"',
    b"chunked,",
    b",chunked",
    b"chunked chunked",
    b"chunked\x0b",
    b"\x0bchunked",
    b"deflate",
    b"br, chunked",
    b"",
    b"chunked\x00",
    b"\xff",
):
    coded = S + b"Transfer-Encoding: " + value + b"\r\n\r\n2\r\nok\r\n" + END
    row(f"Transfer-Encoding {value!r}", coded, REFUSED, FIN)
    row(f"Transfer-Encoding {value!r} and silence", coded, REFUSED, HANG, control=False)
coded = b"Transfer-Encoding: chunked\r\n"
row("Transfer-Encoding, doubled", S + coded + coded + b"\r\n2\r\nok\r\n" + END, REFUSED, FIN)
row(
    "Transfer-Encoding, gzip first", S + b"Transfer-Encoding: gzip\r\n" + coded + b"\r\n2\r\nok\r\n" + END, REFUSED, FIN
)
row("Transfer-Encoding, gzip last", S + coded + b"Transfer-Encoding: gzip\r\n\r\n2\r\nok\r\n" + END, REFUSED, FIN)
row(
    "Transfer-Encoding, a space before the colon",
    S + b"Transfer-Encoding : chunked\r\n\r\n2\r\nok\r\n" + END,
    LOST,
    FIN,
)
row("Transfer_Encoding is another name", S + b"Transfer_Encoding: chunked" + REST, whole(), reuse=True)
row("gzip and Content-Length", S + b"Transfer-Encoding: gzip" + REST, REFUSED, FIN)
row("identity and Content-Length", S + b"Transfer-Encoding: identity" + REST, REFUSED, FIN)
row(
    "chunked in HTTP/1.0",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + END,
    Want(200, None, (None, Reason.BODY_CUT), UNKNOWN),
    FIN,
)

# -- chunks ----------------------------------------------------------------------------------------

section("chunks")

for name, chunks, text in (
    ("one", b"2\r\nok\r\n", b"ok"),
    ("none", b"", b""),
    ("two", b"1\r\no\r\n1\r\nk\r\n", b"ok"),
    ("size in capitals", b"A\r\n0123456789\r\n", b"0123456789"),
    ("size in small letters", b"a\r\n0123456789\r\n", b"0123456789"),
    ("size with zeros", b"00002\r\nok\r\n", b"ok"),
    ("an extension", b"2;a=b\r\nok\r\n", b"ok"),
    ("an extension without a value", b"2;a\r\nok\r\n", b"ok"),
    ("a quoted extension", b'2;a="b;c"\r\nok\r\n', b"ok"),
    ("a CRLF inside", b"4\r\no\r\nk\r\n", b"o\r\nk"),
    ("an end inside", b"7\r\n\r\n0\r\n\r\n\r\n", b"\r\n0\r\n\r\n"),
    ("many", b"1\r\nx\r\n" * 500, b"x" * 500),
    ("a large one", b"10000\r\n" + b"x" * 65536 + b"\r\n", b"x" * 65536),
):
    row(f"chunks, {name}", CHUNKED + chunks + END, whole(text), reuse=True)

for name, chunks, part in (
    ("size of letters", b"zz\r\nok\r\n", b""),
    ("no size", b"\r\nok\r\n", b""),
    ("negative size", b"-2\r\nok\r\n", b""),
    ("size with a plus", b"+2\r\nok\r\n", b""),
    ("size with 0x", b"0x2\r\nok\r\n", b""),
    ("size with an underscore", b"0_2\r\nok\r\n", b""),
    ("size with a letter", b"2g\r\nok\r\n", b""),
    ("size in two parts", b"0 2\r\nok\r\n", b""),
    ("a space before the size", b" 2\r\nok\r\n", b""),
    ("size of 2^64", b"10000000000000000\r\nok\r\n", b""),
    ("size of 2^64 + 2", b"10000000000000002\r\nok\r\n", b""),
    ("size of 2^68", b"f" * 17 + b"\r\nok\r\n", b""),
    ("size of 2^128 + 2", b"1" + b"0" * 31 + b"2\r\nok\r\n", b""),
    ("size of many digits", b"f" * 1000 + b"\r\nok\r\n", b""),
    ("NUL behind the size", b"2\0\r\nok\r\n", b""),
    ("bare CR behind the size", b"2\rxok\r\n", b""),
    ("no CRLF behind the data", b"2\r\nok", b"ok"),
    ("others behind the data", b"2\r\nokXX", b"ok"),
    ("LF CR behind the data", b"2\r\nok\n\r", b"ok"),
    ("more data than its size", b"2\r\nokok\r\n", b"ok"),
    ("a huge extension", b"2;a=" + b"x" * 200_000 + b"\r\nok\r\n", None),
    ("an endless extension", b"2;" + b"x" * 3_000_000, None),
    ("a long name of an extension", b"2;" + b"x" * 200_000 + b"=1\r\nok\r\n", None),
    ("long extensions on every one", (b"1;" + b"x" * 3000 + b"\r\nx\r\n") * 300, None),
):
    fails = "extension" in name
    row(f"chunks, {name}", CHUNKED + chunks + END, cut(part), FIN, control=not fails)
    if name != "no CRLF behind the data":
        row(f"chunks, {name}, and silence", CHUNKED + chunks, cut(part), HANG, control=not fails)

for name, chunks in (
    ("bare LF behind the size", b"2\nok\r\n"),
    ("bare LF behind the data", b"2\r\nok\n"),
    ("a space behind the size", b"2 \r\nok\r\n"),
    ("a tab behind the size", b"2\t\r\nok\r\n"),
    ("an empty extension", b"2;\r\nok\r\n"),
    ("a bad extension", b"2;=\r\nok\r\n"),
    ("size with many zeros", b"0" * 60 + b"2\r\nok\r\n"),
):
    row(f"chunks, {name}", CHUNKED + chunks + END, WHOLE_OR_CUT, FIN, reuse=None, control=False)
row("chunks, a size without an end", CHUNKED + b"7fffffffffffffff\r\nok", cut(b"ok"), FIN)
row(
    "chunks, many tiny ones",
    CHUNKED + b"1\r\nx\r\n" * 50_000 + END,
    WHOLE_OR_CUT,
    FIN,
    reuse=None,
    control=False,
)
row("chunks, endless zeros", CHUNKED + b"0" * 3_000_000, cut(b""), HANG, control=False)

# -- trailers --------------------------------------------------------------------------------------

section("trailers")

LAST = CHUNKED + b"2\r\nok\r\n0\r\n"
row("trailers, one", LAST + b"X-Sum: 1\r\n\r\n", whole(), reuse=True)
row("trailers, some", LAST + b"".join(b"X-%d: 1\r\n" % n for n in range(20)) + b"\r\n", whole(), reuse=True)
row(
    "trailers, a length",
    LAST + b"Content-Length: 100\r\n\r\n",
    WHOLE_OR_CUT,
    FIN,
    reuse=None,
)
row("trailers, a coding", LAST + b"Transfer-Encoding: chunked\r\n\r\n", WHOLE_OR_CUT, FIN, reuse=None)
row("trailers, huge", LAST + b"X: " + b"x" * 200_000 + b"\r\n\r\n", cut(b"ok"), FIN, control=False)
row("trailers, very many", LAST + b"X: x\r\n" * 100_000 + b"\r\n", cut(b"ok"), FIN, control=False)
row("trailers, endless", LAST + b"X: x\r\n" * 500_000, cut(b"ok"), HANG, control=False)
row("trailers, no colon", LAST + b"nonsense\r\n\r\n", cut(b"ok"), FIN)
row("trailers, NUL", LAST + b"X: a\0b\r\n\r\n", cut(b"ok"), FIN)
row("trailers, cut", LAST + b"X: a\r\n", cut(b"ok"), FIN)

# -- bytes behind the answer -----------------------------------------------------------------------

section("bytes behind the answer")

for name, answer in {
    "length": OK,
    "chunks": CHUNKED + b"2\r\nok\r\n" + END,
    "no body": b"HTTP/1.1 204 No\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n",
}.items():
    got = whole() if name in {"length", "chunks"} else whole(b"", 204 if name == "no body" else 304)
    for what, more in {
        "one byte": b"x",
        "a line": b"\r\n",
        "a NUL": b"\0",
        "an answer": STRAY,
        "half an answer": STRAY[:20],
        "the same again": answer,
        "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
        "much": b"x" * 300_000,
    }.items():
        row(f"behind it ({name}), {what}", answer + more, got)
        row(f"a little behind it ({name}), {what}", answer, got, PASSES, more)

# -- answers before the request --------------------------------------------------------------------

section("answers before the request")

TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
got = whole(b"no", 413)
row("early, small request", TOO_LARGE, got, method="POST", body=b"x" * 100, early=True, reuse=True)
row("early, read on", TOO_LARGE, got, WHOLE, method="POST", body=LARGE, early=True)
row("early, deaf", b"", got, DEAF, TOO_LARGE, HANG, method="POST", body=LARGE, early=True)
row("early, deaf, FIN", b"", got, DEAF, TOO_LARGE, FIN, method="POST", body=LARGE, early=True)
row("early, deaf, RST", b"", got, DEAF, TOO_LARGE, RST, method="POST", body=LARGE, early=True, control=False)
row("early, FIN", TOO_LARGE, got, FIN, method="POST", body=LARGE, early=True)
row("early, RST", TOO_LARGE, got, RST, method="POST", body=LARGE, early=True, control=False)
row("early, close", TOO_LARGE, got, CLOSE, method="POST", body=LARGE, early=True, control=False)
row("early, half of it, RST", TOO_LARGE[:-1], cut(b"n", 413), RST, method="POST", body=LARGE, early=True, control=False)
row("early, no head, RST", TOO_LARGE[:20], LOST, RST, method="POST", body=LARGE, early=True)
row("early, nothing, RST", b"", LOST, RST, method="POST", body=LARGE, early=True)
row("early, nothing, FIN", b"", LOST, FIN, method="POST", body=LARGE, early=True)
row("early, garbage", b"nonsense\r\n\r\n", LOST, HANG, method="POST", body=LARGE, early=True)
row(
    "early, go on, then read",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    whole(),
    WHOLE,
    OK,
    method="POST",
    body=LARGE,
    early=True,
    reuse=True,
)
row("after reading, RST", OK, whole(), RST, method="POST", body=b"x" * 100_000)

# -- headers ---------------------------------------------------------------------------------------

section("headers")

for name, line in {
    "empty value": b"X:",
    "only spaces": b"X:    ",
    "no space behind the colon": b"X:1",
    "tabs": b"X:\t1\t2\t",
    "Latin-1": b"X: \xe9\xff",
    "UTF-8": "X: é€".encode(),
    "a name of odd letters": b"!#$%&'*+-.^_`|~9: 1",
    "a colon in the value": b"X: a:b",
    "a long name": b"x" * 1000 + b": 1",
    "a long value": b"X: " + b"x" * 6000,
    "a hundred": b"\r\n".join(b"X-%d: %d" % (n, n) for n in range(100)),
    "a hundred of one name": b"\r\n".join(b"X: %d" % n for n in range(100)),
}.items():
    row(f"header, {name}", S + line + REST, whole(), reuse=True)

for name, line in {
    "NUL in the value": b"X: a\0b",
    "NUL in the name": b"X\0: a",
    "CR in the value": b"X: a\rb",
    "CR in the name": b"X\r: a",
    "no colon": b"nonsense",
    "no name": b": a",
    "a space in the name": b"X Y: a",
    "a space before the colon": b"X : a",
    "a space before the name": b" X: a",
    "a tab before the name": b"\tX: a",
    "brackets in the name": b"X(): a",
    "high bytes in the name": b"X\xe9: a",
}.items():
    row(f"header, {name}", S + line + REST, LOST, FIN)
for name, line in {
    "a control in the value": b"X: a\x01b",
    "DEL in the value": b"X: a\x7fb",
    "folded": b"X: a\r\n b",
    "folded by a tab": b"X: a\r\n\tb",
    "folded and empty": b"X:\r\n b",
    "bare LF": b"X: a\nY: b",
}.items():
    row(f"header, {name}", S + line + REST, EITHER, FIN, reuse=None)
row("header, bare LF everywhere", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", EITHER, FIN, reuse=None)
row("header, folded length", S + b"Content-Length:\r\n 2\r\n\r\nok", EITHER, FIN, reuse=None)
row(
    "header, a length folded on",
    S + b"Content-Length: 1\r\n 0\r\n\r\nok",
    REFUSED,
    FIN,
)
row("header, folded coding", S + b"Transfer-Encoding: gzip,\r\n chunked\r\n\r\n2\r\nok\r\n" + END, REFUSED, FIN)
row("header, CR and no LF at the end", S + b"Content-Length: 2\r\n\rok", LOST, FIN)

# -- the size of a head ----------------------------------------------------------------------------

section("the size of a head")

row(
    "head, under the cap",
    S + b"".join(b"X-%02d: %s\r\n" % (n, b"x" * 500) for n in range(50)) + REST[2:],
    whole(),
    reuse=True,
)
row("head, over the cap in one", S + b"X: " + b"x" * 200_000 + REST, LOST, FIN)
row(
    "head, over the cap in many",
    S + b"".join(b"X-%05d: 1\r\n" % n for n in range(20_000)) + REST[2:],
    LOST,
    FIN,
    control=False,
)
row("head, over the cap in a name", S + b"x" * 200_000 + b": 1" + REST, LOST, FIN)
row("head, over the cap and silence", S + b"X: " + b"x" * 200_000, LOST, HANG)
row("head, many and silence", S + b"X: 1\r\n" * 100_000, LOST, HANG, control=False)

# -- interim answers -------------------------------------------------------------------------------

section("interim answers")

for name, before in {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
    "199": b"HTTP/1.1 199 What\r\n\r\n",
    "five": b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
}.items():
    row(f"interim, {name}", before + OK, whole(), reuse=True)
    row(f"interim, {name}, in pieces", before, whole(), PASSES, OK, reuse=True)
    row(f"interim, {name}, and no more", before, LOST, FIN)
    row(f"interim, {name}, and garbage", before + b"nonsense\r\n\r\n", LOST, HANG)
row("interim, a close in it", b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n" + OK, EITHER, FIN, reuse=None)
row("interim, with a body", b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nno" + OK, LOST, FIN)
row("interim, with a length", b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + OK, EITHER, FIN, reuse=None)
row(
    "interim, with chunks",
    b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n" + END + OK,
    LOST,
    FIN,
    control=False,
)
row("interim, endless", b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, LOST, HANG, control=False)
row("interim, endless, large", b"HTTP/1.1 103 Early\r\nX: %s\r\n\r\n" % (b"x" * 8000) * 400, LOST, HANG, control=False)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
row("101, and silence", SWITCH, REFUSED, HANG)
row("101, and an answer", SWITCH + OK, REFUSED, HANG)
row("101, and bytes", SWITCH + b"\0\1\2", REFUSED, FIN)
row("101, bare", b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK, REFUSED, HANG)
row("101, with a length", b"HTTP/1.1 101 Switching Protocols" + REST, REFUSED, HANG)

# -- answers without a body ------------------------------------------------------------------------

section("answers without a body")

row("204", b"HTTP/1.1 204 No\r\n\r\n", whole(b"", 204), reuse=True)
row("204, length 0", b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", whole(b"", 204), reuse=True)
row("204, with a body", b"HTTP/1.1 204 No" + REST, whole(b"", 204))
row(
    "204, chunked",
    b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + END,
    whole(b"", 204),
    control=False,
)
row("304", b"HTTP/1.1 304 Not\r\n\r\n", whole(b"", 304), reuse=True)
row("304, with a length", b"HTTP/1.1 304 Not\r\nContent-Length: 100\r\n\r\n", whole(b"", 304), reuse=True)
row("304, with a body", b"HTTP/1.1 304 Not" + REST, whole(b"", 304))
row("304, chunked and no body", b"HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\n\r\n", whole(b"", 304), reuse=None)
row("205", b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", whole(b"", 205), reuse=True)
row("HEAD, with a length", S + b"Content-Length: 100\r\n\r\n", whole(b""), method="HEAD", reuse=True)
row("HEAD, with a huge length", S + b"Content-Length: 9999999999\r\n\r\n", whole(b""), method="HEAD", reuse=True)
row("HEAD, chunked", CHUNKED, whole(b""), method="HEAD", reuse=None)
row("HEAD, no length", S + b"\r\n", whole(b""), method="HEAD", reuse=None)
row("HEAD, with a body", OK, whole(b""), method="HEAD")
row("HEAD, with a stray answer", S + b"Content-Length: 5\r\n\r\n" + STRAY, whole(b""), method="HEAD")
row("HEAD, with chunks", CHUNKED + b"2\r\nok\r\n" + END, whole(b""), method="HEAD")
row("HEAD, close", S + b"Connection: close\r\n\r\n", whole(b""), method="HEAD")
row("HEAD, 404", b"HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\n", whole(b"", 404), method="HEAD", reuse=True)
row("HEAD, half a head", S, LOST, FIN, method="HEAD")

# -- bodies that end with their connection ---------------------------------------------------------

section("bodies that end with their connection")

for name, head in {
    "bare": S + b"\r\n",
    "close": S + b"Connection: close\r\n\r\n",
    "keep-alive": S + b"Connection: keep-alive\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n",
}.items():
    row(f"until the end, {name}", head + b"ok", whole(), FIN)
    row(f"until the end, {name}, closed", head + b"ok", whole(), CLOSE)
    row(f"until the end, {name}, empty", head, whole(b""), FIN)
    row(f"until the end, {name}, RST", head + b"ok", cut(b"ok"), RST)
    row(f"until the end, {name}, empty, RST", head, cut(b""), RST, control=False)
    row(f"until the end, {name}, an answer in it", head + STRAY, whole(STRAY), FIN)

# -- the size of a body ----------------------------------------------------------------------------

section("the size of a body")

for size in (BODY_CAP - 1, BODY_CAP):
    row(f"body of {size}", S + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, whole(b"x" * size), reuse=True)
FULL = Want(200, b"x" * BODY_CAP, (None,), truncated=True)
row("body over the cap", S + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000, FULL, reuse=None)
row("body far over the cap", S + b"Content-Length: 99999999\r\n\r\n" + b"x" * 3_000_000, FULL, HANG)
row("body over the cap, chunked", CHUNKED + b"400\r\n%s\r\n" % (b"x" * 1024) * 3000, FULL, HANG)
row("body over the cap, until the end", S + b"\r\n" + b"x" * 3_000_000, FULL, HANG)

# -- codings of the content ------------------------------------------------------------------------

section("codings of the content")


def gzipped(data: bytes, name: bytes = b"gzip") -> bytes:
    return S + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (name, len(data), data)


ZIP = gzip.compress(b"ok" * 500)
row("gzip", gzipped(ZIP), whole(b"ok" * 500), reuse=True)
row("gzip, two members", gzipped(ZIP + ZIP), whole(None), reuse=None)
row("gzip, empty", gzipped(b""), WHOLE_OR_CUT, reuse=None)
row("gzip, not gzip", gzipped(b"nonsense"), cut(), reuse=None)
row("gzip, cut", gzipped(ZIP[:-10]), cut(), reuse=None, control=False)
row("gzip, a bad sum", gzipped(ZIP[:-8] + b"x" * 8), cut(), reuse=None)
row("gzip, bytes behind it", gzipped(ZIP + b"nonsense"), WHOLE_OR_CUT, reuse=None, control=False)
row("gzip, a bomb", gzipped(gzip.compress(b"x" * 30_000_000)), FULL, reuse=None)
row("deflate", gzipped(zlib.compress(b"ok" * 500), b"deflate"), whole(b"ok" * 500), reuse=True)


# -- the table -------------------------------------------------------------------------------------

# What aiohttp does otherwise, beside the rows that say so themselves.
KNOWN = {
    "status line, HTTP/2.0": "any version will do",
    "status line, HTTP/2.0, and silence": "any version will do",
    "Content-Length, a space before the colon": "the name keeps the space, and the body has no length",
    "Transfer-Encoding, a space before the colon": "the name keeps the space, and the body has no coding",
    "Transfer-Encoding b'chunked\\x0b'": "an unknown coding is none",
    "Transfer-Encoding b'\\x0bchunked'": "an unknown coding is none",
    "header, a space before the name": "the space is left out",
    "trailers, NUL": "trailers are left out unread",
    "101, bare": "waits for more until its time is up",
    "101, with a length": "waits for more until its time is up",
}


async def play(world: World, row: Row) -> None:
    async with world.stage(body_cap=BODY_CAP, head_cap=HEAD_CAP) as stage:
        server = stage.server
        server.on("/row", *row.steps, early=row.early)
        outcome = await stage.call("/row", row.method, body=row.body, timeout=row.timeout)
        # Where an answer is faulty, or bytes come behind it, the control may also call it lost.
        lost = not world.ours and not row.reuse and LOST.fits(outcome)
        assert lost or row.want.fits(outcome), f"{row.want} is not {outcome!r:.300}"
        await until(lambda: server.peers[0].resting)
        await passes()
        await stage.follow()
        if row.reuse is not None and world.ours:
            assert len(server.peers) == (1 if row.reuse else 2), "kept" if len(server.peers) == 1 else "not kept"


async def play_all(world: World, rows: list[Row]) -> None:
    """Plays each on a stage of its own, and fails with all that went wrong."""
    wrong: list[str] = []
    for row in rows:
        try:
            await play(world, row)
        except Exception as error:
            wrong.append(f"{row.name}: {str(error).splitlines()[0] if str(error) else repr(error)}")
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_the_table() -> None:
    """There are some hundred rows, and no two have the same name."""
    names = [row.name for rows in ROWS.values() for row in rows]
    assert len(names) == len(set(names))
    assert len(names) > 500
    assert set(KNOWN) <= set(names)


@pytest.mark.parametrize("name", ROWS)
def test_rows(ours: World, name: str) -> None:
    """Each answer makes of its call what the table says, and nothing of the next call."""
    ours.run(play_all(ours, ROWS[name]))


@pytest.mark.parametrize("name", ROWS)
def test_control(control: World, name: str) -> None:
    """What the table asks for isn't only our own idea: aiohttp says much the same."""
    control.run(play_all(control, [row for row in ROWS[name] if row.control and row.name not in KNOWN]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_in_pieces(ours: World, name: str) -> None:
    """It makes no difference in how many pieces an answer comes."""
    rows: list[Row] = []
    for row in ROWS[name]:
        answer, *then = row.steps
        if isinstance(answer, bytes) and len(answer) < 1500 and not row.early:
            pieces = [step for byte in answer for step in (bytes([byte]), PASSES)]
            rows.append(replace(row, steps=(*pieces, *then)))
    ours.run(play_all(ours, rows))


# -- connections that were kept --------------------------------------------------------------------


@pytest.mark.parametrize("end", [FIN, CUT, CLOSE, RST])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"])
def test_cut_behind_the_request(world: World, method: str, end: Step) -> None:
    """A kept connection that ends behind our request: it may have been executed, and nothing is sent again."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/cut", end)
            await stage.follow()
            outcome = await stage.call("/cut", method, body=b"x" if method in {"PUT", "POST", "PATCH"} else b"")
            assert LOST.fits(outcome), outcome
            assert stage.server.by_path()["/cut"] == 1
            assert len(stage.server.peers) == 1
            await stage.follow()
            assert len(stage.server.peers) == 2

    world.run(go())


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("end", [FIN, CUT, CLOSE, RST])
def test_ended_while_the_loop_was_busy(ours: World, end: Do, count: int) -> None:
    """Idle connections whose end the loop hasn't seen yet aren't used: the kernel knows it already."""

    async def go() -> None:
        async with ours.stage() as stage:
            server = stage.server
            await together(stage, count)
            for peer in server.peers:
                peer.end_now(end)
            busy()
            await stage.follow()
            assert len(server.peers) == count + 1

    ours.run(go())


@pytest.mark.parametrize("stray", [b"x", b"\r\n", STRAY, STRAY[:20], b"HTTP/1.1 408 Late\r\nConnection: close\r\n\r\n"])
@pytest.mark.parametrize("end", [None, FIN])
@pytest.mark.parametrize("seen", [True, False])
def test_stray_on_idle_connections(ours: World, stray: bytes, end: Do | None, seen: bool) -> None:
    """What came on idle connections is nobody's answer, whether the loop has seen it or only the kernel."""

    async def go() -> None:
        async with ours.stage() as stage:
            server = stage.server
            await together(stage, 3)
            for peer in server.peers:
                peer.send_now(stray)
                if end is not None:
                    peer.end_now(end)
            if seen:
                await until(lambda: not server.open)
            else:
                busy()
            await stage.follow()
            assert len(server.peers) == 4

    ours.run(go())


def busy() -> None:
    """Keeps the loop from seeing anything for a while."""
    time.sleep(0.02)


async def together(stage: Stage, count: int) -> None:
    """`count` calls at once, which leave as many idle connections."""
    stage.server.on("/together", PASSES, PASSES, 0.005, ECHO)
    told = [stage.begin("/together") for _ in range(count)]
    for one in told:
        assert isinstance(await one.over(), Answer)
    assert len(stage.server.peers) == count


def test_connections_are_kept(world: World) -> None:
    """Calls behind one another share a connection, whatever their methods and the framing of their answers."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/chunked", CHUNKED + b"2\r\nok\r\n" + END)
            stage.server.on("/none", b"HTTP/1.1 204 No\r\n\r\n")
            for _ in range(20):
                for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
                    assert isinstance(await stage.call("/", method), Answer)
                await stage.call("/chunked")
                await stage.call("/none")
            assert len(stage.server.peers) == 1

    world.run(go())


def test_no_queue(world: World) -> None:
    """As many calls go out as are begun: none waits for another one's connection."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/hang", HANG)
            told = [stage.begin("/hang") for _ in range(100)]
            await until(lambda: len(stage.server.requests) == 100)
            assert all(one.sent_at and not one.outcomes for one in told)

    world.run(go())


# -- what comes out --------------------------------------------------------------------------------


def test_trailers_are_no_headers(world: World) -> None:
    """What stands behind a body changes nothing of the head."""

    async def go() -> None:
        async with world.stage() as stage:
            head = S + b"X-A: head\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
            stage.server.on("/t", head + b"X-A: trailer\r\nX-B: trailer\r\n\r\n")
            outcome = await stage.call("/t")
            assert isinstance(outcome, Answer)
            assert outcome.headers["x-a"] == "head"
            assert "x-b" not in outcome.headers

    world.run(go())


def test_interim_headers_are_forgotten(world: World) -> None:
    """The headers of an interim answer aren't those of the answer."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/i", b"HTTP/1.1 103 Early\r\nX-A: early\r\nContent-Type: a/b\r\n\r\n" + OK)
            outcome = await stage.call("/i")
            assert isinstance(outcome, Answer)
            assert outcome.headers == {"content-length": "2"}

    world.run(go())


@pytest.mark.parametrize("name", [b"X", b"x", b"Set-Cookie"])
def test_headers(world: World, name: bytes) -> None:
    """Values are without the white space around them, and those of one name are joined in their order."""

    async def go() -> None:
        async with world.stage() as stage:
            lines = b"%s:1\r\n%s: 2  \r\n%s: \t3\t\r\nEmpty:  \r\n" % (name, name.upper(), name)
            stage.server.on("/h", S + lines + b"Content-Length: 2\r\n\r\nok")
            outcome = await stage.call("/h")
            assert isinstance(outcome, Answer)
            assert outcome.headers == {name.decode().lower(): "1, 2, 3", "empty": "", "content-length": "2"}

    world.run(go())


# -- send_by ---------------------------------------------------------------------------------------


def test_send_by(ours: World) -> None:
    """Past its send_by a call isn't written, and the connection that was made for it serves the next one."""

    async def go() -> None:
        async with ours.stage() as stage:
            server = stage.server
            late = stage.begin(send_by=time.monotonic_ns() + 200 * MILLISECOND)
            time.sleep(0.21)  # noqa: ASYNC251 - the loop is busy meanwhile
            assert isinstance(await late.over(), NotSent)
            await until(lambda: server.peers and (server.peers[0].secure or not ours.tls))
            await passes()
            assert isinstance(await stage.call(send_by=time.monotonic_ns() - 1), NotSent)
            await stage.follow()
            assert len(server.peers) == 1
            assert isinstance(await stage.call(send_by=time.monotonic_ns() + 60_000 * MILLISECOND), Answer)

    ours.run(go())
