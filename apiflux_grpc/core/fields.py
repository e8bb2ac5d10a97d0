"""Where a value stands in an answer, in a header or in the JSON of its body; and what stands there.

Rule: who reads a value says what it may be. A list on the way stands for its elements, since errors often come in
lists: `error.details.retryDelay` finds the delay of whichever detail has one. Nothing here raises, whatever an upstream
sends, and the work is bounded: a body above LARGEST_JSON isn't parsed, and one below at most once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from apiflux_grpc.core.outcome import Answer

LARGEST_JSON: Final = 1 << 20  # bytes; parsing takes some ms, during which nothing else happens
_WORDS: Final = {True: "true", False: "false", None: "null"}


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A response header; `name` is in lower case."""

    name: str

    def __str__(self) -> str:
        """In words: `header x-cost`."""
        return f"header {self.name}"


@dataclass(frozen=True, slots=True)
class JsonField:
    """A field of a JSON body; `path` goes from object to object: ("usage", "total_tokens")."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        """In words: `usage.total_tokens`."""
        return ".".join(self.path)


Field = HeaderField | JsonField


def values_at(document: object, path: Iterable[str]) -> list[object]:
    """Every value at `path` of a parsed JSON document, in its order; none: []. The work is bounded by its size."""
    found = [document]
    for name in path:
        found = [value[name] for value in _objects(found) if name in value]
    return found


def _objects(values: Iterable[object]) -> Iterator[dict[str, object]]:
    for value in values:
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, dict):
                yield one


class Number(str):
    """A number of a JSON document, as it is written."""

    __slots__ = ()


class AnswerFields:
    """What one answer says at some places. Its body is parsed at most once, and only if it is asked for."""

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
        found = self.values(field)
        return [
            one if isinstance(one, str) else _WORDS[one] for one in found if one is None or isinstance(one, str | bool)
        ]

    def values(self, field: JsonField) -> list[object]:
        """What stands there in JSON; a number is a Number."""
        if not self._parsed:
            self._parsed = True
            self._document = _parsed(self._answer)
        found = values_at(self._document, field.path)
        return [Number(one.decode()) if isinstance(one, bytes) else one for one in found]


def _parsed(answer: Answer) -> object:
    """The body as JSON; None if it isn't JSON, or not all of it.

    Numbers are bytes, their text: unlike an object of our own that costs no more than reading them would, and an answer
    may be a list of 50,000.
    """
    if answer.truncated or answer.fault is not None or not 0 < len(answer.body) <= LARGEST_JSON:
        return None
    try:
        return json.loads(answer.body, parse_int=str.encode, parse_float=str.encode, parse_constant=str.encode)
    except (ValueError, RecursionError):  # not JSON, not UTF-8; nested too deep
        return None
