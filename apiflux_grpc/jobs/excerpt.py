"""The beginning of an answer's body, for people: what an upstream says of a mistake is mostly in its first lines.

Rule: at most LINES lines of WIDTH characters, whatever an upstream sent, and none that a terminal acts on: what isn't
printable is shown as an escape. A key's value isn't in it, for the server has masked it.
"""

from __future__ import annotations

from typing import Final

LINES: Final = 6
WIDTH: Final = 200  # characters of a line
_LOOKED_AT: Final = 4 * LINES * WIDTH  # bytes; UTF-8 has at most 4 for a character


def excerpt(body: bytes) -> list[str]:
    """The first lines that aren't empty; the last says so if there is more. [] if there is nothing to show."""
    head = body[:_LOOKED_AT]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(body) == len(head) or error.start < len(head) - 3:  # not just a character that the cut went through
            return [f"{len(body)} bytes that are not UTF-8"]
        text = head[: error.start].decode()
    found = [line.rstrip() for line in text.splitlines() if line.strip()]
    lines = [_harmless(line[:WIDTH])[:WIDTH] for line in found[:LINES]]
    if len(body) > len(head) or len(found) > LINES or any(len(line) > WIDTH for line in found[:LINES]):
        lines.append("...")
    return lines


def _harmless(text: str) -> str:
    return "".join(one if one.isprintable() else _escape(one) for one in text.replace("\t", "  "))


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode()
