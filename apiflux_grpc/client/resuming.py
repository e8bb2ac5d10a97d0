"""The connections of a stream that outlives them, for the asynchronous client.

Rule: client/resume.py decides what is sent and when to connect again; here is only the waiting. A call that the
producer gave is in its books at once, so none is lost when a connection ends, whoever waits for what at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.errors import ApifluxError, error_from
from apiflux_grpc.client.feed import close, greeted
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from apiflux_grpc.client.feed import CallSource
    from apiflux_grpc.client.resume import Resumption

    BeforeSend = Callable[[Sequence[int]], Awaitable[None]]


class Resuming:
    """The messages of a batch, over as many connections as it takes. Iterate over it once.

    Raises ApifluxError if the first connection fails, if an error is no lost connection, and if nothing came for long;
    else what the producer or `before_send` raises.
    """

    def __init__(
        self,
        connect: Callable[[float | None], Any],
        batch: Resumption,
        source: CallSource,
        before_send: BeforeSend | None = None,
    ) -> None:
        self._connect = connect
        self._batch = batch
        self._source = source
        self._before_send = before_send
        self._rpc: Any = None
        self._feeding: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._taking: asyncio.Future[None] | None = None  # waits for the producer
        self._failure: Exception | None = None  # of the producer
        self._cancelled = False
        self._woken = asyncio.Event()  # by cancel or stop, while there is no connection

    @property
    def unsent(self) -> list[int]:
        """After the end: the indexes of calls without a result that certainly didn't run, or may run again."""
        return self._batch.unsent

    def stop(self) -> None:
        """Send nothing more, and end when every call in flight has its result."""
        self._batch.stop()
        self._woken.set()
        self._room.set()
        if self._taking is not None:
            self._taking.cancel()

    def cancel(self) -> None:
        """End it at once."""
        self._cancelled = True
        self._woken.set()
        close(self._source)
        if self._feeding is not None:
            self._feeding.cancel()
        if self._rpc is not None:
            self._rpc.cancel()

    async def __aiter__(self) -> AsyncIterator[pb.ProcessResponse]:
        batch = self._batch
        try:
            while True:
                if batch.is_stopped:  # before the first connection, or between two
                    for last in batch.rest():
                        yield last
                    return
                error: ApifluxError | None = None
                rpc = self._open()
                try:
                    async for message in rpc:
                        response = batch.heard(message, time.monotonic())
                        self._room.set()
                        if response is not None:
                            yield response
                except grpc.aio.AioRpcError as failed:
                    error = error_from(failed)
                except asyncio.CancelledError:
                    if self._failure is not None:
                        raise self._failure from None
                    raise
                finally:
                    await self._hang_up(rpc)
                end = batch.end(error, time.monotonic())
                for response in end.responses:
                    yield response
                if end.error is not None:
                    raise end.error
                if end.wait is None:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), end.wait)
        finally:
            self.cancel()

    def _open(self) -> Any:
        """A new connection, and the task that feeds it."""
        if self._cancelled:
            raise asyncio.CancelledError
        rpc = self._rpc = self._connect(self._batch.connect(time.monotonic()))
        self._feeding = asyncio.create_task(self._feed(rpc))
        return rpc

    async def _hang_up(self, rpc: Any) -> None:
        """End the connection, and wait until nothing more is handed over to it: only then is it known what was."""
        rpc.cancel()
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.wait({self._feeding})

    async def _feed(self, rpc: Any) -> None:
        """Hand over calls as there is room. What goes wrong with the connection is told to whoever reads from it."""
        batch = self._batch
        try:
            await rpc.write(pb.ProcessStreamRequest(open=batch.header))
            await greeted(rpc)
            while True:
                self._room.clear()
                if wanted := batch.wanted:
                    await self._take(wanted)
                if some := batch.next():
                    if self._before_send is not None:
                        await self._before_send(some)
                    if (message := batch.hand_over(some)) is not None:
                        await rpc.write(message)
                elif batch.is_stopped:
                    await rpc.write(pb.ProcessStreamRequest(stop=True))
                    await rpc.done_writing()
                    return
                elif batch.is_fed:
                    await rpc.done_writing()
                    return
                else:
                    await self._room.wait()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        except Exception as error:
            self._failure = error
            rpc.cancel()

    async def _take(self, most: int) -> None:
        """Wait for the producer, or until it is stopped."""
        taking = self._taking = asyncio.ensure_future(self._took(most))
        try:
            await asyncio.wait({taking})
        finally:
            self._taking = None
            taking.cancel()
        if not taking.cancelled():
            taking.result()

    async def _took(self, most: int) -> None:
        self._batch.took(await self._source.take(most))
