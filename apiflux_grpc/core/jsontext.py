"""JSON as text: where a document's members stand, and whether it can be embedded in a line as it is.

Rule: a document is carried and never made anew. Numbers keep their digits (1.10 is not 1.1, and 19 digits are more than
a float holds), names that are used twice stay, and so does whatever else two readers might understand differently. The
work is bounded by the text's length. Python's own scanner reads it: it says where a value ends.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

# A line that holds a document must be readable by others, some of which give up at a thousand, and by us when we are
# already some calls deep.
DEEPEST: Final = 500
_SPACE: Final = " \t\n\r"
_END_OF_SPACE: Final = re.compile(r"[ \t\n\r]*+").match
# A member up to its value, if its name has no escape; and what follows a value.
_NAME: Final = re.compile(r'[ \t\n\r]*+"([^"\\\x00-\x1f]*+)"[ \t\n\r]*+:[ \t\n\r]*+').match
_NEXT: Final = re.compile(r"[ \t\n\r]*+([,}])").match
_OTHERS: Final = bytes(set(range(256)).difference(b'"[]{}'))
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# Each escape; the group is half of a surrogate pair without its other half.
_ESCAPES: Final = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)")


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"JSON can't carry {constant}")


# Numbers stay text, so that none is too long.
_SCANNER: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refused)
# The value that begins at a place, and where it ends. Raises json.JSONDecodeError.
scan: Final[Callable[[str, int], tuple[Any, int]]] = _SCANNER.raw_decode
# Integers are read: what Python can't read back must not get into a line.
_read: Final = json.JSONDecoder(parse_constant=_refused).decode


class Member(NamedTuple):
    """A member of an object, and where in the text its value begins and ends."""

    name: str
    start: int
    end: int


class TooManyMembers(ValueError):
    """An object has more members than whoever asked wants to go through."""


def members(text: str, most: int = sys.maxsize) -> list[Member]:
    """Those of a document that is an object, in its order, names that are used twice included.

    A member takes 3 us, in Python. Raises TooManyMembers if there are more than `most`; ValueError
    (json.JSONDecodeError if it isn't JSON); RecursionError if it is nested too deeply.
    """
    at = _after_space(text, 0)
    if not text.startswith("{", at):
        scan(text, at)
        raise ValueError("must be a JSON object")
    found, end = _object(text, at, most)
    end = _after_space(text, end)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return found


def members_at(text: str, start: int, most: int = sys.maxsize) -> list[Member]:
    """The same of the object that begins at `start`, if one does; else none. Raises as `members` does."""
    return _object(text, start, most)[0] if text.startswith("{", start) else []


def _object(text: str, at: int, most: int) -> tuple[list[Member], int]:
    """The members of the object that begins at `at`, and where it ends."""
    found: list[Member] = []
    at = _after_space(text, at + 1)
    if text.startswith("}", at):
        return found, at + 1
    while True:
        if usual := _NAME(text, at):
            name, start = usual[1], usual.end()
        else:
            name, start = _name(text, at)
        _, end = scan(text, start)
        if len(found) == most:
            raise TooManyMembers
        found.append(Member(name, start, end))
        follows = _NEXT(text, end)
        if follows is None:
            raise json.JSONDecodeError("Expecting ',' delimiter", text, _after_space(text, end))
        at = follows.end()
        if follows[1] == "}":
            return found, at


def _name(text: str, at: int) -> tuple[str, int]:
    """The name of the member at `at`, and where its value begins."""
    at = _after_space(text, at)
    if not text.startswith('"', at):
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    name, at = scan(text, at)
    at = _after_space(text, at)
    if not text.startswith(":", at):
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    return name, _after_space(text, at + 1)


def document(text: str) -> str:
    """The one document that a text is, as it is but for white space around it. Raises as `members` does."""
    start = _after_space(text, 0)
    _, end = scan(text, start)
    if (rest := _after_space(text, end)) != len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return text[start:end]


def one_line(text: str) -> str:
    """A document as one line, as it is but for white space around it and its line ends.

    Raises ValueError if it isn't one JSON document, or one that not every reader takes: nested more than DEEPEST deep,
    with an integer of more digits than Python reads, or half of a surrogate pair.
    """
    try:
        _read(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if has_half_pair(text):
        raise ValueError("it has half of a surrogate pair")
    if text.count("[") + text.count("{") > DEEPEST and depth(text) > DEEPEST:
        raise ValueError("it is nested too deeply")
    # In a string a line end is escaped, and between two values there is more than white space.
    return text.strip(_SPACE).replace("\n", "").replace("\r", "")


def has_half_pair(text: str) -> bool:
    """Whether a string of this JSON has an escaped surrogate without its other half, which UTF-8 can't carry."""
    return ("\\ud" in text or "\\uD" in text) and any(_ESCAPES.findall(text))


def depth(text: str) -> int:
    """How deeply a document is nested; of what is no JSON, any number."""
    # A loop over the characters would take longer than the parser: without the escapes of backslash and quote, every
    # quote begins or ends a string, so every other piece between them is outside of strings.
    marks = text.encode().replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _OTHERS)
    outside = b"".join(marks.split(b'"')[::2])
    return max(accumulate(map(_STEP.__getitem__, outside)), default=0)


def _after_space(text: str, at: int) -> int:
    end = _END_OF_SPACE(text, at)
    assert end is not None
    return end.end()
