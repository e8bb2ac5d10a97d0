"""What one connection after another to a server was handed, and what became of it.

Rules:
- A call that may have run is sent again only if it is idempotent; otherwise its result is the error UNKNOWN with
  `may_have_run`. A call that was handed to the connection counts as one that may have run, unless the server said
  otherwise: it gives every call it took its result when it drains, and takes none when it refuses the stream.
- Every call gets exactly one result (books.py). No more than `window` calls are handed over without one, so that is
  also what a lost connection can leave in doubt, and what memory holds.
- Stopped, it hands over nothing more: a call that the server then says it didn't run has no result, like one that was
  never handed over. A connection that is `recalled` is stopped alone, and its calls go elsewhere.

It knows neither connections nor time; client/resume.py does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2

from apiflux_grpc.client.calls import is_idempotent
from apiflux_grpc.client.feed import CALLS_PER_MESSAGE
from apiflux_grpc.client.tally import error_info
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.client.books import Books, Item


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


class Accounts:
    """What a connection has of the calls in the books."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._open: dict[int, Item] = {}  # handed to this connection, by its own index
        self.sent = 0  # on this connection
        self.draining = False  # this connection, so nothing more is sent on it
        self.recalled = False  # the same, because we said so

    @property
    def open(self) -> int:
        """Calls that this connection has."""
        return len(self._open)

    def begin(self) -> None:
        """A new connection, on which nothing was sent."""
        self.sent = 0
        self.draining = self.recalled = False

    def next(self, room: int) -> list[int]:
        """The indexes of what can go into one message now, if there is room for so many."""
        is_shut = self.draining or self.recalled or self._books.stopped
        return self._books.next(0 if is_shut else min(room, CALLS_PER_MESSAGE))

    def hand_over(self, indexes: Sequence[int]) -> pb.ProcessStreamRequest:
        """These calls, which `next` has named, as a message. From now on they may have run."""
        message = pb.ProcessStreamRequest()
        for item in self._books.hand_out(set(indexes)):
            self._open[self.sent] = item
            self.sent += 1
            message.calls.append(item.call)
        return message

    def results(self, results: Iterable[pb.CallResult]) -> list[pb.CallResult]:
        """Results of this connection as those of the whole; without those of calls that are sent again."""
        found: list[pb.CallResult] = []
        settled: list[Item] = []
        again: list[Item] = []
        for result in results:
            item = self._open.pop(result.index, None)
            if item is None:
                continue  # never asked for
            if result.HasField("error"):
                info = error_info(result)
                self.draining |= info.reason == "DRAINING"
                is_stopped = self._books.stopped or self.recalled
                waited = info.reason == "DRAINING" or (info.reason == "STOPPED" and is_stopped)
                if waited and (info.metadata["may_have_run"] == "false" or is_idempotent(item.call)):
                    again.append(item)
                    continue
                if info.reason == "INVALID_CALL" and result.index != item.index:
                    own, whole = f"calls[{result.index}]", f"calls[{item.index}]"
                    result.error.message = result.error.message.replace(own, whole)
            result.index = item.index
            found.append(result)
            settled.append(item)
        self._books.give_back(again)
        return self._books.settle(settled, found)

    def lost(self, taken: int | None, why: str) -> list[pb.CallResult]:
        """The connection is gone; `taken` is how many of its calls the server took, None: not known.

        Returns the results of the calls that may have run and must not be sent again.
        """
        again: list[Item] = []
        doubtful: list[Item] = []
        for place, item in self._open.items():
            is_sure = taken is not None and place >= taken
            (again if is_sure or is_idempotent(item.call) else doubtful).append(item)
        self._open.clear()
        self._books.give_back(again)
        return self._books.settle(doubtful, [unknown_result(item.index, item.call.id, why) for item in doubtful])
