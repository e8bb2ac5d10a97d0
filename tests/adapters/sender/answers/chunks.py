"""Chunks and trailers."""

from __future__ import annotations

from tests.adapters.sender.answers.row import CHUNKED, END, WHOLE_OR_CUT, Sections, cut, section, whole
from tests.adapters.sender.script import FIN, HANG

ANSWERS: Sections = {}

# -- chunks ----------------------------------------------------------------------------------------

row = section(ANSWERS, "chunks")

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

row = section(ANSWERS, "trailers")

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
