"""Which calls a job knows, by index or id, and what it knows of each: flags and a digest.

Rules:
- A call is known by its id, or by its index if it has none. In memory that is 5 bytes per index, and 20 to 39 bytes
  per id: of an id only 62 bits of a hash are kept, so among a million ids two are mistaken for each other with a
  chance of 1 in 9 million.
- A digest says what a call asked for when it was handed over, so that another call under the same id or index is found,
  but for one in 4 billion.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Final

from apiflux_grpc.v1 import apiflux_pb2 as pb

_HOW: Final = ("id", "timeout", "cost", "idempotent")  # what doesn't say what a call asks for

DONE: Final = 1  # has a result
HANDED: Final = 2  # was handed over
SEEN: Final = 4  # is in the input
FED: Final = 8  # was met while sending
FAILED: Final = 16  # its result is a failure
DOUBT: Final = 32  # and says that it may have run
UNANSWERED: Final = 64  # for want of an answer
AGAIN: Final = 128  # it is sent again, so its result is taken out
MOST_INDEX: Final = 1 << 32


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

    def mark(self, key: int, flag: int) -> int:
        """Add a flag to a key; what it had before."""
        if key & 1 and self._keys[slot := self._slot(key)]:  # one look-up instead of two
            flags = self._flags[slot]
            self._flags[slot] = flags | flag
            return flags
        flags = self[key]
        self[key] = flags | flag
        return flags

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

    def note(self, key: int, is_back: bool, digest: int) -> None:
        """A call was handed over, or taken back."""
        if key & 1 and self._keys[slot := self._slot(key)]:  # one look-up instead of three, for most ids
            flags = self._flags[slot]
            self._flags[slot] = flags & ~HANDED if is_back else flags | HANDED
            self._digests[slot] = digest
            return
        flags = self[key]
        self[key] = flags & ~HANDED if is_back else flags | HANDED
        self.put_digest(key, digest)

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
