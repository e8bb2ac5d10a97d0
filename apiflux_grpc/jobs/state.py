"""OUTPUT.state: which calls a job has handed over, on the disk before it does so.

Rules:
- A head, then a note of 16 bytes for each call, written and flushed before the call is handed over. A call that is
  noted here and has no result in OUTPUT may have run.
- A note that can't be written, because the disk is full, leaves no part of itself: what was not noted is not handed
  over.
- Only one run at a time has an output: the file is locked while its state is open.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
from typing import TYPE_CHECKING, Final

from apiflux_grpc.jobs.job import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MAGIC: Final = b"APIFLUX\x03"
_OLDER: Final = b"APIFLUX\x02"  # calls were made of lines otherwise, so their digests say nothing
_NOTE: Final = struct.Struct("=QQ")  # the key, doubled, and one more if it is taken back; the digest
_NOTES_AT_ONCE: Final = 8 << 10


class State:
    """The notes of one output, open for one run, or with `peek` to be read alone; there may be none then.

    Raises Refused; OSError if the file can't be used.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, peek: bool = False) -> None:
        self.path = path
        if peek:
            self._file = os.open(path if path.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            return
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(
                    f"{path.with_suffix('')}: another run is writing to it; wait for its end, or name another --output"
                ) from None
            if overwrite:
                os.ftruncate(self._file, 0)
            self._read_head()
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Let go of the file, and of the lock."""
        os.close(self._file)

    @property
    def is_empty(self) -> bool:
        """Nothing was handed over yet."""
        return os.fstat(self._file).st_size == len(_MAGIC)

    def notes(self) -> Iterator[tuple[int, bool, int]]:
        """(key, is it taken back, digest) of each note, oldest first."""
        at = len(_MAGIC)
        while data := os.pread(self._file, _NOTE.size * _NOTES_AT_ONCE, at):
            at += len(data)
            for note, digest in _NOTE.iter_unpack(data[: len(data) // _NOTE.size * _NOTE.size]):
                yield note >> 1, bool(note & 1), digest

    def hand_over(self, calls: Iterable[tuple[int, int]]) -> None:
        """Note that these calls, by key and digest, are about to be handed over. Blocks until it is on the disk."""
        self._write((key << 1, digest) for key, digest in calls)

    def take_back(self, keys: Iterable[int]) -> None:
        """Note that these calls may be sent (again): they certainly didn't run, or may run twice."""
        self._write((key << 1 | 1, 0) for key in keys)

    def _read_head(self) -> None:
        head = os.pread(self._file, len(_MAGIC), 0)
        if len(head) < len(_MAGIC):  # new, or cut before anything was handed over
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _MAGIC, 0)
        elif head != _MAGIC:
            what = "was written by an older version" if head == _OLDER else "is not the state of a job"
            raise Refused(f"{self.path}: {what}; name another --output, or start over with --overwrite")
        else:
            size = os.fstat(self._file).st_size
            os.ftruncate(self._file, size - (size - len(_MAGIC)) % _NOTE.size)

    def _write(self, notes: Iterable[tuple[int, int]]) -> None:
        data = b"".join(itertools.starmap(_NOTE.pack, notes))
        size, at = os.fstat(self._file).st_size, 0
        try:
            while at < len(data):
                at += os.pwrite(self._file, data[at:], size + at)
            os.fdatasync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)  # a note of a call that isn't handed over would put it into doubt
            raise OSError(error.errno, error.strerror, str(self.path)) from None
