"""A clock that a test moves on, for a loop's timers and for what reads nanoseconds.

Rule: it runs with the real one and jumps when the test says so; what is due by then rings in the next pass. So a
timeout may be an hour long, and comes right after the event that the test waited for, on any machine.

It works on any loop, uvloop's too, since only `call_later` and `call_at` of the one loop are replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any


class Clock:
    """The clock of `loop`; called, it says the time in ns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ahead = 0.0  # seconds
        self.timers: set[Timer] = set()
        # asyncio's call_later goes through call_at, uvloop's call_at through call_later: keep the lower one of each.
        self._set = loop.call_at if isinstance(loop, asyncio.BaseEventLoop) else loop.call_later
        self._from = loop.time if isinstance(loop, asyncio.BaseEventLoop) else float
        loop.call_at = self._call_at  # type: ignore[assignment, method-assign]
        loop.call_later = self._call_later  # type: ignore[assignment, method-assign]

    def __call__(self) -> int:
        return time.monotonic_ns() + round(self.ahead * 1e9)

    def advance(self, ns: int) -> None:
        """Now it is so much later."""
        self.ahead += ns / 1e9
        for timer in list(self.timers):
            timer.arm()

    def real_later(self, seconds: float, ring: Callable[[], object], **more: Any) -> asyncio.Handle:
        """A timer of the loop itself."""
        return self._set(self._from() + max(0.0, seconds), ring, **more)

    async def at_most(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        """Runs it to its end; it fails after so many real seconds, which only a fault takes."""
        task = self.loop.create_task(work)
        guard = self.real_later(seconds, task.cancel)
        try:
            await task
        except asyncio.CancelledError as error:
            raise AssertionError(f"not over after {seconds:g} s") from error
        finally:
            guard.cancel()

    def _call_at(self, when: float, callback: Callable[..., object], *args: Any, **more: Any) -> Timer:
        return Timer(self, when + self.ahead, lambda: callback(*args), more)

    def _call_later(self, delay: float, callback: Callable[..., object], *args: Any, **more: Any) -> Timer:
        return self._call_at(self.loop.time() + delay, callback, *args, **more)


class Timer:
    """A timer of the loop, as much of a TimerHandle as asyncio and aiohttp use. `due` is on the moved clock."""

    def __init__(self, clock: Clock, due: float, ring: Callable[[], object], more: dict[str, Any]) -> None:
        self._clock = clock
        self._due = due
        self._call = ring
        self._more = more
        self._handle: asyncio.Handle | None = None
        self._cancelled = False
        clock.timers.add(self)
        self.arm()

    def arm(self) -> None:
        """For the clock: set the loop's own timer, again if it was moved."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._clock.real_later(self.when() - self._clock.loop.time(), self._ring, **self._more)

    def _ring(self) -> None:
        self._clock.timers.discard(self)
        self._call()

    def cancel(self) -> None:
        self._cancelled = True
        self._clock.timers.discard(self)
        if self._handle is not None:
            self._handle.cancel()

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._due - self._clock.ahead
