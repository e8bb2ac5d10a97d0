"""What a call costs by its pool's rule, read from the body of its request.

Rule: nothing here raises, whatever a caller sends, and the work is bounded. What isn't there counts 0: a field that is
missing or no number, a body that is no JSON. A body above LARGEST_JSON isn't read: each of its bytes is counted, which
is more than a field of it can have, so that the largest calls aren't the cheapest.

The bytes of a field are counted as they will be sent, so the body is scanned in place: a value that was parsed and
written again would have another length. An object is walked member by member, and the standard decoder jumps over each
value.
"""

from __future__ import annotations

import json
import re
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.fields import LARGEST_JSON

if TYPE_CHECKING:
    from apiflux_grpc.core.rules import CostOfCall

_skip: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode  # str: a number may have any length
_white: Final = re.compile(r"[ \t\n\r]*").match
_is_number: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_TOO_MUCH: Final = Decimal(LARGEST_COST + 1)
_Spans = dict[str, tuple[int, int]]


def cost_of_call(rule: CostOfCall, body: bytes) -> int:
    """The sum, rounded up; at least `at_least`. At most LARGEST_COST + 1, which no key can pay."""
    total = Decimal(0)
    readable = len(body) <= LARGEST_JSON
    text, top = _top(body) if readable and (rule.json or rule.per_byte_of) else ("", {})
    if rule.json and (span := _span(text, top, rule.json)):
        total += _number(text[slice(*span)])
    if rule.per_byte:
        size = len(body)
        if rule.per_byte_of and readable:
            span = _span(text, top, rule.per_byte_of)
            size = len(text[slice(*span)].encode()) if span else 0
        total += Decimal(repr(rule.per_byte)) * size
    cost = int(min(total, _TOO_MUCH).to_integral_value(ROUND_CEILING))
    return max(cost, rule.at_least)


def _top(body: bytes) -> tuple[str, _Spans]:
    """The body as text, and where the members of its object are; none if it isn't one JSON object."""
    try:
        text = body.decode()
        members, end = _members(text, _end_of_white(text, 0))
        if _end_of_white(text, end) == len(text):
            return text, members
    except (ValueError, RecursionError):
        pass
    return "", {}


def _span(text: str, top: _Spans, path: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the value at this path begins and ends."""
    span = top.get(path[0])
    for name in path[1:]:
        if span is None or text[span[0]] != "{":
            return None
        span = _members(text, span[0])[0].get(name)
    return span


def _members(text: str, at: int) -> tuple[_Spans, int]:
    """Begin and end of each member's value, and the end of the object. Raises ValueError."""
    found: _Spans = {}
    mark, at = "{", _after("{", text, at)
    if text.startswith("}", at):
        return found, at + 1
    while mark != "}":
        if not text.startswith('"', at):
            raise ValueError("no name")
        name, at = _skip(text, at)
        at = _after(":", text, at)
        _, end = _skip(text, at)
        found[name] = at, end  # of a doubled name the last, as parsers have it
        at = _end_of_white(text, end)
        mark = text[at : at + 1]
        at = at + 1 if mark == "}" else _after(",", text, at)
    return found, at


def _after(mark: str, text: str, at: int) -> int:
    """Where the next thing begins after white space, this mark and white space. Raises ValueError."""
    at = _end_of_white(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark}")
    return _end_of_white(text, at + 1)


def _end_of_white(text: str, at: int) -> int:
    match = _white(text, at)
    assert match is not None  # it matches nothing, too
    return match.end()


def _number(text: str) -> Decimal:
    """A JSON number from 0 to LARGEST_COST + 1; 0 if it isn't one."""
    value = float(text) if _is_number(text) else 0.0
    if value <= 0:
        return Decimal(0)
    return Decimal(text) if value <= LARGEST_COST else _TOO_MUCH
