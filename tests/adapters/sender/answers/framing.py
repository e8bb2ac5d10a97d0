"""Where a body ends by its head: Content-Length and Transfer-Encoding."""

from __future__ import annotations

from apiflux_grpc.core.outcome import Reason
from tests.adapters.sender.answers.row import (
    EITHER,
    END,
    LOST,
    REFUSED,
    REST,
    UNKNOWN,
    S,
    Sections,
    Want,
    cut,
    section,
    whole,
)
from tests.adapters.sender.script import FIN, HANG

ANSWERS: Sections = {}

# -- Content-Length --------------------------------------------------------------------------------

row = section(ANSWERS, "Content-Length")

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

row = section(ANSWERS, "Transfer-Encoding")

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
