"""The lowest level of a bucket since an instant.

Rule: what a call was charged too much can be given back as far as the bucket was never emptier than that since: had
it been charged less, every level from then on would be lower by as much. Beyond that the bucket would have stood empty
for a time, and what leaks out of an empty bucket makes no room.

A level is lowest just before something is taken, so these instants are kept, as a queue whose levels rise from front to
back: of two the later and lower one answers for both. It has MOST entries at most; then neighbours are put together,
which only makes lows lower.

Instants are ns.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

MOST: Final = 1_000  # even: one more is pairs, and the last, which stays


class Lows:
    """Levels that are lower than all that followed. `least` may be asked for any instant, once per call."""

    __slots__ = ("_at", "_level", "_lowered")

    def __init__(self) -> None:
        self._at: list[int] = []
        self._level: list[float] = []  # above the true ones by `_lowered`
        self._lowered = 0.0

    @property
    def size(self) -> int:
        """How many levels are kept."""
        return len(self._at)

    def note(self, level: float, now: int) -> None:
        """Something is taken at this level; `now` never goes back."""
        level += self._lowered
        while self._level and self._level[-1] >= level:
            self._level.pop()
            self._at.pop()
        self._level.append(level)
        self._at.append(now)
        if len(self._at) > MOST:  # of each two the lower level, until the later instant; the last stays
            self._at = [*self._at[1:-1:2], self._at[-1]]
            self._level = [*self._level[0:-2:2], self._level[-1]]

    def least(self, since: int, level: float) -> float:
        """The lowest level after `since`, the one of now included."""
        first = bisect_right(self._at, since)
        return level if first == len(self._at) else min(level, self._level[first] - self._lowered)

    def lower(self, amount: float) -> None:
        """So much was given back: every level that is known was lower, had it not been taken."""
        self._lowered += amount
