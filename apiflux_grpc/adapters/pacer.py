"""aiolimiter behind the core's Pacer: a leaky bucket that decides without ever waiting.

Rule: aiolimiter alone decides whether there is room; our own level only says when to ask again, which aiolimiter
can't tell. Nothing waits inside the limiter: its waiters are ordered by amount, so a large one would
starve there. Not known here: keys, windows, who asks.

Two clocks meet: `now` is the engine's, the limiter reads its loop's `time()`. Both must run at one rate, and the
loop's may lag: uvloop cuts it to milliseconds and keeps it for a whole pass. Hence the least wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Final

from aiolimiter import AsyncLimiter

from apiflux_grpc.core.units import MICROSECOND, MILLISECOND

_UVLOOP: Final = "uvloop"


class AiolimiterPacer:
    """Lets `burst` pass at once and refills `burst` in `seconds`. Fulfils Pacer, and its class PacerFactory.

    It serves only the loop that it was made on. Raises RuntimeError without a running loop, ValueError unless burst and
    seconds are above 0.
    """

    __slots__ = ("_asked", "_at", "_burst", "_in_debt", "_least_wait", "_level", "_limiter", "_rate")

    def __init__(self, burst: float, seconds: float) -> None:
        if not (burst > 0 and seconds > 0):
            raise ValueError(f"a pacer needs a burst and seconds above 0, not {burst:g} and {seconds:g}")
        loop = asyncio.get_running_loop()
        self._limiter = AsyncLimiter(burst, seconds)
        self._burst = burst
        self._rate = burst / seconds / 1e9  # per ns
        # In one case of three the limiter still has no room at the computed instant, by a rounding or its clock.
        self._least_wait = MILLISECOND if type(loop).__module__.startswith(_UVLOOP) else MICROSECOND
        self._level = 0.0  # as of `_at`
        self._at = 0
        self._asked = 0
        self._in_debt = False  # the level is above the burst, which the limiter can't hold; it is empty until then

    def ready_at(self, amount: int, now: int) -> int:
        """`now`: there is room. Else a later instant at which it is worth asking again.

        Raises ValueError for an amount above the burst, which would never fit.
        """
        self._asked = now
        if self._in_debt:
            level = self._level_at(now)
            if level + amount > self._burst:
                return now + max(math.ceil((level + amount - self._burst) / self._rate), self._least_wait)
            self._in_debt = False
            self._put(level)
        if self._limiter.has_capacity(amount):
            return now
        if amount > self._burst:
            raise ValueError(f"{amount} never fits into a burst of {self._burst:g}")
        excess = self._level_at(now) + amount - self._burst
        wait = math.ceil(excess / self._rate) if excess > 0 else 0
        return now + max(wait, self._least_wait)

    def take(self, amount: int) -> None:
        """Take `amount`; only right after `ready_at` said that there is room. Raises RuntimeError if there is none."""
        acquiring = self._limiter.acquire(amount)
        try:
            acquiring.send(None)
        except StopIteration:
            self._level = self._level_at(self._asked) + amount
            self._at = self._asked
        else:
            acquiring.close()
            raise RuntimeError("taken from a pacer that has no room")

    def level(self, now: int) -> float:
        """What is taken and has not leaked away yet."""
        return self._level_at(now)

    def fill(self, level: float, now: int) -> None:
        """Start from this level, as the heir of another pacer; above the burst it waits for the rest."""
        self._level, self._at = level, now
        self._in_debt = level > self._burst
        if not self._in_debt:
            self._put(level)

    def _put(self, level: float) -> None:
        """Into the limiter, which is empty."""
        if level > 0:
            acquiring = self._limiter.acquire(level)
            with contextlib.suppress(StopIteration):
                acquiring.send(None)

    def _level_at(self, now: int) -> float:
        return max(0.0, self._level - (now - self._at) * self._rate)

    def __repr__(self) -> str:
        return f"<AiolimiterPacer {self._level:.1f}/{self._burst:g}, {self._rate * 1e9:g} per s>"
