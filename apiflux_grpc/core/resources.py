"""Which calls wait for a limit that the upstream counts for some of them only, and calls by a name of its own.

Rule: a limit that isn't configured may name what it is of (`x-ratelimit-resource: search`). If nothing is left of it,
only calls wait whose first path segment (decoded, as the caller gave it) has been answered with this name, and only for
that key. Which segments those are is learned from answers, for the whole pool.

They come back one after the other: how many there is room for then nobody says before the first answer, and hundreds
would be refused together. A wait that isn't told is a guess: a second, doubling with each refusal of a call that was
taken after the last.

Owner: the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apiflux_grpc.core.block import FIRST_GUESS, LONGEST_GUESS
from apiflux_grpc.core.call import decoded
from apiflux_grpc.core.units import SECOND

MOST_SEGMENTS: Final = 256
MOST_NAMES: Final = 16  # of one segment, and used up of one key

LONGEST_STEP: Final = SECOND // 10
MOST_IN_LINE: Final = 1 << 13  # calls that come back in as long a time as they waited


@dataclass(slots=True)
class Spent:
    """Nothing is left of it for one key, from `since` until `until` (ns); `renewed` is when that was last heard."""

    since: int
    until: int
    renewed: int
    guesses: int = 0
    step: int = 0  # between two calls that come back
    line: int = 0  # those that will


class Resources:
    """What the upstream calls them, and what is used up. `until`: after this nothing is, of any key."""

    __slots__ = ("_names", "_spent", "_touched", "until")

    def __init__(self, keys: int) -> None:
        self._names: dict[str, dict[str, None]] = {}  # by segment, all that it was answered with
        self._spent: tuple[dict[str, Spent], ...] = tuple({} for _ in range(keys))
        self._touched: dict[int, None] = {}  # the keys that anything was used up of
        self.until = 0

    def of(self, index: int) -> dict[str, Spent]:
        """By name, what is used up of the key at this place, or was."""
        return self._spent[index]

    def learn(self, path: str, name: str) -> None:
        """A call with this path was answered with the name."""
        segment = _segment(path)
        if segment not in self._names and len(self._names) >= MOST_SEGMENTS:
            del self._names[next(iter(self._names))]
        names = self._names.setdefault(segment, {})
        if name not in names:
            if len(names) >= MOST_NAMES:
                del names[next(iter(names))]
            names[name] = None

    def used_up(self, index: int, name: str, taken_at: int, now: int, wait: int) -> tuple[int, bool]:
        """An answer to a call taken at `taken_at` said that nothing is left for `wait` (ns); 0: it didn't say.
        Returns until when calls wait, and whether that is new."""
        spent = self._spent[index]
        self._touched[index] = None
        known = spent.get(name)
        was_until = now if known is None else known.until
        if known is None:
            if len(spent) >= MOST_NAMES:
                del spent[next(iter(spent))]
            known = spent[name] = Spent(now, now, -1)
        if wait:
            known.until = max(known.until, now + wait)
            known.step = min(LONGEST_STEP, wait // MOST_IN_LINE)
        elif taken_at > known.renewed:
            known.until = now + min(FIRST_GUESS << min(known.guesses, 40), LONGEST_GUESS)
            known.guesses += 1
            known.step = LONGEST_STEP
        known.renewed = now
        if known.until != was_until:
            known.line = 0
        self.until = max(self.until, known.until)
        return known.until, was_until <= now < known.until

    def left(self, index: int, name: str, taken_at: int) -> None:
        """An answer to a call taken at `taken_at` said that something is left."""
        known = self._spent[index].get(name)
        if known is not None and taken_at > known.renewed:
            del self._spent[index][name]
            if not self._spent[index]:
                del self._touched[index]

    def mask(self, path: str, now: int) -> int:
        """A bit (1 << its place) for each key with which a call of this path has to wait."""
        names = self._names.get(_segment(path), ())
        return sum(1 << index for index in self._touched if self._ends_at(index, names) > now) if names else 0

    def ends_at(self, path: str, index: int) -> int:
        """Until when a call of this path has to wait with this key; 0: it needn't."""
        return self._ends_at(index, self._names.get(_segment(path), ()))

    def in_line(self, path: str, index: int, at: int) -> int:
        """When a call of this path that can't be made with this key before `at` is to come back."""
        spent = self._spent[index]
        for name in self._names.get(_segment(path), ()) if spent else ():
            if name in spent and spent[name].until == at:
                spent[name].line += 1
                return at + (spent[name].line - 1) * spent[name].step
        return at

    def _ends_at(self, index: int, names: dict[str, None] | tuple[()]) -> int:
        spent = self._spent[index]
        return max((spent[name].until for name in names if name in spent), default=0) if spent else 0

    def __repr__(self) -> str:
        return f"<Resources of {len(self._names)} segments>"


def _segment(path: str) -> str:
    return decoded(path).split("/", 2)[1]
