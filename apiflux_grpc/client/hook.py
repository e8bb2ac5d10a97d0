"""Telling a caller how its batch, or its connection, stands.

Rule: the hook is a guest. What it raises is logged, and it isn't called again; no result is lost to it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias, TypeVar

from apiflux_grpc.client.results import Progress

OnProgress: TypeAlias = Callable[[Progress], object]
T = TypeVar("T")

_log: Final = logging.getLogger("apiflux_grpc.client")


def check_hook(hook: OnProgress | None, *, may_be_async: bool) -> OnProgress | None:
    """What can be called with a Progress, as it is. Raises TypeError."""
    if hook is None:
        return None
    if not callable(hook):
        raise TypeError(f"on_progress must be a function that takes a Progress, not {type(hook).__name__}")
    if not may_be_async and inspect.iscoroutinefunction(hook):
        raise TypeError("on_progress is a coroutine function, which only Client can await; pass a plain function")
    return hook


class Hook(Generic[T]):
    """A caller's function, given as the option `name`; None: nobody listens."""

    def __init__(self, function: Callable[[T], object] | None, name: str = "on_progress") -> None:
        self._function = function
        self._name = name

    def tell(self, news: T) -> Awaitable[object] | None:
        """Call it; what is returned is to be awaited with `finish`."""
        if self._function is None:
            return None
        try:
            returned = self._function(news)
        except Exception:
            self._leave()
            return None
        return returned if inspect.isawaitable(returned) else None

    async def finish(self, telling: Awaitable[object]) -> None:
        """Wait for a hook that is a coroutine function."""
        try:
            await telling
        except Exception:
            self._leave()

    def _leave(self) -> None:
        self._function = None
        _log.exception("%s raised an exception and is not called again; results go on", self._name)
