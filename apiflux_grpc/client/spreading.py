"""The connections of a stream to several servers, for the asynchronous client.

Rules:
- client/several.py decides who gets which call; here is only the waiting. For each server a task connects,
  reads, and connects again, while another one writes; one task takes from the producer, and one looks for servers
  that come and go, if they have a name.
- A server gets calls once it has taken the connection: one that never answers costs nothing but a line.
- Calls are named to `before_send` and handed over under one lock, so that what was named is what is handed over.
- Results come out in the order in which the books let them go, whoever reads how fast.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import grpc

from apiflux_grpc.client import roster
from apiflux_grpc.client.errors import ApifluxError, error_from
from apiflux_grpc.client.feed import GREETING, close
from apiflux_grpc.client.same_pool import OtherPool
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

    from apiflux_grpc.client.feed import CallSource
    from apiflux_grpc.client.resuming import BeforeSend
    from apiflux_grpc.client.servers import Reach
    from apiflux_grpc.client.several import Several

UNREAD: Final = 100  # messages that wait for whoever reads, before no more are read from the servers


class Spreading:
    """The messages of a batch over several servers. Iterate over it once.

    Raises what Resuming does.
    """

    def __init__(
        self,
        reach: Reach,
        batch: Several,
        source: CallSource,
        before_send: BeforeSend | None = None,
    ) -> None:
        self._reach = reach
        self._batch = batch
        self._source = source
        self._before_send = before_send
        self._out: deque[pb.ProcessResponse] = deque()
        self._changed = asyncio.Event()  # for the reader
        self._has_read = asyncio.Event()
        self._rooms: list[asyncio.Event] = []  # for each writer
        self._hungry = asyncio.Event()  # for the task that takes
        self._handing = asyncio.Lock()
        self._servers: list[asyncio.Task[None]] = []
        self._let_go: set[int] = set()
        self._others: list[asyncio.Task[None]] = []
        self._is_lost = asyncio.Event()  # some connection, so that there may be other servers
        self._failure: Exception | None = None  # of the producer, or of before_send
        self._cancelled = False

    @property
    def unsent(self) -> list[int]:
        """As Resuming.unsent."""
        return self._batch.unsent

    def stop(self) -> None:
        """Send nothing more, and end when every call in flight has its result."""
        self._batch.stop()
        self._wake()

    def cancel(self) -> None:
        """End it at once."""
        self._cancelled = True
        close(self._source)
        self._end_tasks()
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[pb.ProcessResponse]:
        if self._cancelled:
            raise asyncio.CancelledError
        for _ in range(self._batch.count):
            self._begin()
        self._others = [self._task(self._take())]
        if self._reach.has_names:
            self._others.append(self._task(self._look()))
        self._wake()  # it may have been stopped before
        try:
            while self._out or not all(task.done() for task in self._servers):
                while self._out:
                    yield self._out.popleft()
                    self._has_read.set()
                if self._cancelled:
                    raise asyncio.CancelledError
                self._raise_failure()
                self._changed.clear()
                if not self._out and not all(task.done() for task in self._servers):
                    await self._changed.wait()
            self._raise_failure()
            if self._cancelled:
                raise asyncio.CancelledError
            for last in self._batch.conclude():
                yield last
            if self._batch.failure is not None:
                raise self._batch.failure
        finally:
            self.cancel()
            await asyncio.wait(self._tasks)

    @property
    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*self._servers, *self._others]

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._changed.set())
        return task

    def _begin(self) -> None:
        """With the next server."""
        self._rooms.append(asyncio.Event())
        self._servers.append(self._task(self._serve(len(self._servers))))

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _wake(self) -> None:
        """Something has changed that somebody may wait for."""
        for event in (*self._rooms, self._hungry):
            event.set()
        if not self._batch.is_over:
            return
        for task in self._others:
            task.cancel()
        for at, task in enumerate(self._servers):  # one that has no connection has no calls either
            if not self._batch.is_up(at) and at not in self._let_go:
                self._let_go.add(at)
                task.cancel()

    def _give(self, responses: Iterable[pb.ProcessResponse]) -> None:
        self._out.extend(responses)
        self._changed.set()

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._end_tasks()

    async def _take(self) -> None:
        """Wait for the producer."""
        batch = self._batch
        try:
            while not batch.ended:
                self._hungry.clear()
                if wanted := batch.wanted:
                    batch.took(await self._source.take(wanted))
                    self._wake()
                else:
                    await self._hungry.wait()
        except Exception as error:
            self._fail(error)

    async def _look(self) -> None:
        """Look for servers that come and go."""
        batch = self._batch
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_lost.wait(), roster.LOOK_EVERY)
            self._is_lost.clear()
            news = await self._reach.look()
            for at in news.gone:
                batch.depart(at)
            for name in news.joined:
                batch.join(name)
                self._begin()
            await asyncio.sleep(roster.LOOK_PAUSE)

    # -- one server ---------------------------------------------------------------------------

    async def _serve(self, at: int) -> None:
        batch = self._batch
        while not batch.is_over:
            try:
                error = await self._exchange(at)
            except OtherPool as other:
                batch.leave_out(at, other)
                self._wake()
                return
            end = batch.end(at, error, time.monotonic())
            self._give(end.responses)
            self._wake()
            if end.wait is None:
                return
            if error is not None:
                self._is_lost.set()
            await asyncio.sleep(end.wait)

    async def _exchange(self, at: int) -> ApifluxError | None:
        """One connection, from its beginning to its end; returns what ended it."""
        batch = self._batch
        try:
            if not batch.is_met(at):  # one that comes back may have been configured anew, as a single one may
                await self._reach.admit(at)
            rpc = self._reach.connect(at, batch.connect(at, time.monotonic()))
            writing = asyncio.create_task(self._write(rpc, at))
            try:
                async for message in rpc:
                    response = batch.heard(message, at, time.monotonic())
                    if response is not None:
                        self._give([response])
                    self._wake()
                    while len(self._out) > UNREAD:
                        self._has_read.clear()
                        await self._has_read.wait()
            finally:
                rpc.cancel()
                writing.cancel()
                await asyncio.wait({writing})
        except grpc.aio.AioRpcError as failed:
            return error_from(failed)
        except OtherPool:
            raise
        except ApifluxError as failed:
            return failed
        return None

    async def _write(self, rpc: Any, at: int) -> None:
        """Hand over calls as there is room. What goes wrong with the connection is told to whoever reads from it."""
        batch, room = self._batch, self._rooms[at]
        try:
            await rpc.write(pb.ProcessStreamRequest(open=batch.header_for(at)))
            await self._taken(rpc, at)
            while True:
                room.clear()
                message, is_any = await self._next(at)
                if message is not None:
                    self._wake()
                    await rpc.write(message)
                elif batch.is_stopped or batch.is_recalled(at):
                    await rpc.write(pb.ProcessStreamRequest(stop=True))
                    await rpc.done_writing()
                    return
                elif batch.is_fed:
                    await rpc.done_writing()
                    await asyncio.sleep(GREETING)  # it has nothing more to say that matters
                    self._servers[at].cancel()
                    return
                elif not is_any:
                    await room.wait()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        except Exception as error:
            self._fail(error)

    async def _taken(self, rpc: Any, at: int) -> None:
        """Wait until the server takes the connection. Raises InvalidStateError if it ends before."""
        waiting = asyncio.ensure_future(rpc.initial_metadata())
        try:
            await asyncio.wait({waiting}, timeout=GREETING)
            if not waiting.done():
                self._batch.silent(at)
                self._wake()
            await waiting
        finally:
            waiting.cancel()
        if rpc.done():
            raise asyncio.InvalidStateError
        self._batch.opened(at)
        self._wake()

    async def _next(self, at: int) -> tuple[pb.ProcessStreamRequest | None, bool]:
        """The next message of calls, and whether there were any: a connection that drains doesn't get them."""
        async with self._handing:
            some = self._batch.next(at)
            if some and self._before_send is not None:
                await self._before_send(some)
            return self._batch.hand_over(some, at) if some else None, bool(some)
