"""Methods and paths of any number of calls, in short.

Rule: where paths differ in more than MOST ways, `*` stands for all of them, and behind DEEPEST segments `...` for the
rest. So the memory is bounded, whatever the paths are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST: Final = 8  # segments that are told apart in one place
DEEPEST: Final = 5


class Shapes:
    """Counts calls."""

    def __init__(self) -> None:
        self._methods: dict[str, _Place] = {}

    def add(self, method: str, path: str) -> None:
        """Count a call."""
        place = self._methods.setdefault(method or "GET", _Place())
        segments = path.removeprefix("/").split("/")
        if len(segments) > DEEPEST:
            segments[DEEPEST:] = ["..."]
        for segment in segments:
            place = place.at(segment)
        place.calls += 1

    def told(self, most: int) -> list[tuple[str, int]]:
        """(`POST /v1/users/*`, how many calls), the most frequent first; what is above `most` as one line."""
        found = [
            (f"{method} {path}", calls) for method, place in self._methods.items() for path, calls in place.paths("")
        ]
        found.sort(key=lambda one: (-one[1], one[0]))
        if len(found) <= most:
            return found
        return [*found[: most - 1], ("others", sum(calls for _, calls in found[most - 1 :]))]


class _Place:
    """What follows on the segments before it."""

    __slots__ = ("any", "calls", "next")

    def __init__(self) -> None:
        self.calls = 0  # whose path ends here
        self.next: dict[str, _Place] = {}
        self.any: _Place | None = None  # in place of all of `next`

    def at(self, segment: str) -> _Place:
        """Where this segment leads to."""
        if self.any is not None:
            return self.any
        found = self.next.get(segment)
        if found is None:
            if len(self.next) == MOST:
                return self._joined()
            found = self.next[segment] = _Place()
        return found

    def paths(self, before: str) -> Iterator[tuple[str, int]]:
        """(path, calls) of each that ends here or below."""
        if self.calls:
            yield before, self.calls
        for segment, place in self.next.items() if self.any is None else (("*", self.any),):
            yield from place.paths(f"{before}/{segment}")

    def _joined(self) -> _Place:
        """From now on all segments lead to one place, which has counted what they have."""
        self.any = _Place()
        for place in self.next.values():
            self.any.take(place)
        self.next = {}
        return self.any

    def take(self, other: _Place) -> None:
        """Count what the other has counted."""
        self.calls += other.calls
        if other.any is not None:
            (self.any or self._joined()).take(other.any)
        for segment, place in other.next.items():
            self.at(segment).take(place)
