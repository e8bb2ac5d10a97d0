"""The connections of a stream that outlives them, for the blocking client.

Rule: client/resume.py decides what is sent and when to connect again; here is only the waiting, in two threads: one of
grpc's feeds a connection, the caller's reads it. `_changed` guards all that both touch. A call that the producer gave
is in the books at once, so none is lost when a connection ends, whoever waits for what at that moment.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.errors import ApifluxError, error_from
from apiflux_grpc.client.feed import gathered
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from apiflux_grpc.client.calls import AnyCall
    from apiflux_grpc.client.resume import Resumption

    SyncBeforeSend = Callable[[Sequence[int]], None]


class SyncResuming:
    """The same for the blocking client: a thread of grpc's feeds each connection, the caller's reads.

    The thread of a lost connection may still wait for the producer. Then the next connection sends what is to be sent
    again, and the call that the producer gives at last goes over that one.
    """

    def __init__(
        self,
        connect: Callable[[float | None, Iterator[pb.ProcessStreamRequest]], Any],
        batch: Resumption,
        calls: Iterable[AnyCall],
        before_send: SyncBeforeSend | None = None,
    ) -> None:
        self._connect = connect
        self._batch = batch
        self._calls = gathered(calls)
        self._before_send = before_send
        self._changed = threading.Condition()  # guards the batch and what follows
        self._rpc: Any = None
        self._feeding: object = None  # the token of the connection that is fed; None: there is none
        self._taking = False  # some thread waits for the producer
        self._failure: Exception | None = None  # of the producer
        self._noting = threading.Lock()  # held by the thread that calls before_send: one at a time, as without threads
        self._cancelled = threading.Event()
        self._woken = threading.Event()  # by cancel or stop, while there is no connection

    @property
    def unsent(self) -> list[int]:
        """As Resuming.unsent."""
        return self._batch.unsent

    def stop(self) -> None:
        """As Resuming.stop; a producer that blocks holds it back until it gives its next call."""
        with self._changed:
            self._batch.stop()
            self._changed.notify_all()
        self._woken.set()

    def cancel(self) -> None:
        """End it at once."""
        self._cancelled.set()
        self._woken.set()
        if self._rpc is not None:
            self._rpc.cancel()

    def __iter__(self) -> Iterator[pb.ProcessResponse]:
        batch, changed = self._batch, self._changed
        try:
            while True:
                if batch.is_stopped:  # before the first connection, or between two
                    with changed:
                        rest = batch.rest()
                    yield from rest
                    return
                error: ApifluxError | None = None
                rpc = self._open()
                try:
                    for message in rpc:
                        with changed:
                            response = batch.heard(message, time.monotonic())
                            changed.notify_all()
                        if response is not None:
                            yield response
                except grpc.RpcError as failed:
                    if self._failure is not None:
                        raise self._failure from None
                    if self._cancelled.is_set():  # whatever the server said at that moment
                        raise was_cancelled() from None
                    error = error_from(failed)
                finally:
                    self._hang_up(rpc)
                with changed:
                    end = batch.end(error, time.monotonic())
                yield from end.responses
                if end.error is not None:
                    raise end.error
                if end.wait is None:
                    return
                self._woken.wait(end.wait)
        finally:
            self.cancel()

    def _open(self) -> Any:
        """A new connection, and what feeds it. Raises ApifluxError if the stream was cancelled between two."""
        if self._cancelled.is_set():
            raise was_cancelled()
        connection = object()
        with self._changed:
            left = self._batch.connect(time.monotonic())
            self._feeding = connection
        rpc = self._rpc = self._connect(left, self._requests(connection))
        if not rpc.add_callback(lambda: self._forget(connection)):  # it is over already
            self._forget(connection)
        if self._cancelled.is_set() or self._failure is not None:  # since; whoever set it may not have seen this RPC
            rpc.cancel()
        return rpc

    def _hang_up(self, rpc: Any) -> None:
        """End the connection; a thread that still feeds it hands over nothing more once its token is gone."""
        rpc.cancel()
        self._forget(self._feeding)

    def _forget(self, connection: object) -> None:
        """This one is over, and is fed no more."""
        with self._changed:
            if self._feeding is connection:
                self._feeding = None
                self._changed.notify_all()

    def _requests(self, connection: object) -> Iterator[pb.ProcessStreamRequest]:
        """The messages of one connection."""
        yield pb.ProcessStreamRequest(open=self._batch.header)
        while (some := self._ready(connection)) is not None:
            if self._before_send is not None:
                try:
                    with self._noting:
                        self._before_send(some)
                except Exception as error:
                    self._fail(error)
                    return
            with self._changed:
                message = self._batch.hand_over(some) if self._feeding is connection else None
            if message is not None:
                yield message
        if self._batch.is_stopped:
            yield pb.ProcessStreamRequest(stop=True)

    def _ready(self, connection: object) -> list[int] | None:
        """Wait for calls that can be handed over; None: there are no more, or the connection is over."""
        batch, changed = self._batch, self._changed
        while True:
            with changed:
                if self._feeding is not connection:
                    return None
                if some := batch.next():
                    return some
                if batch.is_fed or batch.is_stopped:
                    return None
                if self._taking or not batch.wanted:
                    changed.wait()
                    continue
                self._taking = True
            self._take()

    def _take(self) -> None:
        """Wait for the producer. After it has failed nobody does."""
        try:
            calls = next(self._calls, None)
        except Exception as error:
            self._fail(error)
            return
        with self._changed:
            self._batch.took(calls)
            self._taking = False
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        """The reader raises it."""
        self._failure = error
        if self._rpc is not None:
            self._rpc.cancel()


def was_cancelled() -> ApifluxError:
    """What a reader hears whose stream was cancelled by another thread."""
    return ApifluxError("the stream was cancelled", code=grpc.StatusCode.CANCELLED)
