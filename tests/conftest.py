"""Shared set-up of all tests."""

from __future__ import annotations

import asyncio


def pytest_configure() -> None:
    """No event loop to begin with: pytest-asyncio would otherwise make one that nobody closes."""
    asyncio.set_event_loop(None)
