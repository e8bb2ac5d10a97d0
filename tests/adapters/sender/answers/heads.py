"""The head of an answer: status lines, headers, its size, and interim answers before it."""

from __future__ import annotations

from tests.adapters.sender.answers.row import EITHER, END, LOST, OK, REFUSED, REST, S, Sections, section, whole
from tests.adapters.sender.script import FIN, HANG, TAKEN

ANSWERS: Sections = {}

# -- status lines ----------------------------------------------------------------------------------

row = section(ANSWERS, "status lines")

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

# -- headers ---------------------------------------------------------------------------------------

row = section(ANSWERS, "headers")

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

row = section(ANSWERS, "the size of a head")

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

row = section(ANSWERS, "interim answers")

for name, before in {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
    "199": b"HTTP/1.1 199 What\r\n\r\n",
    "five": b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
}.items():
    row(f"interim, {name}", before + OK, whole(), reuse=True)
    row(f"interim, {name}, in pieces", before, whole(), TAKEN, OK, reuse=True)
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
