"""What a call costs by its pool's rule, read from the body of its request.

Rule: nothing here raises, whatever a caller sends, and the work is bounded. What isn't there counts 0: a field that is
missing or no number, a body that is no JSON. A body above LARGEST_JSON isn't read: each of its bytes is counted, which
is more than a field of it can have, so that the largest calls aren't the cheapest.

The bytes of a field are counted as they will be sent, so the body is scanned in place: a value that was parsed and
written again would have another length.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.fields import LARGEST_JSON
from apiflux_grpc.core.jsontext import members, members_at

if TYPE_CHECKING:
    from apiflux_grpc.core.jsontext import Member
    from apiflux_grpc.core.rules import CostOfCall

_is_number: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_TOO_MUCH: Final = Decimal(LARGEST_COST + 1)


def cost_of_call(rule: CostOfCall, body: bytes) -> int:
    """The sum, rounded up; at least `at_least`. At most LARGEST_COST + 1, which no key can pay."""
    total = Decimal(0)
    readable = len(body) <= LARGEST_JSON
    text, top = _top(body) if readable and (rule.json or rule.per_byte_of) else ("", [])
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


def _top(body: bytes) -> tuple[str, list[Member]]:
    """The body as text, and the members of its object; none if it isn't one JSON object."""
    try:
        text = body.decode()
        return text, members(text)
    except (ValueError, RecursionError):
        return "", []


def _span(text: str, top: list[Member], path: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the value at this path begins and ends."""
    span = _last(top, path[0])
    for name in path[1:]:
        if span is None:
            return None
        span = _last(members_at(text, span[0]), name)
    return span


def _last(found: list[Member], name: str) -> tuple[int, int] | None:
    """Where the value of this name is; of a doubled name the last, as parsers have it."""
    return next(((start, end) for other, start, end in reversed(found) if other == name), None)


def _number(text: str) -> Decimal:
    """A JSON number from 0 to LARGEST_COST + 1; 0 if it isn't one."""
    value = float(text) if _is_number(text) else 0.0
    if value <= 0:
        return Decimal(0)
    return Decimal(text) if value <= LARGEST_COST else _TOO_MUCH
