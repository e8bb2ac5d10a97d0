"""aiolimiter behind the core's Pacer: the only place that knows it.

Rule: never wait inside it. There is no try-acquire and no "when", so `has_capacity` asks, one step of `acquire`
takes (it never suspends where there is room), and the level kept beside it says when to ask again. At the computed
instant a limiter can still lack an ulp, so an answer always lies after `now`: by 1 us, or by 1 ms on uvloop, whose
clock is cut to milliseconds. Nothing can be given back to it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiolimiter import AsyncLimiter

from apiflux_grpc.core.model import MICROSECOND, MILLISECOND, SECOND


class AiolimiterPacer:
    """One AsyncLimiter that lets `burst` pass at once and refills `burst` in `seconds`. Made on its loop."""

    __slots__ = ("_burst", "_level", "_limiter", "_loop", "_rate", "_step", "_when")

    def __init__(self, burst: float, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limiter = AsyncLimiter(burst, seconds)
        self._burst = burst
        self._rate = burst / seconds
        self._level = 0.0  # what the limiter holds, as of `_when` on the loop's clock
        self._when = self._loop.time()
        self._step: Final = MILLISECOND if type(self._loop).__module__.startswith("uvloop") else MICROSECOND

    def ready_at(self, amount: int, now: int) -> int:
        """`now`: there is room. Else a later instant at which it is worth asking again."""
        if self._limiter.has_capacity(amount):
            return now
        level = self._level - (self._loop.time() - self._when) * self._rate
        missing = level + amount - self._burst
        return now + self._step + max(0, int(missing / self._rate * SECOND))

    def take(self, amount: int) -> None:
        """Take `amount`; only right after ready_at said that there is room. Raises RuntimeError otherwise."""
        taking = self._limiter.acquire(amount)
        try:
            taking.send(None)
        except StopIteration:
            when = self._loop.time()
            self._level = max(0.0, self._level - (when - self._when) * self._rate) + amount
            self._when = when
            return
        taking.close()
        raise RuntimeError("a pacer was asked for more than it has")
