"""What an upstream answers in a plan, drawn for each call and send.

Rule: a pure function of seed, call and send: whoever asks, in whatever order, draws the same. So the engine over a fake
upstream that draws here and a plan agree call by call, and a plan with one key more meets the same upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

_MICROSECOND: Final = 1_000
_THREE: Final = Struct("=QQQ").unpack
_PARTS: Final = float(2**64)

FAILED: Final = 500
LIMITED: Final = 429
REJECTED: Final = 401


class Drawn(NamedTuple):
    """The answer to one send: after `latency` ns comes `status`; `draw`, in [0, 1), spreads the wait for a retry."""

    status: int
    latency: int
    draw: float


@dataclass(frozen=True, slots=True)
class Draws:
    """An upstream. `latency` is (least, most) in ns; `fail` and `limited` are shares of the sends, from 0 to 1.

    A send is answered 401 if its key is one of `rejected`, else 429 or 500 by these shares, else `success`. Latencies
    are drawn evenly from the range, in whole microseconds.
    """

    latency: tuple[int, int] = (0, 0)
    fail: float = 0.0
    limited: float = 0.0
    rejected: frozenset[str] = frozenset()
    seed: int = 0
    success: int = 200

    def send(self, call: int, number: int, key: str) -> Drawn:
        """The answer to send `number` (from 1) of this call with the key of this label."""
        name = b"%d %d" % (call, number)
        seed = (self.seed % 2**64).to_bytes(8, "big")
        status, latency, draw = _THREE(blake2b(name, digest_size=24, key=seed).digest())
        least, most = self.latency
        took = least + int((most - least) * (latency / _PARTS)) // _MICROSECOND * _MICROSECOND
        return Drawn(self._status(status / _PARTS, key), took, draw / _PARTS)

    def _status(self, share: float, key: str) -> int:
        if key in self.rejected:
            return REJECTED
        if share < self.limited:
            return LIMITED
        return FAILED if share < self.limited + self.fail else self.success
