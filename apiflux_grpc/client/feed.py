"""Where the calls of a stream come from: any iterable, taken no faster than the stream takes them.

Rule: taking is safe to cancel, so no call is lost between the producer and the stream; and a message to the server
carries what has come, up to a bound in calls and in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from apiflux_grpc.client.calls import to_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.client.calls import AnyCall
    from apiflux_grpc.v1 import apiflux_pb2 as pb

CALLS_PER_MESSAGE: Final = 500
BYTES_PER_MESSAGE: Final = 1 << 20  # a single call may be larger
TOGETHER: Final = 0.01  # seconds within which calls that a blocking producer gives travel together
GREETING: Final = 5.0  # seconds; a server of this version sends it at once, but the machine may be busy


async def greeted(rpc: Any) -> None:
    """Wait for the server's greeting, which says that it took the stream; not for long, for other servers send none.

    So a refusal is heard before calls are on their way. Else a write fails first, and grpc.aio then doesn't tell why.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GREETING):
            await rpc.initial_metadata()


class CallSource(Protocol):
    """A producer that hands out many calls at a time; an iterable does for all others."""

    async def take(self, most: int) -> Sequence[AnyCall] | None:
        """The next calls, 1 to `most`; None: there are no more. Cancelled, it must not lose any."""
        ...


class IterableSource:
    """Calls of a synchronous iterable, taken when they are needed."""

    def __init__(self, calls: Iterable[AnyCall]) -> None:
        self._calls = iter(calls)

    async def take(self, most: int) -> Sequence[AnyCall] | None:
        return list(itertools.islice(self._calls, most)) or None

    def close(self) -> None:
        """Nothing is open."""


class AsyncSource:
    """Calls of an asynchronous iterable: a task reads ahead a little, so that they travel together."""

    def __init__(self, calls: AsyncIterable[AnyCall]) -> None:
        self._calls = calls
        self._queue: asyncio.Queue[AnyCall | BaseException | None] = asyncio.Queue(CALLS_PER_MESSAGE)
        self._filling: asyncio.Task[None] | None = None
        self._over = False

    async def take(self, most: int) -> Sequence[AnyCall] | None:
        if self._over:
            return None
        if self._filling is None:
            self._filling = asyncio.create_task(self._fill())
        some: list[AnyCall] = []
        item = await self._queue.get()
        while item is not None and not isinstance(item, BaseException):
            some.append(item)
            if len(some) == most or self._queue.empty():
                return some
            item = self._queue.get_nowait()
        if item is not None and some:
            self._queue.put_nowait(item)  # the failure of the producer, for the next time
            return some
        if item is not None:
            raise item
        self._over = True
        return some or None

    async def _fill(self) -> None:
        try:
            async for call in self._calls:
                await self._queue.put(call)
            await self._queue.put(None)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._queue.put(error)
        finally:
            if isinstance(self._calls, AsyncGenerator):
                await self._calls.aclose()

    def close(self) -> None:
        """Take no more from the iterable, and let go whoever waits for a call."""
        self._over = True
        if self._filling is not None:
            self._filling.cancel()
            if self._queue.empty():
                self._queue.put_nowait(None)


Closable = IterableSource | AsyncSource


def source_of(calls: Iterable[AnyCall] | AsyncIterable[AnyCall] | CallSource) -> CallSource:
    """The source behind whatever was given."""
    if isinstance(calls, AsyncIterable):
        return AsyncSource(calls)
    return IterableSource(calls) if isinstance(calls, Iterable) else calls


def close(source: CallSource) -> None:
    """Let a source of ours go."""
    if isinstance(source, Closable):
        source.close()


def gathered(calls: Iterable[AnyCall]) -> Iterator[list[AnyCall]]:
    """Calls of a producer that may block, in lists: those that came within some milliseconds together."""
    some: list[AnyCall] = []
    since = 0.0
    for call in calls:
        some.append(call)
        if len(some) == CALLS_PER_MESSAGE or time.monotonic() - since > TOGETHER:
            yield some
            some, since = [], time.monotonic()
    if some:
        yield some


def pieces(calls: Iterable[AnyCall]) -> Iterator[list[pb.Call]]:
    """The calls as lists that fit into a message each."""
    piece: list[pb.Call] = []
    size = 0
    for call in calls:
        message = to_message(call)
        length = message.ByteSize()
        if piece and (len(piece) == CALLS_PER_MESSAGE or size + length > BYTES_PER_MESSAGE):
            yield piece
            piece, size = [], 0
        piece.append(message)
        size += length
    if piece:
        yield piece
