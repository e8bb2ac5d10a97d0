"""The first of a pool's rules that matches an answer; and what the answer says at some place.

Rule: nothing here raises, whatever an upstream sends, and the work is bounded: a body above LARGEST_JSON isn't parsed,
and one below once, when a rule first asks for it. A value is compared as it is written: `429` and "429" are the same,
`1.0` and `1` are not.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.cost import LARGEST_JSON
from apiflux_grpc.core.fields import HeaderField, values_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.fields import Field
    from apiflux_grpc.core.outcome import Answer
    from apiflux_grpc.core.rules import AnswerRule

_WORDS: Final = {True: "true", False: "false", None: "null"}


class AnswerFields:
    """The fields of one answer."""

    __slots__ = ("_answer", "_document", "_parsed")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._document: object = None
        self._parsed = False

    def texts(self, field: Field) -> list[str]:
        """What stands there, each value as it is written; an object or a list is no value."""
        if isinstance(field, HeaderField):
            value = self._answer.headers.get(field.name)
            return [] if value is None else [value.strip()]
        if not self._parsed:
            self._parsed = True
            self._document = _parsed(self._answer)
        found = values_at(self._document, field.path)
        return [
            one if isinstance(one, str) else _WORDS[one] for one in found if one is None or isinstance(one, str | bool)
        ]


def first_match(rules: Sequence[AnswerRule], fields: AnswerFields, status: int) -> AnswerRule | None:
    """The first rule that matches the answer of this status with these fields; None: none does."""
    for rule in rules:
        if rule.status and not any(low <= status <= high for low, high in rule.status):
            continue
        if all(any(text in one.values for text in fields.texts(one.field)) for one in rule.conditions):
            return rule
    return None


def _parsed(answer: Answer) -> object:
    """The body as JSON, numbers as their text; None if it isn't JSON, or not all of it."""
    if answer.truncated or answer.fault is not None or not 0 < len(answer.body) <= LARGEST_JSON:
        return None
    try:
        return json.loads(answer.body, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
