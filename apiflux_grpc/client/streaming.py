"""The one connection of a stream that ends with it, for the asynchronous client.

Rule: the way there stays open until every call has its result, so that the batch can be stopped until then; and
whatever ends the connection lets the producer go.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.feed import CALLS_PER_MESSAGE, close, greeted, pieces
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from apiflux_grpc.client.feed import CallSource


class Streaming:
    """The messages of a batch. Raises what its producer raises, and grpc's errors."""

    def __init__(
        self,
        connect: Callable[[AsyncIterator[pb.ProcessStreamRequest]], Any],
        header: pb.ProcessStreamOpen,
        source: CallSource,
    ) -> None:
        self._header = header
        self._source = source
        self._open = 0  # calls that were sent and have no result
        self._stopped = False
        self._over = False
        self._changed = asyncio.Event()
        self._failure: Exception | None = None  # of the producer
        self._rpc = connect(self._requests())

    @property
    def unsent(self) -> list[int]:
        """None are known: without `resume` every call that the server took has a result, and no other is kept."""
        return []

    def stop(self) -> None:
        """Send nothing more, and end when every call in flight has its result."""
        self._stopped = True
        self._let_go()

    def cancel(self) -> None:
        """End it at once."""
        self._over = True
        self._let_go()
        self._rpc.cancel()

    def _let_go(self) -> None:
        close(self._source)
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[pb.ProcessResponse]:
        try:
            async for message in self._rpc:
                self._open -= len(message.results)
                self._changed.set()
                yield message
        except asyncio.CancelledError:
            if self._failure is not None:  # grpc cancels the RPC then, and that isn't our reader's cancellation
                raise self._failure from None
            raise
        finally:
            self.cancel()

    async def _requests(self) -> AsyncIterator[pb.ProcessStreamRequest]:
        """What it is about, then calls, as many together as are there."""
        try:
            yield pb.ProcessStreamRequest(open=self._header)
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # the reader hears of those
                await greeted(self._rpc)
            while (some := await self._source.take(CALLS_PER_MESSAGE)) is not None:
                for piece in pieces(some):
                    if self._stopped:
                        break
                    self._open += len(piece)
                    yield pb.ProcessStreamRequest(calls=piece)
            while self._open > 0 and not self._stopped and not self._over:
                self._changed.clear()
                await self._changed.wait()
            if self._stopped:
                yield pb.ProcessStreamRequest(stop=True)
        except Exception as error:
            self._failure = error  # grpc would only cancel
            raise
        finally:
            close(self._source)
