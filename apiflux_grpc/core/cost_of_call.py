"""What a call costs by its pool's rule, read from the body of its request.

Rule: nothing here raises, whatever a caller sends, and the work is bounded. What isn't there counts 0: a field that is
missing or no number, a body that is no JSON. A body above LARGEST_JSON, or with an object of more than MOST_MEMBERS on
the way to a field, isn't read: each of its bytes is counted, which is more than a field of it can have, so that the
largest calls aren't the cheapest.

The bytes of a field are counted as they will be sent, so the body is scanned in place: a value that was parsed and
written again would have another length.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.fields import LARGEST_JSON
from apiflux_grpc.core.jsontext import TooManyMembers, members, members_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.core.jsontext import Member
    from apiflux_grpc.core.rules import CostOfCall

MOST_MEMBERS: Final = 1_000  # of one object; going through them takes 5 ms
_is_number: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_TOO_MUCH: Final = Decimal(LARGEST_COST + 1)


def cost_of_call(rule: CostOfCall, body: bytes) -> int:
    """The sum, rounded up; at least `at_least`. At most LARGEST_COST + 1, which no key can pay."""
    number, size = _read(rule, body)
    total = number + Decimal(repr(rule.per_byte)) * size
    cost = int(min(total, _TOO_MUCH).to_integral_value(ROUND_CEILING))
    return max(cost, rule.at_least)


def _read(rule: CostOfCall, body: bytes) -> tuple[Decimal, int]:
    """The number that the rule asks for, and how many bytes it counts."""
    if len(body) > LARGEST_JSON or not (rule.json or rule.per_byte_of):
        return Decimal(0), len(body)
    try:
        text = body.decode()
        top = members(text, MOST_MEMBERS)
        numbers, counted = (list(_spans(text, top, path)) if path else [] for path in (rule.json, rule.per_byte_of))
    except TooManyMembers:
        return Decimal(0), len(body)
    except (ValueError, RecursionError):  # not one JSON object
        return Decimal(0), 0 if rule.per_byte_of else len(body)
    number = max((_number(text[start:end]) for start, end in numbers), default=Decimal(0))
    if rule.per_byte_of is None:
        return number, len(body)
    return number, max((len(text[start:end].encode()) for start, end in counted), default=0)


def _spans(text: str, found: list[Member], path: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where the values at this path begin and end: one, or as many as its names with `|` have."""
    for name in path[0].split("|"):
        span = _last(found, name)
        if span is not None and len(path) == 1:
            yield span
        elif span is not None:
            yield from _spans(text, members_at(text, span[0], MOST_MEMBERS), path[1:])


def _last(found: list[Member], name: str) -> tuple[int, int] | None:
    """Where the value of this name is; of a doubled name the last, as parsers have it."""
    return next(((start, end) for other, start, end in reversed(found) if other == name), None)


def _number(text: str) -> Decimal:
    """A JSON number from 0 to LARGEST_COST + 1; 0 if it isn't one."""
    value = float(text) if _is_number(text) else 0.0
    if value <= 0:
        return Decimal(0)
    return Decimal(text) if value <= LARGEST_COST else _TOO_MUCH
