"""What is known of each call of a stream that resumes: not handed over yet, handed over, or answered.

Rules:
- A call that may have run is sent again only if it is idempotent; otherwise its result is the error UNKNOWN with
  `may_have_run`. A call that was handed to the connection counts as one that may have run, unless the server said
  otherwise: it gives every call it took its result when it drains, and takes none when it refuses the stream.
- Every call gets exactly one result. No more than `window` calls are handed over without one, so that is also what
  a lost connection can leave in doubt, and what memory holds.
- Stopped, it hands over nothing more: a call that the server then says it didn't run has no result, like one that was
  never handed over.

It knows neither connections nor time; client/resume.py does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2

from apiflux_grpc.client.calls import is_idempotent, to_message
from apiflux_grpc.client.feed import BYTES_PER_MESSAGE, CALLS_PER_MESSAGE
from apiflux_grpc.client.tally import error_info
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.client.calls import AnyCall

WINDOW_BYTES: Final = 64 << 20  # of calls without a result; a single call may be larger


def unknown_result(index: int, id: str, why: str) -> pb.CallResult:
    """The result of a call that may have run and must not run twice."""
    result = pb.CallResult(index=index, id=id, failure=pb.REASON_UNKNOWN)
    result.completed_at.GetCurrentTime()
    result.error.code = code_pb2.UNKNOWN
    result.error.message = why
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="UNKNOWN", domain="apiflux.v1", metadata={"may_have_run": "true"}))
    result.error.details.append(detail)
    return result


@dataclass(slots=True)
class _Item:
    """A call without a result."""

    index: int  # of the whole, over all connections
    call: pb.Call
    size: int  # in bytes, as a message


class Accounts:
    """What is known of each call that was taken from the producer and has no result yet."""

    def __init__(self, ordered: bool = False) -> None:
        self.ready: deque[_Item] = deque()  # may be sent now
        self._open: dict[int, _Item] = {}  # handed to this connection, by its own index
        self._bytes = 0  # of the open ones
        self.sent = 0  # on this connection
        self.draining = False  # this connection, so nothing more is sent on it
        self.stopped = False  # nothing more is sent at all
        self.taken = 0  # from the producer
        self._held: dict[int, pb.CallResult] | None = {} if ordered else None
        self._next = 0  # of the next result, if they come in order
        self.delivered = 0

    @property
    def waiting(self) -> int:
        """Calls that take room: handed over, or with a result whose turn hasn't come."""
        return len(self._open) + len(self._held or ())

    @property
    def is_settled(self) -> bool:
        """Every call taken so far has its result."""
        return not self.ready and not self._open

    def take(self, calls: Iterable[AnyCall]) -> None:
        """More calls of the producer's."""
        for call in calls:
            message = to_message(call)
            self.ready.append(_Item(self.taken, message, message.ByteSize()))
            self.taken += 1

    def begin(self) -> None:
        """A new connection, on which nothing was sent."""
        self.sent = 0
        self.draining = False

    def stop(self) -> None:
        """Hand over nothing more, on this connection or another."""
        self.stopped = True

    def next(self, window: int) -> list[int]:
        """The indexes of what can go into one message now."""
        room = 0 if self.draining or self.stopped else min(window - self.waiting, CALLS_PER_MESSAGE)
        some: list[int] = []
        size = 0
        for item in self.ready:
            size += item.size
            alone = not some and not self._open
            if len(some) >= room or (not alone and self._bytes + size > WINDOW_BYTES):
                break
            if some and size > BYTES_PER_MESSAGE:
                break
            some.append(item.index)
        return some

    def hand_over(self, count: int) -> pb.ProcessStreamRequest:
        """The first `count` calls as a message. From now on they may have run."""
        message = pb.ProcessStreamRequest()
        for _ in range(count):
            item = self.ready.popleft()
            self._open[self.sent] = item
            self.sent += 1
            self._bytes += item.size
            message.calls.append(item.call)
        return message

    def results(self, results: Iterable[pb.CallResult]) -> list[pb.CallResult]:
        """Results of this connection as those of the whole; without those of calls that are sent again."""
        found: list[pb.CallResult] = []
        again: list[_Item] = []
        for result in results:
            item = self._open.pop(result.index, None)
            if item is None:
                continue  # never asked for
            self._bytes -= item.size
            if result.HasField("error"):
                info = error_info(result)
                self.draining |= info.reason == "DRAINING"
                waited = info.reason == "DRAINING" or (info.reason == "STOPPED" and self.stopped)
                if waited and (info.metadata["may_have_run"] == "false" or is_idempotent(item.call)):
                    again.append(item)
                    continue
                if info.reason == "INVALID_CALL" and result.index != item.index:
                    own, whole = f"calls[{result.index}]", f"calls[{item.index}]"
                    result.error.message = result.error.message.replace(own, whole)
            result.index = item.index
            found.append(result)
        self._send_again(again)
        return self._in_turn(found)

    def lost(self, taken: int | None, why: str) -> list[pb.CallResult]:
        """The connection is gone; `taken` is how many of its calls the server took, None: not known.

        Returns the results of the calls that may have run and must not be sent again.
        """
        again: list[_Item] = []
        unknown: list[pb.CallResult] = []
        for place, item in self._open.items():
            if (taken is not None and place >= taken) or is_idempotent(item.call):
                again.append(item)
            else:
                unknown.append(unknown_result(item.index, item.call.id, why))
        self._open.clear()
        self._bytes = 0
        self._send_again(again)
        return self._in_turn(unknown)

    def rest(self) -> list[pb.CallResult]:
        """Results whose turn never comes, since a call before them has none."""
        held, self._held = self._held or {}, None
        self.delivered += len(held)
        return [held[index] for index in sorted(held)]

    def _send_again(self, items: list[_Item]) -> None:
        if items:
            self.ready = deque(sorted([*items, *self.ready], key=lambda item: item.index))

    def _in_turn(self, results: list[pb.CallResult]) -> list[pb.CallResult]:
        if self._held is not None:
            self._held.update((result.index, result) for result in results)
            results = []
            while self._next in self._held:
                results.append(self._held.pop(self._next))
                self._next += 1
        self.delivered += len(results)
        return results
