"""Exchanges for whose connection no file was free: this process may open no more (`ulimit -n`), nor may the system.

Rule: that is ours and says nothing of the upstream. They wait, the first that came first, for a connection that another
exchange has done with or for a file; files are also freed elsewhere, so now and then one of them tries.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.outcome import Cause, NotSent

if TYPE_CHECKING:
    from apiflux_grpc.adapters.sender.exchange import Exchange

TRY_EVERY: Final = 0.05  # seconds
NO_FILE: Final = NotSent(Cause.NO_FILE, "no file was free for a connection; raise `ulimit -n` or lower max_connections")


def is_short(error: BaseException) -> bool:
    """Whether a file was missing for it."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_SYSTEM  # a look-up needs files too, and says no more than that
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


class Short:
    """Who waits."""

    def __init__(self) -> None:
        self._waiting: dict[Exchange, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, exchange: Exchange) -> bool:
        return exchange in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, exchange: Exchange) -> None:
        """Until it is worth while to try again."""
        loop = asyncio.get_running_loop()
        self._waiting[exchange] = freed = loop.create_future()
        if self._timer is None:
            self._timer = loop.call_later(TRY_EVERY, self._try_one, loop)
        try:
            await freed
        finally:
            self._waiting.pop(exchange, None)

    def freed(self) -> None:
        """A connection or a file is free: whoever is first tries again."""
        for exchange, freed in self._waiting.items():
            if not freed.done():
                freed.set_result(None)
                if not exchange.over:
                    return

    def _try_one(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self.freed()
        if self._waiting:
            self._timer = loop.call_later(TRY_EVERY, self._try_one, loop)

    def close(self) -> None:
        """Nobody tries any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
