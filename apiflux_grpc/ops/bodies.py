"""How a body is read: in time, and no more bytes than fit.

Rule: a caller who sends slowly holds a connection and what has come of the body; so it must come at a least rate, and
the bodies that are being read have a bound together. The bytes belong to admission once the batch is admitted.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.ops.problems import HttpRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE: Final = 10.0  # seconds, and the more of it the more has come
LEAST_RATE: Final = 8192  # bytes a second
AT_ONCE: Final = 2  # of the largest bodies, at most, are in memory at once while they are being read


class Content(Protocol):
    """What aiohttp's StreamReader does."""

    async def readany(self) -> bytes:
        """What has come; empty: that was all."""
        ...


class Room:
    """How many bytes of bodies may be in memory before admission counts them; `most` is for one body."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    @contextmanager
    def taken(self) -> Iterator[Callable[[int], None]]:
        """A function to take so many bytes more, which raises HttpRefused; they are free after the block."""
        have = 0

        def take(more: int) -> None:
            nonlocal have
            if have + more > self.most:
                text = f"the body has more than {self.most} bytes; split the batch, or use ProcessStream over gRPC"
                raise HttpRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BATCH_TOO_LARGE", text, closes=True)
            if self.used + more > self.most * AT_ONCE:
                text = "too many bytes of requests are on their way here; send again later"
                after = {"Retry-After": "1"}
                raise HttpRefused(HTTPStatus.TOO_MANY_REQUESTS, "TOO_MANY_BYTES", text, after, closes=True)
            have += more
            self.used += more

        try:
            yield take
        finally:
            self.used -= have


async def read(content: Content, take: Callable[[int], None]) -> bytearray:
    """The whole body. Raises HttpRefused if it is too long or too slow."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    body = bytearray()
    try:
        while True:
            async with asyncio.timeout_at(start + PATIENCE + len(body) / LEAST_RATE):
                some = await content.readany()
            if not some:
                return body
            take(len(some))
            body += some
    except TimeoutError:
        text = f"the body came too slowly; send at least {LEAST_RATE} bytes a second"
        raise HttpRefused(HTTPStatus.REQUEST_TIMEOUT, "BODY_TOO_SLOW", text, closes=True) from None
