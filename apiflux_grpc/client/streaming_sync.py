"""The one connection of a stream that ends with it, for the blocking client.

Rule: as client/streaming.py, in two threads: one of grpc's reads the iterable and feeds the connection, the caller's
reads the results. `_changed` guards what both touch.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc

from apiflux_grpc.client.feed import gathered, pieces
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from apiflux_grpc.client.calls import AnyCall


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

    @property
    def unsent(self) -> list[int]:
        """None are known: without `resume` every call that the server took has a result, and no other is kept."""
        return []

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
