"""Time for tests: the running loop's, which is virtual under looptime and other loops that jump to the next timer."""

from __future__ import annotations

import asyncio


def loop_clock() -> int:
    """The running loop's time in ns, to the microsecond: such loops keep it so, and a float has no more to give."""
    return round(asyncio.get_running_loop().time() * 1e6) * 1_000
