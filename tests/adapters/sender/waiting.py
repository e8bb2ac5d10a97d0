"""Waiting for events in the sender's tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

ENOUGH: Final = 10.0  # seconds; only a fault waits so long


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits for what has no event; fails after ENOUGH."""
    late = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < late, f"never came true: {what or condition}"
        await asyncio.sleep(0.001)


async def passes(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
