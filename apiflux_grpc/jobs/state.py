"""What a job knows of its earlier runs: the results in its output, and the calls that were handed over.

Rules:
- Beside OUTPUT lies OUTPUT.state: a head, then a note of 16 bytes for each call, written and flushed to the disk before
  the call is handed over. A call that is noted there and has no result in OUTPUT may have run.
- A call is known by its id, or by its index where it has none. In memory that is 5 bytes per index, and 20 to 39 bytes
  per id: of an id only 62 bits of a hash are kept, so among a million ids two are mistaken for each other with a
  chance of 1 in 9 million.
- A note has a digest of what the call asks for, too: another call under the same id or index is found by it, but for
  one in 4 billion.
- Where something can't be written, because the disk is full, the files end with a whole line and a whole note, and
  what was not noted is not handed over.
- Only one run at a time has an output: the state is locked while it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import struct
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAGIC: Final = b"APIFLUX\x02"
_NOTE: Final = struct.Struct("=QQ")  # the key, doubled, and one more where it is taken back; the digest
_NOTES_AT_ONCE: Final = 8 << 10
_HOW: Final = ("id", "timeout", "cost", "idempotent")  # what doesn't say what a call asks for

DONE: Final = 1  # has a result
HANDED: Final = 2  # was handed over
SEEN: Final = 4  # stands in the input
FED: Final = 8  # was met while sending
AGAIN: Final = 16  # its result is a failure, and it may be sent again
MOST_INDEX: Final = 1 << 32


class CannotResume(Exception):
    """The output is not one that this job can go on with."""


def key_of(id: str, index: int) -> int:
    """What a call is known by: below 2^63, odd for ids."""
    if not id:
        return index << 1
    return int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "little") >> 2 << 1 | 1


def digest_of(call: pb.Call) -> int:
    """Of what a call asks for, in 32 bits, and never 0. How long it may take, and whether it may be sent again, can
    change between two runs."""
    asked = pb.Call()
    asked.CopyFrom(call)
    for name in _HOW:
        asked.ClearField(name)
    asked.method = asked.method or "GET"
    data = asked.SerializeToString(deterministic=True)
    return int.from_bytes(blake2b(data, digest_size=4).digest(), "little") or 1


class Known:
    """Flags and a digest (0: none) for each key. Indexes lie in a row, ids in a hash table with open addressing."""

    def __init__(self) -> None:
        self._row = bytearray()
        self._row_digests = array("I")
        self._size = 1024
        self._keys = array("Q", bytes(8 * self._size))
        self._flags = bytearray(self._size)
        self._digests = array("I", bytes(4 * self._size))
        self._used = 0

    def __getitem__(self, key: int) -> int:
        if key & 1:
            return self._flags[self._slot(key)]
        index = key >> 1
        return self._row[index] if index < len(self._row) else 0

    def __setitem__(self, key: int, flags: int) -> None:
        if not key & 1:
            index = key >> 1
            if index >= len(self._row):
                more = max(index + 1, 2 * len(self._row), 1024) - len(self._row)
                self._row.extend(bytes(more))
                self._row_digests.frombytes(bytes(4 * more))
            self._row[index] = flags
            return
        slot = self._slot(key)
        self._flags[slot] = flags
        if not self._keys[slot]:
            self._keys[slot] = key
            self._used += 1
            if 3 * self._used > 2 * self._size:
                self._grow()

    def digest(self, key: int) -> int:
        """Of the call that was handed over; 0: not known."""
        if key & 1:
            return self._digests[self._slot(key)]
        index = key >> 1
        return self._row_digests[index] if index < len(self._row) else 0

    def put_digest(self, key: int, digest: int) -> None:
        """Of a key that has its flags."""
        if key & 1:
            self._digests[self._slot(key)] = digest
        else:
            self._row_digests[key >> 1] = digest

    def _slot(self, key: int) -> int:
        keys, mask = self._keys, self._size - 1
        slot = (key >> 1) & mask
        while keys[slot] and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        keys, flags, digests = self._keys, self._flags, self._digests
        self._size *= 2
        self._keys = array("Q", bytes(8 * self._size))
        self._flags = bytearray(self._size)
        self._digests = array("I", bytes(4 * self._size))
        for key, flag, digest in zip(keys, flags, digests, strict=True):
            if key:
                slot = self._slot(key)
                self._keys[slot], self._flags[slot], self._digests[slot] = key, flag, digest


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a line of the output says."""

    key: int
    failed: bool
    may_go_again: bool


class Output:
    """The file of results with its state, open for one run. Close it, or use it as a context manager.

    Raises CannotResume; OSError where a file can't be used.
    """

    def __init__(self, path: Path, known: Known, *, overwrite: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self.known = known
        self.written = 0  # results, by this run
        self.results = 0  # of earlier runs
        self.failed = 0  # of those
        self.again = 0  # failed ones that this run may send again
        self._pending = bytearray()
        self._is_ours = not self.path.exists()
        self._state_path = Path(f"{self.path}.state")
        self._state = os.open(self._state_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(self._state, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CannotResume(f"{path}: another run is writing to it") from None
            if overwrite:
                os.ftruncate(self._state, 0)
            self._read_head()
            self._file = self.path.open("a+b", buffering=0)
            if overwrite:
                self._file.truncate(0)
        except BaseException:
            os.close(self._state)
            raise

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it. Where nothing was done there are no new files."""
        with contextlib.suppress(OSError):  # what can't be written was said before
            self.flush()
        self._file.close()
        with contextlib.suppress(OSError):
            if self._is_ours and self.is_fresh and not self.path.stat().st_size:
                self.path.unlink()
                self._state_path.unlink()
        os.close(self._state)

    # -- what was -----------------------------------------------------------------------------

    def load(self) -> Iterator[None]:
        """Learn what is there, and heal a last line that was cut. Yields where others may take a turn."""
        for count, (number, line) in enumerate(self._lines()):
            if not line.endswith(b"\n"):
                self._heal(number, line)
                break
            self._learn(number, line)
            if count % 500 == 499:
                yield
        for count, (note, digest) in enumerate(self._notes()):
            key = note >> 1
            flags = self.known[key]
            self.known[key] = flags & ~HANDED if note & 1 else flags | HANDED
            self.known.put_digest(key, digest)
            if count % 5_000 == 4_999:
                yield

    def retry_failed(self) -> Iterator[None]:
        """Take failed results out of the output, so that their calls are sent again."""
        keys: list[int] = []
        for number, line in self._lines():
            kept = self._parse(number, line)
            if kept.may_go_again:
                keys.append(kept.key)
            if len(keys) == 500:
                self.take_back(keys)
                keys = []
                yield
        self.take_back(keys)
        fresh = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with fresh.open("wb") as file:
                yield from self._copy_others(file)
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(self.path, fresh)
            self._file.close()
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)
        self._file = self.path.open("a+b", buffering=0)

    def _copy_others(self, file: IO[bytes]) -> Iterator[None]:
        for count, (number, line) in enumerate(self._lines()):
            kept = self._parse(number, line)
            if kept.may_go_again:
                self.known[kept.key] &= ~(DONE | HANDED | AGAIN)
                self.results -= 1
                self.failed -= 1
            else:
                file.write(line)
            if count % 500 == 499:
                yield

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            yield from enumerate(file, 1)

    def _learn(self, number: int, line: bytes) -> None:
        kept = self._parse(number, line)
        self.known[kept.key] |= DONE | AGAIN if kept.may_go_again else DONE
        self.results += 1
        self.failed += kept.failed
        self.again += kept.may_go_again

    def _heal(self, number: int, line: bytes) -> None:
        """The last line has no end. It counts if it is whole but for that."""
        try:
            self._learn(number, line)
        except CannotResume:
            self._file.truncate(self.path.stat().st_size - len(line))
        else:
            self._file.write(b"\n")

    def _parse(self, number: int, line: bytes) -> _Kept:
        try:
            row = json.loads(line)
            index, id = row["index"], row.get("id", "")
            if not (isinstance(index, int) and 0 <= index < MOST_INDEX and isinstance(id, str)):
                raise ValueError
            error: dict[str, Any] = row.get("error") or {}
            if not error and not isinstance(row["response"]["statusCode"], int):
                raise ValueError
            failed = bool(row.get("failure"))
            sure = not error.get("mayHaveRun", False) or error.get("idempotent", False)
            return _Kept(key_of(id, index), failed, failed and bool(sure))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise CannotResume(f"{self.path}:{number}: is no result of this command; --overwrite begins anew") from None

    # -- the state ----------------------------------------------------------------------------

    def _read_head(self) -> None:
        head = os.pread(self._state, len(_MAGIC), 0)
        if len(head) < len(_MAGIC):  # new, or cut before anything was handed over
            os.ftruncate(self._state, 0)
            os.pwrite(self._state, _MAGIC, 0)
        elif head != _MAGIC:
            raise CannotResume(f"{self._state_path}: is not the state of a job; --overwrite begins anew")
        else:
            size = os.fstat(self._state).st_size
            os.ftruncate(self._state, size - (size - len(_MAGIC)) % _NOTE.size)

    @property
    def is_fresh(self) -> bool:
        """Nothing was done yet."""
        return not self.results and os.fstat(self._state).st_size == len(_MAGIC)

    def _notes(self) -> Iterator[tuple[int, int]]:
        at = len(_MAGIC)
        while data := os.pread(self._state, _NOTE.size * _NOTES_AT_ONCE, at):
            at += len(data)
            yield from _NOTE.iter_unpack(data[: len(data) // _NOTE.size * _NOTE.size])

    def _note(self, notes: Iterable[tuple[int, int]]) -> None:
        data = b"".join(itertools.starmap(_NOTE.pack, notes))
        size, at = os.fstat(self._state).st_size, 0
        try:
            while at < len(data):
                at += os.pwrite(self._state, data[at:], size + at)
            os.fdatasync(self._state)
        except OSError as error:
            os.ftruncate(self._state, size)  # a note of a call that isn't handed over would put it into doubt
            raise OSError(error.errno, error.strerror, str(self._state_path)) from None

    def hand_over(self, calls: Iterable[tuple[int, int]]) -> None:
        """Note that these calls, by key and digest, are about to be handed over. Blocks until it is on the disk."""
        self._note((key << 1, digest) for key, digest in calls)

    def take_back(self, keys: Iterable[int]) -> None:
        """Note that these calls may be sent (again): they certainly didn't run, or may run twice."""
        self._note((key << 1 | 1, 0) for key in keys)

    # -- what comes ---------------------------------------------------------------------------

    def write(self, line: bytes) -> None:
        """Takes a result; it is in the file after the next flush."""
        self._pending += line

    def flush(self) -> None:
        """Raises OSError where not all fits; then what fits is there, up to the end of a line."""
        pending, self._pending = bytes(self._pending), bytearray()
        at = 0
        try:
            while at < len(pending):
                at += self._file.write(pending[at:])
        except OSError:
            whole = pending.rfind(b"\n", 0, at) + 1
            os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - (at - whole))
            raise
        finally:
            self.written += pending.count(b"\n", 0, at)
