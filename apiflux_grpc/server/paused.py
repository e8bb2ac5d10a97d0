"""Which keys are paused, in one file that a restart finds, and every server with the same state_dir.

Rule: the file is replaced whole, so that whoever reads it has all of one change or nothing, and two that change it at
once do so one after the other: the lock is on a file beside it, for the file itself is another after each change. What
can't be read is named; nothing is guessed.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME: Final = "paused.json"
_LOCK: Final = "paused.lock"

Place = tuple[str, str]  # pool, label


class PausedFileError(Exception):
    """The file can't be used; the text names it and says what to do."""


class PausedFile:
    """In this directory, which is made if need be."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / NAME

    def read(self) -> frozenset[Place]:
        """Who is paused. Raises PausedFileError."""
        try:
            found = json.loads(self.path.read_bytes())
            return frozenset((str(pool), str(label)) for pool, labels in found["paused"].items() for label in labels)
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise PausedFileError(f"{self.path} can't be read: {error.strerror}") from None
        except (ValueError, LookupError, AttributeError, TypeError):
            why = 'isn\'t {"paused": {"POOL": ["LABEL"]}}; correct it, or remove it: then no key is paused'
            raise PausedFileError(f"{self.path} {why}") from None

    def change(self, places: Iterable[Place], *, paused: bool) -> frozenset[Place]:
        """Pause or resume these too. Returns who is paused now. Raises PausedFileError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with (self._directory / _LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                now = self.read() | {*places} if paused else self.read() - {*places}
                self._write(now)
                return now
        except OSError as error:
            raise PausedFileError(f"{self.path} can't be written: {error.strerror}") from None

    def _write(self, now: frozenset[Place]) -> None:
        pools: dict[str, list[str]] = {}
        for pool, label in sorted(now):
            pools.setdefault(pool, []).append(label)
        written = self.path.with_suffix(".new")
        with written.open("w") as file:
            json.dump({"paused": pools}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(self.path)
