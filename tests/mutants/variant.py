"""What a broken variant of the package is."""

from __future__ import annotations

from typing import NamedTuple


class Variant(NamedTuple):
    """`old` becomes `new` in `file`, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
