"""Results that were taken out of an output until it is known whether their calls are sent again.

Rule: through a pipe the line that decides it comes after the output was written anew. Until then the old file is kept,
though it has no name any more: what isn't sent again is put back from there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Shelf:
    """Where in the old file a result is, by the key of its call."""

    def __init__(self) -> None:
        self._file = -1
        self._places: dict[int, tuple[int, int]] = {}

    def open(self, path: Path) -> None:
        """Keep the old file. Raises OSError."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def put(self, key: int, at: int, length: int) -> None:
        """A result was taken out of the old file."""
        self._places[key] = at, length

    def drop(self, key: int) -> bool:
        """Forget a result; False: it isn't here."""
        return self._places.pop(key, None) is not None

    def take(self, key: int) -> bytes | None:
        """A result, to be put back; None: it isn't here."""
        place = self._places.pop(key, None)
        return None if place is None else os.pread(self._file, place[1], place[0])

    def rest(self) -> Iterator[bytes]:
        """Take all that are left, in their order."""
        for key in list(self._places):
            if (line := self.take(key)) is not None:
                yield line
