"""A batch over several servers: who gets which call, what becomes of it if a server is lost, and when it is over.

Rules:
- Every server takes from one source as it has capacity. What one has without a result is bounded by an equal share of
  the window, and near the end by a share of the calls that are left: as large as its part in those that are done. So
  none waits for another that took too many.
- What a server has and hasn't begun goes to others once one of them has nothing to do: its connection is recalled,
  which is `stop` for it alone, and made anew. That needs a server that has answered something since the last time: else
  a call that waits for a limit, or for its next attempt, would go to and fro for ever.
- A server that is lost is tried again for as long as another is there, unless the name that it was found by has its
  address no longer; one that comes later gets its share from then. That all are lost is what the loss of the one
  server is in client/resume.py, and so is an error that no new connection cures: then the others finish what they have.
- Duplicates are impossible because all servers share the same books (books.py), where a call is in one place at a time.

Here it is decided, without I/O and without a clock; client/spreading.py talks to the servers.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import grpc

from apiflux_grpc.client.errors import Unavailable, silent
from apiflux_grpc.client.hook import Hook
from apiflux_grpc.client.line import Line, is_curable
from apiflux_grpc.client.standing import combined, pace
from apiflux_grpc.client.whole import GIVE_UP_AFTER, WINDOW, End, Whole
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.client.errors import ApifluxError
    from apiflux_grpc.client.whole import OnConnection

    OnTarget = Callable[[str, ApifluxError | None], object]

# Seconds at least between two words on how it stands: each server says its own once a second. Its first time is told.
_TOLD_EVERY = 0.5


class _Server(Line):
    """One of them. It is up once it has taken the connection, and down from the end of one until it takes another."""

    def __init__(self, name: str, whole: Whole) -> None:
        super().__init__(whole.books)
        self.name = name
        self.is_up = False
        self.is_lost = False  # that was told, and not yet that it is back
        self.is_down = False
        self.has_left = False  # its name has another address now
        self.is_left_out = False  # for good
        self.told: pb.Progress | None = None  # of this connection
        self.pace: float | None = None  # by what it said last; None: it hasn't reckoned yet
        self.done = 0  # calls
        self.has_answered = False  # since a connection was last recalled

    @property
    def is_idle(self) -> bool:
        """It has done its calls, and could take others."""
        accounts = self.accounts
        is_free = self.is_up and not (accounts.open or accounts.draining or accounts.recalled)
        return is_free and self.has_answered


class Several(Whole):
    """What is to be done for a batch over the servers of these names, which are told apart by their places."""

    def __init__(
        self,
        names: Sequence[str],
        header: pb.ProcessStreamOpen,
        now: float,
        *,
        window: int = WINDOW,
        give_up_after: float = GIVE_UP_AFTER,
        timeout: float | None = None,
        on_connection: OnConnection | None = None,
        on_target: OnTarget | None = None,
    ) -> None:
        super().__init__(
            header, now, window=window, give_up_after=give_up_after, timeout=timeout, on_connection=on_connection
        )
        header.correlation_id = header.correlation_id or uuid.uuid4().hex  # the same in the logs of all
        self.failure: ApifluxError | None = None  # ends the whole
        self._servers = [_Server(name, self) for name in names]
        self._on_target: Hook[tuple[str, ApifluxError | None]] = Hook(
            None if on_target is None else lambda news: on_target(*news), "on_target"
        )
        self._told_at = now - _TOLD_EVERY

    @property
    def count(self) -> int:
        """How many servers there are."""
        return len(self._servers)

    @property
    def is_over(self) -> bool:
        """Nothing more is handed over to anybody."""
        return self.is_fed or self.is_stopped

    def is_up(self, at: int) -> bool:
        """Whether this server has taken its connection."""
        return self._servers[at].is_up

    def is_met(self, at: int) -> bool:
        """Whether this server was there once."""
        return self._servers[at].met

    def is_recalled(self, at: int) -> bool:
        """Whether this server is to be told to stop."""
        return self._servers[at].accounts.recalled

    def join(self, name: str) -> None:
        """There is one more, at the next place."""
        self._servers.append(_Server(name, self))

    def depart(self, at: int) -> None:
        """This server isn't tried again once it is lost, if there are others."""
        self._servers[at].has_left = True

    # -- calls on their way there -------------------------------------------------------------

    def connect(self, at: int, now: float) -> float | None:
        """A new connection to this server; returns how many seconds it may last, None: any."""
        if not any(server.cuts or server.is_up for server in self._servers):
            self.last_heard = now
        self._servers[at].begin()
        return self.time_left(now)

    def header_for(self, at: int) -> pb.ProcessStreamOpen:
        """What this connection is told first: it is to expect its share of the calls that are left."""
        header = pb.ProcessStreamOpen()
        header.CopyFrom(self.header)
        header.ordered = False  # the books see to that, over all
        if self.expected:
            header.expected_calls = -(-(len(self.books.ready) + self.to_take) // self._sharing)
        return header

    def opened(self, at: int) -> None:
        """This server has taken the connection."""
        server = self._servers[at]
        server.is_up, server.is_down = True, False
        self._tell_of(server, None)

    def silent(self, at: int) -> None:
        """It has not, for long: its share is for the others, until it does."""
        self._down(self._servers[at], silent())

    def next(self, at: int) -> list[int]:
        """The indexes of what this server can be handed now, as one message."""
        server, sharing = self._servers[at], self._sharing
        if not server.is_up:
            return []
        share = -(-self.window // sharing)
        if self.ended or self.expected:
            share = min(share, self._part(server, self.books.left + self.to_take))
        even = -(-len(self.books.ready) // sharing)
        return server.accounts.next(min(self.window - self.books.waiting, share - server.accounts.open, even))

    def _part(self, server: _Server, calls: int) -> int:
        """How many of these a server will do, going by those that it did."""
        done = sum(other.done + 1 for other in self._servers if not (other.is_down or other.is_left_out))
        return -(-calls * (server.done + 1) // max(1, done))

    def hand_over(self, indexes: Sequence[int], at: int) -> pb.ProcessStreamRequest | None:
        """The message with these calls, which `next` has named. None: they can't go over this connection any more."""
        accounts = self._servers[at].accounts
        if accounts.draining or accounts.recalled or self.is_stopped:
            return None
        return accounts.hand_over(indexes)

    @property
    def _sharing(self) -> int:
        """How many servers there are to share calls."""
        return max(1, sum(not (server.is_down or server.is_left_out) for server in self._servers))

    # -- results on their way back ------------------------------------------------------------

    def heard(self, message: pb.ProcessResponse, at: int, now: float) -> pb.ProcessResponse | None:
        """A message of this server's as one of the whole; None: nothing is left of it."""
        server = self._servers[at]
        self.last_heard = now
        self.tell(None)
        before = self.books.left
        response = pb.ProcessResponse(results=server.heard(message))
        server.done += before - self.books.left
        server.has_answered |= before > self.books.left
        for result in response.results:
            self.tally.add(result)
        if message.HasField("progress"):
            is_news = server.pace is None
            # The first word of a connection comes before it has reckoned, a second before the next.
            if server.told is not None or message.progress.HasField("eta"):
                server.pace = pace(message.progress)
            is_news &= server.pace is not None
            server.told = message.progress
            self._balance(server, message.progress)
            if is_news or now - self._told_at >= _TOLD_EVERY:
                self._told_at = now
                told = [other.told for other in self._servers if other.told is not None]
                paces = [other.pace for other in self._servers if not (other.is_down or other.is_left_out)]
                response.progress.CopyFrom(combined(told, self.books, self.to_take, paces))
        return response if response.results or response.HasField("progress") else None

    def _balance(self, server: _Server, told: pb.Progress) -> None:
        """Recall a server's connection if calls wait there, and another has nothing to do."""
        waits = told.total > told.done + told.in_flight and told.waits_for.cause != pb.HELD_CAUSE_BACKOFF
        if waits and not self.books.ready and any(other.is_idle for other in self._servers):
            server.accounts.recalled = True
            for other in self._servers:
                other.has_answered = False

    def end(self, at: int, error: ApifluxError | None, now: float) -> End:
        """The connection to this server is over, or none came; without an error the server said that all is done.

        Nothing is raised of it: `failure` is what ends the whole.
        """
        server = self._servers[at]
        is_recalled = server.accounts.recalled
        server.is_up, server.told = False, None
        if error is None and not self.is_over and not is_recalled:
            error = Unavailable("the stream ended too early", code=grpc.StatusCode.UNAVAILABLE)
        lost = self.counted(server.lost(error or Unavailable("stopped", code=grpc.StatusCode.UNAVAILABLE)))
        if self.is_over:
            if self.is_stopped:
                self.failure = self.failure or error
            return End(lost)
        if error is None:
            return End(lost, wait=0.0)
        if not is_curable(error):
            self.fail(error)
            return End(lost)
        wait = server.cut(error)
        self._down(server, error)
        if self._are_all_gone:
            was_never_there = not (self._is_any_met or error.reason)
            if was_never_there or now + wait > self.last_heard + self.give_up_after:
                self.fail(error)
                return End(lost)
        elif server.has_left:
            server.is_left_out = True
            return End(lost)
        return End(lost, wait=wait)

    def leave_out(self, at: int, error: ApifluxError) -> None:
        """This server can't be used, however often it is tried."""
        server = self._servers[at]
        server.is_left_out = True
        self._tell_of(server, error)
        if all(other.is_left_out for other in self._servers):
            self.fail(error)

    def fail(self, error: ApifluxError) -> None:
        """The whole ends with this error, once the calls that servers have are done."""
        self.failure = self.failure or error
        self.stop()

    def conclude(self) -> list[pb.ProcessResponse]:
        """The last messages, when no connection is left."""
        messages = self.counted(self.books.rest()) if self.is_stopped else []
        return [*messages, self.summary()] if self.failure is None else messages

    # -- what is told -------------------------------------------------------------------------

    def _down(self, server: _Server, error: ApifluxError) -> None:
        server.is_down = True
        self._tell_of(server, error)
        if self._are_all_gone and self._is_any_met:
            self.tell(error)

    @property
    def _are_all_gone(self) -> bool:
        return all(server.is_down or server.is_left_out for server in self._servers)

    @property
    def _is_any_met(self) -> bool:
        return any(server.met for server in self._servers)

    def _tell_of(self, server: _Server, error: ApifluxError | None) -> None:
        """It is lost, or it is back; each is news only once."""
        if server.is_lost is (error is None):
            server.is_lost = not server.is_lost
            self._on_target.tell((server.name, error))
