"""A sequence that has one thing many times: the calls of a batch that are alike, and what each of them costs.

Rule: it takes the memory of that one thing, however many there are; so does a slice of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Same(Sequence[T]):
    """`one`, `count` times."""

    __slots__ = ("_count", "one")

    def __init__(self, one: T, count: int) -> None:
        self.one = one
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return Same(self.one, len(range(self._count)[place]))
        if not -self._count <= place < self._count:
            raise IndexError(place)  # what ends an iteration
        return self.one
