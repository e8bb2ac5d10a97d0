"""Where a value stands in an answer: in a header, or in the JSON of its body.

Rule: places only, as they are configured; who reads them says what a value may be.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A response header; `name` is in lower case."""

    name: str


@dataclass(frozen=True, slots=True)
class JsonField:
    """A field of a JSON body; `path` goes from object to object: ("usage", "total_tokens")."""

    path: tuple[str, ...]


Field = HeaderField | JsonField
