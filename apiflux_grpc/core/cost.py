"""What a call really cost, if its answer tells.

Rule: what can't be read is no cost at all: the declared one stands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.fields import HeaderField, Number

if TYPE_CHECKING:
    from apiflux_grpc.core.fields import AnswerFields, Field

LARGEST_COST: Final = 10**15 - 1  # the largest Integer of a structured field, RFC 9651 section 3.3.1
_WHOLE: Final = re.compile(r"([0-9]{1,15})(?:\.0{1,18})?")


def cost_of(fields: AnswerFields, source: Field) -> int | None:
    """A whole number from 0 to LARGEST_COST (`12` and `12.0` are); None: the answer tells none, or isn't whole."""
    if isinstance(source, HeaderField):
        return _whole("".join(fields.texts(source)))
    found = fields.values(source)
    if len(found) != 1 or not isinstance(found[0], Number):
        return None
    number = found[0]
    whole = _whole(number)
    if whole is None and not number.isdigit():
        value = float(number)  # JSON may write it as 1.2e3, or -0.0
        if value.is_integer() and 0 <= value <= LARGEST_COST:
            whole = int(value)
    return whole


def _whole(text: str) -> int | None:
    match = _WHOLE.fullmatch(text)
    return int(match[1]) if match else None
