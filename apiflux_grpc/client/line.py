"""One server's part of a batch that outlives connections: the connection to it now, and how it went so far.

Rules:
- What a server said last decides which of its calls may have run; client/accounts.py has those calls.
- A server that can't be reached is asked again at growing intervals, and never before it said.

Here it is decided, without I/O and without a clock.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import grpc

from apiflux_grpc.client.accounts import Accounts
from apiflux_grpc.client.errors import (
    ApifluxError,
    DeadlineInfeasible,
    InvalidRequest,
    Overloaded,
    PoolNotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from apiflux_grpc.client.books import Books
    from apiflux_grpc.v1 import apiflux_pb2 as pb

_FIRST_WAIT: Final = 0.1  # seconds before a new attempt; doubles up to
_LONGEST_WAIT: Final = 5.0


class Line:
    """The connections to one server, one after another."""

    def __init__(self, books: Books) -> None:
        self.accounts = Accounts(books)
        self.met = False  # the server was there once
        self.cuts = 0  # connections that were lost
        self._tries = 0  # in a row, without a message
        # of this connection:
        self.summary: pb.Summary | None = None
        self.has_spoken = False

    def begin(self) -> None:
        """A new connection."""
        self.summary, self.has_spoken = None, False
        self.accounts.begin()

    def heard(self, message: pb.ProcessResponse) -> list[pb.CallResult]:
        """A message of this connection; returns its results as those of the whole."""
        self.has_spoken, self._tries = True, 0
        if message.HasField("summary"):
            self.summary = message.summary
        return self.accounts.results(message.results)

    def lost(self, error: ApifluxError) -> list[pb.CallResult]:
        """The connection is gone; returns the results of calls that may have run and must not run twice."""
        self.met = self.met or self.has_spoken or self.accounts.sent > 0
        taken: int | None = None
        if self.summary is not None:
            taken = self.summary.total
        elif not self.has_spoken and _is_refusal(error):
            taken = 0
        why = f"the connection to the server was lost ({error}), and this call must not run twice"
        return self.accounts.lost(taken, why)

    def cut(self, error: ApifluxError) -> float:
        """It was lost; returns after how many seconds it may be tried again."""
        self.cuts += 1
        wait: float = min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._tries) * random.uniform(0.5, 1.0)
        self._tries = min(self._tries + 1, 10)
        return max(wait, error.retry_delay or 0.0)


def is_curable(error: ApifluxError) -> bool:
    """Whether a new connection may help."""
    if isinstance(error, DeadlineInfeasible):
        return False
    if error.reason == "READER_STALLED" or isinstance(error, Overloaded | Unavailable):
        return True
    return not error.reason and error.code is grpc.StatusCode.CANCELLED  # the server stopped in the middle


def _is_refusal(error: ApifluxError) -> bool:
    """The server said this instead of taking the stream."""
    if isinstance(error, InvalidRequest):
        return all(place.startswith("open") for place, _ in error.violations)
    if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return True
    return error.reason != "" and isinstance(error, Overloaded | Unavailable | PoolNotFound)
