"""What is shown of an answer's body: few lines, and none that a terminal acts on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.jobs.excerpt import LINES, WIDTH, excerpt


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", []),
        (b" \n\n", []),
        ("zwölf".encode(), ["zwölf"]),
        (b'{\n\t"error": {\n    "message": "no"\r\n  }\n}\n', ["{", '  "error": {', '    "message": "no"', "  }", "}"]),
        (b"\x1b[2J\x07 red \x9b", ["11 bytes that are not UTF-8"]),
        (b"\x1b[2J\x07\x00", ["\\x1b[2J\\x07\\x00"]),
        ("\u202egnp.exe\u200b\u2028x".encode(), ["\\u202egnp.exe\\u200b", "x"]),
        (b"\xff\xfe\x00", ["3 bytes that are not UTF-8"]),
        (b"a\n" * (LINES + 1), ["a"] * LINES + ["..."]),
        (b"x" * (WIDTH + 1), ["x" * WIDTH, "..."]),
        ("€".encode() * 5_000, ["€" * WIDTH, "..."]),
        (b"x" * 4_799 + "€".encode(), ["x" * WIDTH, "..."]),
    ],
)
def test_the_first_lines_are_shown(body: bytes, shown: list[str]) -> None:
    """As they are if they are text; what is not printable as an escape, and what is no text as its length."""
    assert excerpt(body) == shown


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_nothing_a_terminal_acts_on_gets_through(body: bytes) -> None:
    """Whatever an upstream sends: printable characters alone, and no more than the bounds."""
    lines = excerpt(body)
    assert all(line.isprintable() and len(line) <= WIDTH for line in lines)
    assert len(lines) <= LINES + 1
