"""What a call really cost, if its answer tells.

Rule: nothing here raises, whatever an upstream sends, and the work is bounded: a body above LARGEST_JSON isn't parsed.
What can't be read is no cost at all: the declared one stands.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.fields import HeaderField, values_at

if TYPE_CHECKING:
    from apiflux_grpc.core.fields import Field
    from apiflux_grpc.core.outcome import Answer

LARGEST_COST: Final = 10**15 - 1  # the largest Integer of a structured field, RFC 9651 section 3.3.1
LARGEST_JSON: Final = 1 << 20  # bytes; parsing takes some ms, during which nothing else happens
_WHOLE: Final = re.compile(r"([0-9]{1,15})(?:\.0{1,18})?")


def cost_of(answer: Answer, source: Field) -> int | None:
    """A whole number from 0 to LARGEST_COST (`12` and `12.0` are); None: the answer tells none, or isn't whole."""
    if isinstance(source, HeaderField):
        match = _WHOLE.fullmatch(answer.headers.get(source.name, "").strip())
        return int(match[1]) if match else None
    if answer.truncated or answer.fault is not None or len(answer.body) > LARGEST_JSON:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of too many digits; nested too deep
        return None
    found = values_at(document, source.path)
    if len(found) != 1:
        return None
    value = found[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_COST:
        return None
    return value
