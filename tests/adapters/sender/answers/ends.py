"""What comes instead of an answer, after it, or before its request; and who may keep the connection."""

from __future__ import annotations

from apiflux_grpc.core.outcome import Reason
from tests.adapters.sender.answers.row import (
    CHUNKED,
    END,
    LATE,
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
from tests.adapters.sender.script import CLOSE, CUT, DEAF, FIN, HANG, RST, TAKEN, WHOLE

ANSWERS: Sections = {}

# -- the end instead of an answer ------------------------------------------------------------------

row = section(ANSWERS, "the end instead of an answer")

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

row("nothing, in time", b"", LATE, HANG, late=True)
row("half a head, in time", S, LATE, HANG, late=True)
row(
    "half a body, in time",
    S + b"Content-Length: 4\r\n\r\nok",
    Want(200, b"ok", (Reason.TIMEOUT,)),
    HANG,
    late=True,
)

# -- keep-alive ------------------------------------------------------------------------------------

row = section(ANSWERS, "keep-alive")

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

# -- bytes behind the answer -----------------------------------------------------------------------

row = section(ANSWERS, "bytes behind the answer")

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
        row(f"a little behind it ({name}), {what}", answer, got, TAKEN, more)

# -- answers before the request --------------------------------------------------------------------

row = section(ANSWERS, "answers before the request")

LARGE = bytes(24 << 20)  # more than two kernels keep between them
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
