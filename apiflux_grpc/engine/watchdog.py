"""Whether the engine answers: a beat every second, and no echo for five seconds says no.

Rule: an echo makes a silent engine healthy again, but nothing does after `end`: what is down stays down. A thread that
is stuck raises nothing, so only its silence tells.

Owner: the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("apiflux.engine")

BEAT_EVERY: Final = 1.0  # seconds
SILENCE: Final = 5.0  # seconds


class Watchdog:
    """`beat` asks the engine for an echo; `on_change` is told each time that `healthy` has changed."""

    def __init__(self, beat: Callable[[], None], on_change: Callable[[bool], None]) -> None:
        self.healthy = False
        self._beat = beat
        self._on_change = on_change
        self._heard_at = 0.0
        self._ended = False

    def heard(self) -> None:
        """An echo came, or the engine is up."""
        if not self._ended:
            self._heard_at = asyncio.get_running_loop().time()
            self._set(True)

    def end(self) -> None:
        """The engine is down."""
        self._ended = True
        self._set(False)

    async def watch(self) -> None:
        """Until `end`."""
        loop = asyncio.get_running_loop()
        while not self._ended:
            self._beat()
            await asyncio.sleep(BEAT_EVERY)
            if loop.time() - self._heard_at > SILENCE:
                if self.healthy:
                    _log.error("the engine has not answered for %.0f s", SILENCE)
                self._set(False)

    def _set(self, healthy: bool) -> None:
        if healthy != self.healthy:
            self.healthy = healthy
            self._on_change(healthy)
