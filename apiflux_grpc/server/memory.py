"""Memory of this process: how much it has, and how what was freed goes back to the system.

Rule: what large requests took is given back once they have ended. glibc keeps what was freed between other things that
are still in use, for as long as the process lives, unless it is asked; other C libraries give it back by themselves.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from contextlib import suppress
from typing import Any, Final

LARGE: Final = 1 << 20  # bytes of a request after which memory is given back
DELAY: Final = 0.5  # seconds: what ends together is given back together

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes that this process has in memory; 0 if the system doesn't say."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE
    return 0


def _malloc_trim() -> Any:
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        return ctypes.CDLL(None).malloc_trim
    return None


class GivingBack:
    """Gives memory back some time after `freed` was told of a large request."""

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._soon: asyncio.TimerHandle | None = None

    def freed(self, size: int) -> None:
        """A request of so many bytes has ended."""
        if size >= LARGE and self._trim is not None and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(DELAY, self._give)

    def _give(self) -> None:
        self._soon = None
        # In a thread, since it takes a millisecond for each megabyte; it holds no lock of Python's meanwhile.
        asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
