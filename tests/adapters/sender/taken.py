"""What the client's side of each connection has taken in: the event that "the client knows" is made of.

Rule: nothing of a sender is looked into. Its protocol is what the loop talks to, and that is listened to.
"""

from __future__ import annotations

import asyncio
import select
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.adapters.sender.waiting import ENOUGH


class Taken:
    """By the client's port: the bytes that it took in, and whether its connection is over."""

    def __init__(self) -> None:
        self.bytes: Counter[int] = Counter()
        self.over: set[int] = set()
        self._files: dict[int, int] = {}
        self._news: defaultdict[int, list[asyncio.Future[None]]] = defaultdict(list)

    async def until(self, port: int, condition: Callable[[], object]) -> None:
        """Waits for what the client takes in on this connection."""
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._news[port].append(future)
            await future

    def block_until_readable(self, port: int) -> None:
        """Waits until the kernel has something for the client, without giving the loop a turn to see it."""
        poll = select.poll()
        poll.register(self._files[port], select.POLLIN)
        assert poll.poll(ENOUGH * 1000), "nothing came"

    # -- what the loop says -------------------------------------------------------------------

    def began(self, transport: Any) -> None:
        port = transport.get_extra_info("sockname")[1]
        self.bytes[port] = 0
        self.over.discard(port)
        self._files[port] = transport.get_extra_info("socket").fileno()

    def took(self, port: int, count: int) -> None:
        self.bytes[port] += count
        self._tell(port)

    def ended(self, port: int) -> None:
        self.over.add(port)
        self._tell(port)

    def _tell(self, port: int) -> None:
        for future in self._news.pop(port, ()):
            if not future.done():
                future.set_result(None)


@contextmanager
def listening(protocol: type[Any]) -> Iterator[Taken]:
    """Listens to all connections of this class, one of asyncio's protocols."""
    taken = Taken()
    ports: dict[int, int] = {}  # by id: a protocol lives until its connection is lost
    read = "buffer_updated" if issubclass(protocol, asyncio.BufferedProtocol) else "data_received"
    made, came, lost = protocol.connection_made, getattr(protocol, read), protocol.connection_lost

    def on_made(self: Any, transport: Any) -> None:
        ports[id(self)] = transport.get_extra_info("sockname")[1]
        taken.began(transport)
        made(self, transport)

    def on_came(self: Any, data: Any) -> None:
        port = ports[id(self)]
        came(self, data)
        taken.took(port, data if isinstance(data, int) else len(data))

    def on_lost(self: Any, error: Exception | None) -> None:
        lost(self, error)
        taken.ended(ports[id(self)])

    with (
        patch.object(protocol, "connection_made", on_made),
        patch.object(protocol, read, on_came),
        patch.object(protocol, "connection_lost", on_lost),
    ):
        yield taken
