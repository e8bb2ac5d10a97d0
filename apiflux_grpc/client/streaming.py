"""The one connection of a stream that ends with it, for both clients.

Rule: the way there stays open until every call has its result, so that the batch can be stopped until then; and
whatever ends the connection lets the producer go.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.feed import CALLS_PER_MESSAGE, close, gathered, greeted, pieces
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from apiflux_grpc.client.feed import AnyCall, CallSource


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

    def stop(self) -> None:
        """Send nothing more, and go on until what is in flight has its results."""
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


class SyncStreaming:
    """The same for the blocking client: a thread of grpc's reads the iterable."""

    def __init__(
        self,
        connect: Callable[[Iterator[pb.ProcessStreamRequest]], Any],
        header: pb.ProcessStreamOpen,
        calls: Iterable[AnyCall],
    ) -> None:
        self._header = header
        self._calls = gathered(calls)
        self._changed = threading.Condition()  # guards what follows
        self._open = 0  # calls that were sent and have no result
        self._stopped = False
        self._over = False
        self._failure: Exception | None = None  # of the producer
        self._rpc = connect(self._requests())
        if not self._rpc.add_callback(self._end):  # it is over already
            self._end()

    def stop(self) -> None:
        """As Streaming.stop; a producer that blocks holds it back until it gives its next call."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """End it at once."""
        self._rpc.cancel()

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[pb.ProcessResponse]:
        try:
            for message in self._rpc:
                with self._changed:
                    self._open -= len(message.results)
                    self._changed.notify_all()
                yield message
        except grpc.RpcError:
            if self._failure is not None:  # grpc ends the RPC then
                raise self._failure from None
            raise
        finally:
            self.cancel()

    def _requests(self) -> Iterator[pb.ProcessStreamRequest]:
        try:
            yield pb.ProcessStreamRequest(open=self._header)
            for some in self._calls:
                for piece in pieces(some):
                    with self._changed:
                        if self._stopped:
                            break
                        self._open += len(piece)
                    yield pb.ProcessStreamRequest(calls=piece)
                if self._stopped:
                    break
            with self._changed:
                self._changed.wait_for(lambda: self._open <= 0 or self._stopped or self._over)
            if self._stopped:
                yield pb.ProcessStreamRequest(stop=True)
        except Exception as error:
            self._failure = error
            raise
