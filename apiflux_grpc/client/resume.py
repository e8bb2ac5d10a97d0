"""A stream that outlives its connection: what is known of each call, and when to connect again.

Rules:
- A call that may have run is sent again only if it is idempotent; otherwise its result is the error UNKNOWN with
  `may_have_run`. A call that was handed to the connection counts as one that may have run, unless the server said
  otherwise: it gives every call it took its result when it drains, and takes none when it refuses the stream.
- Every call gets exactly one result. No more than `window` calls are handed over without one, so that is also what
  a lost connection can leave in doubt, and what memory holds.
- Stopped, it hands over nothing more, and its end is the end of all: a call that the server then says it didn't run
  has no result, like one that was never handed over.
- Here it is decided, without I/O and without a clock; client/resuming.py talks to the server.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2

from apiflux_grpc.client.channel import seconds
from apiflux_grpc.client.errors import (
    ApifluxError,
    DeadlineInfeasible,
    InvalidRequest,
    Overloaded,
    PoolNotFound,
    Unavailable,
)
from apiflux_grpc.client.feed import BYTES_PER_MESSAGE, CALLS_PER_MESSAGE
from apiflux_grpc.client.tally import Tally, error_info
from apiflux_grpc.client.types import is_idempotent, to_message
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.client.feed import AnyCall

WINDOW: Final = 2_000  # calls without a result
WINDOW_BYTES: Final = 64 << 20  # the same in bytes; a single call may be larger
GIVE_UP_AFTER: Final = 60.0  # seconds
_FIRST_WAIT: Final = 0.1  # seconds before a new attempt; doubles up to
_LONGEST_WAIT: Final = 5.0


def unknown_result(index: int, id: str, why: str) -> pb.CallResult:
    """The result of a call that may have run and must not run twice."""
    result = pb.CallResult(index=index, id=id, failure="UNKNOWN")
    result.completed_at.GetCurrentTime()
    result.error.code = code_pb2.UNKNOWN
    result.error.message = why
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="UNKNOWN", domain="apiflux.v1", metadata={"may_have_run": "true"}))
    result.error.details.append(detail)
    return result


@dataclass(slots=True)
class _Item:
    index: int  # of the whole, over all connections
    call: pb.Call
    size: int


class Accounts:
    """What is known of each call that was taken from the producer and has no result yet."""

    def __init__(self, ordered: bool = False) -> None:
        self.ready: deque[_Item] = deque()  # may be sent now
        self._open: dict[int, _Item] = {}  # handed to this connection, by its own index
        self._bytes = 0  # of the open ones
        self.sent = 0  # on this connection
        self.draining = False  # this connection, so nothing more is sent on it
        self.stopped = False  # nothing more is sent at all
        self._taken = 0  # from the producer
        self._held: dict[int, pb.CallResult] | None = {} if ordered else None
        self._next = 0  # the index that is due, where they come in order
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
            self.ready.append(_Item(self._taken, message, message.ByteSize()))
            self._taken += 1

    def begin(self) -> None:
        """A new connection, on which nothing was sent."""
        self.sent = 0
        self.draining = False

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


@dataclass(frozen=True, slots=True)
class End:
    """What follows on the end of a connection: hand out `responses`, then raise `error`, or connect again in `wait`
    seconds; neither: the batch is over."""

    responses: Sequence[pb.ProcessResponse] = ()
    error: ApifluxError | None = None
    wait: float | None = None


class Resumption:
    """What is to be done for a batch, over all its connections. `now` is seconds on a clock that never goes back."""

    def __init__(
        self,
        header: pb.ProcessStreamOpen,
        now: float,
        *,
        window: int = WINDOW,
        give_up_after: float = GIVE_UP_AFTER,
        timeout: float | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self.header = header
        self._window = window
        self._give_up_after = give_up_after
        timeout = seconds(timeout)
        self._deadline = None if timeout is None else now + timeout
        self._accounts = Accounts(header.ordered)
        self._tally = Tally()
        self._ended = False  # the producer has
        self._met = False  # a server was there
        self._cuts = 0
        self._tries = 0  # in a row, in vain
        self._last_heard = now
        # of this connection:
        self._summary: pb.Summary | None = None
        self._heard = False
        self._here = 0  # results

    @property
    def unsent(self) -> list[int]:
        """The indexes of calls without a result that certainly didn't run, or may run again."""
        return [item.index for item in self._accounts.ready]

    # -- calls on their way there -------------------------------------------------------------

    def connect(self, now: float) -> float | None:
        """A new connection; returns how many seconds it may last, None: any."""
        if not self._cuts:
            self._last_heard = now
        self._summary, self._heard, self._here = None, False, 0
        self._accounts.begin()
        return None if self._deadline is None else max(self._deadline - now, 0.0)

    @property
    def wanted(self) -> int:
        """How many calls of the producer's there is room for now."""
        accounts = self._accounts
        if accounts.ready or self._ended:
            return 0
        return max(min(CALLS_PER_MESSAGE, self._window - accounts.waiting), 0)

    def took(self, calls: Iterable[AnyCall] | None) -> None:
        """What the producer gave; None: that was all."""
        if calls is None:
            self._ended = True
        else:
            self._accounts.take(calls)

    def next(self) -> list[int]:
        """The indexes of what can be handed over now, as one message."""
        return self._accounts.next(self._window)

    def hand_over(self, indexes: Sequence[int]) -> pb.ProcessStreamRequest | None:
        """The message with these calls, which `next` has named. None: they can't go over this connection any more."""
        return None if self._accounts.draining else self._accounts.hand_over(len(indexes))

    @property
    def is_fed(self) -> bool:
        """There is nothing more to say: every call has its result, so that until then it can be stopped."""
        return self._is_settled

    def stop(self) -> None:
        """Hand over nothing more, and don't connect again."""
        self._ended = self._accounts.stopped = True

    @property
    def is_stopped(self) -> bool:
        """It was stopped, so the server is to be told."""
        return self._accounts.stopped

    # -- results on their way back ------------------------------------------------------------

    def heard(self, message: pb.ProcessResponse, now: float) -> pb.ProcessResponse | None:
        """A message of this connection as one of the whole; None: nothing is left of it."""
        self._heard, self._last_heard, self._tries = True, now, 0
        accounts = self._accounts
        before = accounts.delivered - self._here
        results = accounts.results(message.results)
        self._here = accounts.delivered - before
        if message.HasField("summary"):
            self._summary = message.summary
        for result in results:
            self._tally.add(result)
        if not results and not message.HasField("progress"):
            return None
        response = pb.ProcessResponse(results=results)
        if message.HasField("progress"):
            response.progress.CopyFrom(message.progress)
            response.progress.done += before
            response.progress.total += before
        return response

    def end(self, error: ApifluxError | None, now: float) -> End:
        """This connection is over; without an error the server said that all is done."""
        if self.is_stopped:
            lost = self._lost(error or Unavailable("stopped", code=grpc.StatusCode.UNAVAILABLE))
            return End([*lost, *self.rest(error is None)], error)
        if error is None:
            if self._is_settled:
                return End([self._last_word()])
            error = Unavailable("the stream ended too early", code=grpc.StatusCode.UNAVAILABLE)
        self._met = self._met or self._heard or self._accounts.sent > 0
        lost = self._lost(error)
        if not _resumable(error) or not (self._met or error.reason):
            return End(lost, error)
        self._cuts += 1
        if self._is_settled:
            return End([*lost, self._last_word()])
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._tries) * random.uniform(0.5, 1.0)
        wait = max(wait, error.retry_delay or 0.0)
        self._tries = min(self._tries + 1, 10)
        if now + wait > self._last_heard + self._give_up_after:
            return End(lost, error)
        return End(lost, wait=wait)

    @property
    def _is_settled(self) -> bool:
        return self._ended and self._accounts.is_settled

    def _lost(self, error: ApifluxError) -> list[pb.ProcessResponse]:
        """What is to be said of the calls of a connection that is gone."""
        taken: int | None = None
        if self._summary is not None:
            taken = self._summary.total
        elif not self._heard and _is_refusal(error):
            taken = 0
        why = f"the connection to the server was lost ({error}), and this call must not run twice"
        results = self._accounts.lost(taken, why)
        for result in results:
            self._tally.add(result)
        return [pb.ProcessResponse(results=results)] if results else []

    def rest(self, summary: bool = True) -> list[pb.ProcessResponse]:
        """The last messages after it was stopped: what was held back to keep the order, and the summary."""
        results = self._accounts.rest()
        for result in results:
            self._tally.add(result)
        messages = [pb.ProcessResponse(results=results)] if results else []
        return [*messages, self._last_word()] if summary else messages

    def _last_word(self) -> pb.ProcessResponse:
        if self._summary is not None and not self._cuts:
            return pb.ProcessResponse(summary=self._summary)
        return pb.ProcessResponse(summary=self._tally.summary(self.header.correlation_id))


def _is_refusal(error: ApifluxError) -> bool:
    """The server said this instead of taking the stream."""
    if isinstance(error, InvalidRequest):
        return all(place.startswith("open") for place, _ in error.violations)
    if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return True
    return error.reason != "" and isinstance(error, Overloaded | Unavailable | PoolNotFound)


def _resumable(error: ApifluxError) -> bool:
    if isinstance(error, DeadlineInfeasible):
        return False
    if error.reason == "READER_STALLED" or isinstance(error, Overloaded | Unavailable):
        return True
    return not error.reason and error.code is grpc.StatusCode.CANCELLED  # the server stopped in the middle
