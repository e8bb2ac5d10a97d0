"""Shared set-up of all tests."""

from __future__ import annotations

import asyncio
import signal

from hypothesis import settings

# The same examples on every machine, so that no user sees a failure that we could not; `make explore` draws others.
# However long one takes: on a busy machine that says nothing.
settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("quick")


def pytest_configure() -> None:
    """No event loop to begin with: pytest-asyncio would otherwise make one that nobody closes.

    Nor an ignored SIGINT, as a shell's background job has it: every process started from here would ignore it too.
    """
    asyncio.set_event_loop(None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
