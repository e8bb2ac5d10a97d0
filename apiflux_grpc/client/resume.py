"""A stream that outlives its connection: when to connect again, and what is said of each connection's end.

Rules:
- client/accounts.py says which calls are sent again. Here it is decided whether the batch goes on at all: after an
  error that a new connection may cure, if a server was there before, and within the time to give up.
- Messages of one connection become messages of the whole: indexes, progress and the summary.
- Here it is decided, without I/O and without a clock; client/resuming.py and its blocking twin talk to the server.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from apiflux_grpc.client.accounts import Accounts
from apiflux_grpc.client.channel import check_timeout
from apiflux_grpc.client.errors import (
    ApifluxError,
    DeadlineInfeasible,
    InvalidRequest,
    Overloaded,
    PoolNotFound,
    Unavailable,
)
from apiflux_grpc.client.feed import CALLS_PER_MESSAGE
from apiflux_grpc.client.hook import Hook
from apiflux_grpc.client.tally import Tally
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from apiflux_grpc.client.calls import AnyCall

    OnConnection = Callable[[ApifluxError | None], object]

WINDOW: Final = 2_000  # calls without a result
GIVE_UP_AFTER: Final = 60.0  # seconds
_FIRST_WAIT: Final = 0.1  # seconds before a new attempt; doubles up to
_LONGEST_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class End:
    """What follows on the end of a connection: hand out `responses`, then raise `error`, or connect again in `wait`
    seconds; neither: the batch is over."""

    responses: Sequence[pb.ProcessResponse] = ()
    error: ApifluxError | None = None
    wait: float | None = None


def resumption_of(
    header: pb.ProcessStreamOpen,
    now: float,
    *,
    resume: bool,
    window: int,
    give_up_after: float,
    timeout: float | None,
    before_send: object,
    on_connection: OnConnection | None,
) -> Resumption | None:
    """What both clients' process_stream makes of its options; None: the batch ends with its connection.

    Raises ValueError for an option that is out of bounds or needs `resume`.
    """
    if resume:
        return Resumption(
            header, now, window=window, give_up_after=give_up_after, timeout=timeout, on_connection=on_connection
        )
    for name, option in (("before_send", before_send), ("on_connection", on_connection)):
        if option is not None:
            raise ValueError(f"{name} needs resume=True; pass both, or neither")
    check_timeout(timeout)
    return None


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
        on_connection: OnConnection | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self.header = header
        self._expected = header.expected_calls
        self._hook = Hook(on_connection, "on_connection")
        self._is_lost = False  # that was told, and not yet that it is back
        self._window = window
        self._give_up_after = give_up_after
        timeout = check_timeout(timeout)
        self._deadline = None if timeout is None else now + timeout
        self._accounts = Accounts(header.ordered)
        self._tally = Tally()
        self._ended = False  # the producer has
        self._met = False  # a server was there once
        self._cuts = 0  # connections that were lost
        self._tries = 0  # in a row, without a message
        self._last_heard = now
        # of this connection:
        self._summary: pb.Summary | None = None
        self._heard = False
        self._here = 0  # results that were delivered

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
        if self._expected:
            to_take = 0 if self._ended else max(0, self._expected - self._accounts.taken)
            self.header.expected_calls = len(self._accounts.ready) + to_take
        return None if self._deadline is None else max(self._deadline - now, 0.0)

    @property
    def wanted(self) -> int:
        """How many more calls of the producer there is room for now."""
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
        self._ended = True
        self._accounts.stop()

    @property
    def is_stopped(self) -> bool:
        """It was stopped, so the server is to be told."""
        return self._accounts.stopped

    # -- results on their way back ------------------------------------------------------------

    def heard(self, message: pb.ProcessResponse, now: float) -> pb.ProcessResponse | None:
        """A message of this connection as one of the whole; None: nothing is left of it."""
        self._heard, self._last_heard, self._tries = True, now, 0
        self._tell(None)
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
        self._tell(error)
        return End(lost, wait=wait)

    def _tell(self, error: ApifluxError | None) -> None:
        """The connection is lost, or it is back; each is news only once."""
        if self._is_lost is (error is None):
            self._is_lost = not self._is_lost
            self._hook.tell(error)

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
