"""Refusals of who isn't known, told at once while they are few, and in turn when many come.

Rule: a flood of them takes a small, fixed part of the loop, whatever its speed: the rest of it waits, each RPC as one
future in one line, with one timer for all. Who waits holds a stream of its own connection, and there are only so many
of those. When the line is full its first is told at once, so it never grows.

Owner: the server's loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

AT_ONCE: Final = 20  # in a second
TICK: Final = 0.02  # seconds
AT_A_TICK: Final = 2
LONGEST: Final = 2_000


class Refusals:
    """The line."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._second = float("-inf")  # when it began
        self._told = 0  # in it, at once
        self._is_ticking = False

    async def turn(self) -> None:
        """Wait until one more may be told."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._second >= 1:
            self._second, self._told = now, 0
        if self._told < AT_ONCE and not self._line:
            self._told += 1
            return
        if len(self._line) >= LONGEST:
            self._release(1)
        waiter: asyncio.Future[None] = loop.create_future()
        self._line.append(waiter)
        if not self._is_ticking:
            self._is_ticking = True
            loop.call_later(TICK, self._tick, loop)
        await waiter

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._release(AT_A_TICK)
        self._is_ticking = bool(self._line)
        if self._is_ticking:
            loop.call_later(TICK, self._tick, loop)

    def _release(self, most: int) -> None:
        """So many of those who still wait."""
        while self._line and most:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_result(None)
                most -= 1

    def __repr__(self) -> str:
        return f"<Refusals {len(self._line)} wait>"
