"""A stream that outlives its connection: when to connect again, and what is said of each connection's end.

Rules:
- client/accounts.py says which calls are sent again. Here it is decided whether the batch goes on at all: after an
  error that a new connection may cure, if a server was there before, and within the time to give up.
- Messages of one connection become messages of the whole: indexes, progress and the summary.
- Here it is decided, without I/O and without a clock; client/resuming.py and its blocking twin talk to the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from apiflux_grpc.client.channel import check_timeout
from apiflux_grpc.client.errors import ApifluxError, Unavailable
from apiflux_grpc.client.line import Line, is_curable
from apiflux_grpc.client.whole import GIVE_UP_AFTER, WINDOW, End, Whole
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.client.whole import OnConnection


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


class Resumption(Whole):
    """What is to be done for a batch, over all its connections to one server."""

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
        super().__init__(
            header, now, window=window, give_up_after=give_up_after, timeout=timeout, on_connection=on_connection
        )
        self._line = Line(self.books)
        self._here = 0  # results of this connection that were delivered

    # -- calls on their way there -------------------------------------------------------------

    def connect(self, now: float) -> float | None:
        """A new connection; returns how many seconds it may last, None: any."""
        if not self._line.cuts:
            self.last_heard = now
        self._here = 0
        self._line.begin()
        if self.expected:
            self.header.expected_calls = len(self.books.ready) + self.to_take
        return self.time_left(now)

    def next(self) -> list[int]:
        """The indexes of what can be handed over now, as one message."""
        return self._line.accounts.next(self.window - self.books.waiting)

    def hand_over(self, indexes: Sequence[int]) -> pb.ProcessStreamRequest | None:
        """The message with these calls, which `next` has named. None: they can't go over this connection any more."""
        accounts = self._line.accounts
        return None if accounts.draining else accounts.hand_over(indexes)

    # -- results on their way back ------------------------------------------------------------

    def heard(self, message: pb.ProcessResponse, now: float) -> pb.ProcessResponse | None:
        """A message of this connection as one of the whole; None: nothing is left of it."""
        self.last_heard = now
        self.tell(None)
        before = self.books.delivered - self._here
        results = self._line.heard(message)
        self._here = self.books.delivered - before
        for result in results:
            self.tally.add(result)
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
        line = self._line
        if self.is_stopped:
            lost = self._lost(error or Unavailable("stopped", code=grpc.StatusCode.UNAVAILABLE))
            return End([*lost, *self.rest(error is None)], error)
        if error is None:
            if self.is_fed:
                return End([self._last_word()])
            error = Unavailable("the stream ended too early", code=grpc.StatusCode.UNAVAILABLE)
        lost = self._lost(error)
        if not is_curable(error) or not (line.met or error.reason):
            return End(lost, error)
        wait = line.cut(error)
        if self.is_fed:
            return End([*lost, self._last_word()])
        if now + wait > self.last_heard + self.give_up_after:
            return End(lost, error)
        self.tell(error)
        return End(lost, wait=wait)

    def _lost(self, error: ApifluxError) -> list[pb.ProcessResponse]:
        """What is to be said of the calls of a connection that is gone."""
        return self.counted(self._line.lost(error))

    def rest(self, summary: bool = True) -> list[pb.ProcessResponse]:
        """The last messages after it was stopped: what was held back to keep the order, and the summary."""
        messages = self.counted(self.books.rest())
        return [*messages, self._last_word()] if summary else messages

    def _last_word(self) -> pb.ProcessResponse:
        summary = self._line.summary
        if summary is not None and not self._line.cuts:
            return pb.ProcessResponse(summary=summary)
        return self.summary()
