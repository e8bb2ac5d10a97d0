"""One thread posts, one loop reads.

Rule: no lock. A deque's append and popleft are safe between threads, and at most one drain is on its way: `armed`
says so. drain clears `armed` before it looks at the queue; the other way round, a message posted between the look
and the clearing would wake nobody (tests/engine/test_mailbox.py checks every interleaving).

A drain runs in an empty context, or it would run in the context variables of whichever request armed it.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")
_EMPTY: Final = contextvars.Context()


class Mailbox(Generic[T]):
    """Messages for `handle`, which runs on `loop` and must not raise."""

    __slots__ = ("_armed", "_handle", "_loop", "_queue")

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[T], None]) -> None:
        self._loop = loop
        self._handle = handle
        self._queue: deque[T] = deque()
        self._armed = False

    def post(self, message: T) -> None:
        """From any one thread; in order. A message for a loop that is closed is dropped."""
        self._queue.append(message)
        if not self._armed:
            self._armed = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._drain, context=_EMPTY.copy())

    def _drain(self) -> None:
        self._armed = False
        queue, handle = self._queue, self._handle
        for _ in range(len(queue)):
            handle(queue.popleft())
