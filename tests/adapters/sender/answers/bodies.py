"""Bodies: none, one that ends with its connection, a large one, a compressed one."""

from __future__ import annotations

import gzip
import zlib

from tests.adapters.sender.answers.row import (
    BODY_CAP,
    CHUNKED,
    END,
    LOST,
    OK,
    REST,
    STRAY,
    S,
    Sections,
    Want,
    cut,
    section,
    whole,
)
from tests.adapters.sender.script import CLOSE, FIN, HANG, RST

ANSWERS: Sections = {}

# -- answers without a body ------------------------------------------------------------------------

row = section(ANSWERS, "answers without a body")

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

row = section(ANSWERS, "bodies that end with their connection")

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

row = section(ANSWERS, "the size of a body")

for size in (BODY_CAP - 1, BODY_CAP):
    row(f"body of {size}", S + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, whole(b"x" * size), reuse=True)
FULL = Want(200, b"x" * BODY_CAP, (None,), truncated=True)
row(
    "body one over the cap",
    S + b"Content-Length: %d\r\n\r\n" % (BODY_CAP + 1) + b"x" * (BODY_CAP + 1),
    FULL,
    reuse=None,
)
row("body over the cap", S + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000, FULL, reuse=None)
row("body far over the cap", S + b"Content-Length: 99999999\r\n\r\n" + b"x" * 3_000_000, FULL, HANG)
row("body over the cap, chunked", CHUNKED + b"400\r\n%s\r\n" % (b"x" * 1024) * 3000, FULL, HANG)
row("body over the cap, until the end", S + b"\r\n" + b"x" * 3_000_000, FULL, HANG)

# -- codings of the content ------------------------------------------------------------------------

row = section(ANSWERS, "codings of the content")


def gzipped(data: bytes, name: bytes = b"gzip") -> bytes:
    return S + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (name, len(data), data)


ZIP = gzip.compress(b"ok" * 500)
row("gzip", gzipped(ZIP), whole(b"ok" * 500), reuse=True)
row("gzip, two members", gzipped(ZIP + ZIP), whole(b"ok" * 1000), reuse=True)
row("gzip, empty", gzipped(b""), whole(b""), reuse=True)
row("gzip, not gzip", gzipped(b"nonsense"), cut(b"nonsense"), reuse=True)
row("gzip, cut", gzipped(ZIP[:-10]), cut(), reuse=True)
row("gzip, a bad sum", gzipped(ZIP[:-8] + b"x" * 8), cut(), reuse=True)
row("gzip, bytes behind it", gzipped(ZIP + b"nonsense"), cut(b"ok" * 500), reuse=True)
row("gzip, a bomb", gzipped(gzip.compress(b"x" * 30_000_000)), FULL, reuse=True)
row("deflate", gzipped(zlib.compress(b"ok" * 500), b"deflate"), whole(b"ok" * 500), reuse=True)
