"""Where a value stands in an answer: in a header, or in the JSON of its body.

Rule: places only, as they are configured; who reads them says what a value may be. A list on the way stands for its
elements, since errors often come in lists: `error.details.retryDelay` finds the delay of whichever detail has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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
