"""Shared set-up of all tests."""

from __future__ import annotations

import asyncio
import signal


def pytest_configure() -> None:
    """No event loop to begin with: pytest-asyncio would otherwise make one that nobody closes.

    Nor an ignored SIGINT, as a shell's background job has it: every process started from here would ignore it too.
    """
    asyncio.set_event_loop(None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
