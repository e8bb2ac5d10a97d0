"""Which of a pool's limits a call meets, by its path.

Rule: calls that meet the same limits are of one *path class*, and class 0 meets only those that count every call. A
limit with paths counts a call whose path begins with one of them. The prefixes that one path begins with each begin
the next longer one, so the longest decides which limits it meets, and there are no more classes than prefixes.

Not known here: how calls of different classes are queued (lanes.py), and who pays (keyring.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.call import decoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from apiflux_grpc.core.model import Limit, Pool

MOST_CLASSES: Final = 8  # beside class 0: every key is ranked once for each


class Classes:
    """The path classes of limits. `of` is asked once for each call, and once more when the call is tried again."""

    __slots__ = ("_longest_first", "_numbers", "_prefixes", "_within", "count")

    def __init__(self, limits: Iterable[Limit]) -> None:
        scopes = dict.fromkeys(limit.paths for limit in limits if limit.paths)
        self._prefixes = tuple(sorted({prefix for scope in scopes for prefix in scope}, key=len, reverse=True))
        self._numbers: dict[frozenset[tuple[str, ...]], int] = {frozenset(): 0}
        self._longest_first: list[tuple[str, int]] = []
        for prefix in self._prefixes:
            met = frozenset(scope for scope in scopes if prefix.startswith(scope))
            self._longest_first.append((prefix, self._numbers.setdefault(met, len(self._numbers))))
        self.count = len(self._numbers)
        self._within = [
            tuple(number for scopes, number in self._numbers.items() if least <= scopes) for least in self._numbers
        ]

    def of(self, path: str) -> int:
        """The class of a call with this path, as its caller gave it."""
        path = decoded(path)
        if path.startswith(self._prefixes):
            for prefix, number in self._longest_first:
                if path.startswith(prefix):
                    return number
        return 0

    def scopes(self, number: int) -> frozenset[tuple[str, ...]]:
        """The `paths` of the limits that calls of this class meet beside those without any."""
        return next(scopes for scopes, its_number in self._numbers.items() if its_number == number)

    def within(self, number: int) -> tuple[int, ...]:
        """The classes whose calls meet at least the limits that those of this one meet, itself included."""
        return self._within[number]

    def meets(self, number: int, limit: Limit) -> bool:
        """Whether the limit counts calls of this class."""
        return not limit.paths or limit.paths in self.scopes(number)

    def __repr__(self) -> str:
        return f"<Classes {dict(self._longest_first)}>"


def classes_of(pool: Pool) -> Classes:
    """The path classes of a pool, by the limits of its keys and groups."""
    return Classes(_limits(pool))


def paths_of(pool: Pool) -> frozenset[tuple[str, ...]]:
    """The `paths` of its limits."""
    return frozenset(limit.paths for limit in _limits(pool) if limit.paths)


def _limits(pool: Pool) -> Iterator[Limit]:
    for key in pool.keys:
        yield from key.limits
    for group in pool.groups:
        yield from group.limits
