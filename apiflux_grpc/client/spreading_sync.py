"""The connections of a stream to several servers, for the blocking client.

Rules: as client/spreading.py, in threads: for each server one connects, reads, and connects again, while one of grpc's
writes; one takes from the producer, and one looks for servers that come and go. `_changed` guards all that they touch.
Once the caller has stopped reading none of them changes the batch any more, whatever it still waits for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client import roster
from apiflux_grpc.client.errors import ApifluxError, DeadlineExceeded, error_from, silent
from apiflux_grpc.client.feed import GREETING, gathered
from apiflux_grpc.client.resuming_sync import was_cancelled
from apiflux_grpc.client.same_pool import OtherPool
from apiflux_grpc.client.spreading import UNREAD
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from apiflux_grpc.client.calls import AnyCall
    from apiflux_grpc.client.resuming_sync import SyncBeforeSend
    from apiflux_grpc.client.servers_sync import SyncReach
    from apiflux_grpc.client.several import Several


class SyncSpreading:
    """The same for the blocking client."""

    def __init__(
        self,
        reach: SyncReach,
        batch: Several,
        calls: Iterable[AnyCall],
        before_send: SyncBeforeSend | None = None,
    ) -> None:
        self._reach = reach
        self._batch = batch
        self._calls = gathered(calls)
        self._before_send = before_send
        self._changed = threading.Condition()  # guards the batch and what follows
        self._out: deque[pb.ProcessResponse] = deque()
        self._rpcs: dict[int, Any] = {}  # by the place of the server: what it was asked last
        self._let_go: set[int] = set()  # servers that had no connection when the batch was over
        self._working = 0  # servers whose thread isn't through
        self._count = 0  # servers that have one
        self._is_lost = False  # some connection, so that there may be other servers
        self._closed = False
        self._cancelled = False
        self._failure: Exception | None = None  # of the producer, or of before_send
        self._noting = threading.Lock()  # held by the thread that calls before_send

    @property
    def unsent(self) -> list[int]:
        """As Resuming.unsent."""
        return self._batch.unsent

    def stop(self) -> None:
        """Send nothing more, and end when every call in flight has its result."""
        with self._changed:
            self._batch.stop()
            self._wake()

    def cancel(self) -> None:
        """End it at once."""
        with self._changed:
            self._cancelled = self._closed = True
            rpcs = list(self._rpcs.values())
            self._changed.notify_all()
        for rpc in rpcs:
            rpc.cancel()

    def __iter__(self) -> Iterator[pb.ProcessResponse]:
        if self._cancelled:
            raise was_cancelled()
        try:
            with self._changed:
                for _ in range(self._batch.count):
                    self._begin()
                self._wake()  # it may have been stopped before
            self._start(self._take)
            if self._reach.has_names:
                self._start(self._look)
            while (some := self._next_out()) is not None:
                yield from some
            yield from self._batch.conclude()
            if self._batch.failure is not None:
                raise self._batch.failure
        finally:
            self.cancel()

    def _next_out(self) -> list[pb.ProcessResponse] | None:
        """Wait for messages; None: there are no more."""
        ends_at: float | None = None
        with self._changed:
            while True:
                some = list(self._out)
                self._out.clear()
                self._changed.notify_all()
                if some:
                    return some
                if self._failure is not None:
                    raise self._failure
                if self._cancelled:
                    raise was_cancelled()
                if not self._working:
                    return None
                if self._batch.is_fed:  # a server has nothing more to say that matters
                    ends_at = ends_at or time.monotonic() + GREETING
                    if (left := ends_at - time.monotonic()) <= 0:
                        return None
                    self._changed.wait(left)
                else:
                    self._changed.wait()

    def _start(self, work: Callable[..., None], *values: int) -> None:
        threading.Thread(target=self._guarded, args=(work, *values), name="apiflux-stream", daemon=True).start()

    def _guarded(self, work: Callable[..., None], *values: int) -> None:
        try:
            work(*values)
        except Exception as error:
            self._fail(error)

    def _begin(self) -> None:
        """With the next server."""
        self._working += 1
        self._count += 1
        self._start(self._serve, self._count - 1)

    def _wake(self) -> None:
        """Something has changed that somebody may wait for."""
        if self._batch.is_over:
            for at in range(self._count):  # one that has no connection has no calls either
                if not self._batch.is_up(at) and at not in self._let_go:
                    self._let_go.add(at)
                    if at in self._rpcs:
                        self._rpcs[at].cancel()
        self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _take(self) -> None:
        """Wait for the producer."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._batch.ended or self._batch.wanted)
                if self._closed or self._batch.ended:
                    return
            self._took(next(self._calls, None))

    def _took(self, some: list[AnyCall] | None) -> None:
        with self._changed:
            if not self._closed:
                self._batch.took(some)
                self._wake()

    def _look(self) -> None:
        """Look for servers that come and go."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over() or self._is_lost, roster.LOOK_EVERY)
                self._is_lost = False
            if self._is_over():
                return
            news = self._reach.look()
            with self._changed:
                if self._is_over():
                    return
                for at in news.gone:
                    self._batch.depart(at)
                for name in news.joined:
                    self._batch.join(name)
                    self._begin()
                self._changed.wait_for(self._is_over, roster.LOOK_PAUSE)

    def _is_over(self) -> bool:
        return self._closed or self._batch.is_over

    # -- one server ---------------------------------------------------------------------------

    def _serve(self, at: int) -> None:
        try:
            while not self._is_over():
                error, other = None, None
                try:
                    error = self._exchange(at)
                except OtherPool as refused:
                    other = refused
                with self._changed:
                    if self._closed or at in self._let_go:
                        return
                    if other is not None:
                        self._batch.leave_out(at, other)
                        self._wake()
                        return
                    end = self._batch.end(at, error, time.monotonic())
                    self._out.extend(end.responses)
                    self._is_lost |= error is not None
                    self._wake()
                    if end.wait is None:
                        return
                    self._changed.wait_for(self._is_over, end.wait)
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _exchange(self, at: int) -> ApifluxError | None:
        """One connection, from its beginning to its end; returns what ended it."""
        batch = self._batch
        try:
            if not batch.is_met(at):  # as in client/spreading.py
                asking = self._asked(at, lambda: self._reach.ask(at))
                self._reach.admit(at, asking.result())
            token = threading.Event()  # set when the connection is over
            rpc = self._asked(
                at, lambda: self._reach.connect(at, batch.connect(at, time.monotonic()), self._requests(at, token))
            )
            try:
                rpc.initial_metadata()
                self._open(at, rpc)
                for message in rpc:
                    self._hear(message, at)
            finally:
                rpc.cancel()
                with self._changed:
                    token.set()
                    self._changed.notify_all()
        except (grpc.RpcError, grpc.FutureCancelledError) as failed:
            if not isinstance(failed, grpc.RpcError):
                return was_cancelled()
            error = error_from(failed)
            return silent() if isinstance(error, DeadlineExceeded) and not batch.is_met(at) else error
        return None

    def _asked(self, at: int, ask: Callable[[], Any]) -> Any:
        """What `ask` begins, which ends when the batch does."""
        with self._changed:
            rpc = self._rpcs[at] = ask()
            if self._closed or at in self._let_go:
                rpc.cancel()
            return rpc

    def _open(self, at: int, rpc: Any) -> None:
        """The server has taken the connection, or ended it."""
        with self._changed:
            if rpc.is_active() and not self._closed and at not in self._let_go:
                self._batch.opened(at)
                self._wake()

    def _hear(self, message: pb.ProcessResponse, at: int) -> None:
        with self._changed:
            if self._closed:
                return
            response = self._batch.heard(message, at, time.monotonic())
            if response is not None:
                self._out.append(response)
            self._wake()
            self._changed.wait_for(lambda: self._closed or len(self._out) <= UNREAD)

    def _requests(self, at: int, token: threading.Event) -> Iterator[pb.ProcessStreamRequest]:
        """The messages of one connection, until its token is set."""
        batch, changed = self._batch, self._changed
        with changed:
            header = batch.header_for(at)
        yield pb.ProcessStreamRequest(open=header)
        with changed:
            if not changed.wait_for(lambda: token.is_set() or batch.is_up(at) or self._is_over(), GREETING):
                batch.silent(at)
                self._wake()
            changed.wait_for(lambda: token.is_set() or batch.is_up(at) or self._is_over())
        while True:
            try:
                message = self._next(at, token)
            except Exception as error:
                self._fail(error)
                return
            if message is not None:
                yield message
                continue
            with changed:
                if token.is_set() or self._closed or batch.is_fed:
                    return
                if batch.is_stopped or batch.is_recalled(at):
                    break
                if not batch.next(at):
                    changed.wait()
        yield pb.ProcessStreamRequest(stop=True)

    def _next(self, at: int, token: threading.Event) -> pb.ProcessStreamRequest | None:
        """The next message of calls, if there are any: a connection that drains or is over doesn't get them."""
        batch, changed = self._batch, self._changed
        with self._noting:
            with changed:
                some = [] if token.is_set() or self._closed else batch.next(at)
            if some and self._before_send is not None:
                self._before_send(some)
            with changed:
                if not some or token.is_set() or self._closed:
                    return None
                message = batch.hand_over(some, at)
                self._wake()
                return message
