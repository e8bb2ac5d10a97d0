"""Structured fields of HTTP, RFC 9651: the members of a List or a Dictionary, and their parameters.

Rule: one fault spoils the whole field, as section 4.2 says; nothing raises, and the work is bounded.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_VALUE: Final = 1024  # characters of one header
MOST_ITEMS: Final = 32  # in one header

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_BARE: Final = (
    r'"(?:[ !#-\[\]-~]|\\["\\])*"'  # String
    r"|-?[0-9]+(?:\.[0-9]+)?"  # Integer, Decimal
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"  # Token
    r"|:[A-Za-z0-9+/=]*:"  # Byte Sequence
    r"|\?[01]"  # Boolean
    r"|@-?[0-9]+"  # Date
    r'|%"[ !#-~]*"'  # Display String
)
_MEMBER: Final = re.compile(rf"(?:({_KEY})=)?({_BARE})")
_PARAMETER: Final = re.compile(rf"[ \t]*;[ \t]*({_KEY})(?:=({_BARE}))?")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")


def members(text: str) -> list[tuple[str, str, dict[str, str]]] | None:
    """(key or "", bare item, parameters) of each member; None: it isn't one.

    Spaces before ";" pass: early drafts of RateLimit had them.
    """
    found: list[tuple[str, str, dict[str, str]]] = []
    if len(text) > LONGEST_VALUE:
        return None
    text = text.strip(" \t")
    end = len(text)
    position = 0
    while position < end:
        member = _MEMBER.match(text, position) if len(found) < MOST_ITEMS else None
        if member is None:
            return None
        position = member.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            parameters[parameter[1]] = parameter[2] or "?1"
            position = parameter.end()
        found.append((member[1] or "", member[2], parameters))
        if position < end:
            comma = _COMMA.match(text, position)
            if comma is None or comma.end() == end:
                return None
            position = comma.end()
    return found


def integer(text: str) -> int | None:
    """An Integer that isn't negative; None: something else."""
    return int(text) if len(text) <= 15 and text.isascii() and text.isdigit() else None
