"""The calls of a batch, as far as a plan must know them: what each costs, which limits it meets, whether it may run
twice.

Rule: a few bytes for each call, for a file may have millions; what is the same for all is kept once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.same import Same

if TYPE_CHECKING:
    from apiflux_grpc.core.classes import Classes

ANY: Final = Call()
ONCE: Final = Call(method="POST", idempotent=False)


class _Calls(Sequence[Call]):
    """ANY or ONCE for each call, by a byte of it."""

    __slots__ = ("_repeatable",)

    def __init__(self, repeatable: bytes) -> None:
        self._repeatable = repeatable

    def __len__(self) -> int:
        return len(self._repeatable)

    @overload
    def __getitem__(self, place: int) -> Call: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Call]: ...
    def __getitem__(self, place: int | slice) -> Call | Sequence[Call]:
        if isinstance(place, slice):
            return _Calls(self._repeatable[place])
        return ANY if self._repeatable[place] else ONCE


@dataclass(frozen=True, slots=True)
class Load:
    """`costs` None: each call costs 1. `classes` has the path class of each, None: 0, and `repeatable` is 1 for each
    that may run twice, None: all may."""

    costs: Sequence[int] | None = None
    classes: bytes | None = None
    repeatable: bytes | None = None

    def __len__(self) -> int:
        """How many calls; only of one that knows them each."""
        return len(self.costs or self.classes or self.repeatable or b"")

    def mix(self, size: int) -> Iterable[tuple[int, int, int]]:
        """(path class, cost, how many calls are of both), of a batch of this size."""
        if self.classes is None:
            costs = {self.costs.one: size} if isinstance(self.costs, Same) else Counter(self.costs or {1: size})
            return ((0, cost, count) for cost, count in costs.items())
        pairs = Counter(zip(self.classes, self.costs or Same(1, size), strict=True))
        return ((number, cost, count) for (number, cost), count in pairs.items())

    def calls(self, size: int) -> Sequence[Call]:
        """What the dispatcher sees of the calls."""
        return Same(ANY, size) if self.repeatable is None else _Calls(self.repeatable)

    def path_classes(self, size: int, classes: Classes) -> bytes | None:
        """The path class of each, if the pool has any."""
        return (self.classes or bytes(size)) if classes.count > 1 else None


ALIKE: Final = Load()
