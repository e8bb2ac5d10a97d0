"""What comes of an attempt (Answer, NotSent, Unknown), and the final word on a call (Result).

Rule: an outcome says what happened and nothing of what it means; verdict.py judges. All of them are frozen, for they
cross from the engine's thread to the server's.

    Answer    a whole, valid head came; `fault` says if the body didn't
    NotSent   not one byte reached the kernel: certainly not executed
    Unknown   bytes may have gone out and no head came back: it may have been executed
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from apiflux_grpc.core.headers import Headers


class Reason(Enum):
    """Why an attempt failed; the words that users see in ErrorInfo.reason and in the summary."""

    NOT_SENT = "NOT_SENT"  # certainly not executed
    TIMEOUT = "TIMEOUT"  # no whole answer in time; may have been executed
    UNKNOWN = "UNKNOWN"  # the connection ended before an answer; may have been executed
    BODY_CUT = "BODY_CUT"  # an answer began and was cut
    HTTP_1XX = "HTTP_1XX"
    HTTP_2XX = "HTTP_2XX"  # only if the pool doesn't count this 2xx as a success
    HTTP_3XX = "HTTP_3XX"
    HTTP_4XX = "HTTP_4XX"
    LIMITED = "LIMITED"
    HTTP_5XX = "HTTP_5XX"
    KEY_REJECTED = "KEY_REJECTED"  # 401, 402 or 403: our key was refused, or this call was
    INVALID_CALL = "INVALID_CALL"  # never sent: of a stream of calls, this one is wrong
    DRAINING = "DRAINING"  # never sent, or not again: the server shut down
    STOPPED = "STOPPED"  # never sent, or not again: the caller stopped
    NO_USABLE_KEY = "NO_USABLE_KEY"  # never sent, or not again: for too long no key could be used
    INTERNAL = "INTERNAL"  # a fault of ours


class Cause(Enum):
    """Why an attempt was never sent. The accounting depends on this and never on the words in `detail`."""

    UNREACHABLE = "unreachable"  # no connection could be opened: the upstream's fault
    NO_CONNECTION = "no connection in time"  # the same: it swallowed our packets
    DROPPED = "dropped"  # the connection was closed before it was used
    LATE = "late"  # past the attempt's `send_by`
    OUT_OF_TIME = "out of time"  # its timeout was over before it began
    CANCELLED = "cancelled"
    CLOSED = "closed"  # the upstream was closed, by us
    NO_FILE = "no file"  # this process can open no more connections

    @property
    def ours(self) -> bool:
        """It was kept back on our side, which says nothing of the upstream."""
        return self in _OURS


_OURS: Final = frozenset({Cause.LATE, Cause.OUT_OF_TIME, Cause.CANCELLED, Cause.CLOSED, Cause.NO_FILE})


class Answer(NamedTuple):
    """A whole, valid head came. `fault` says if the body didn't; `answered_at` (ns) is when the status line came."""

    status: int
    headers: Headers
    body: bytes
    answered_at: int
    truncated: bool = False
    fault: Reason | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not one byte reached the kernel: certainly not executed. `detail` is for people."""

    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Bytes may have gone out and no answer came: it may have been executed. `detail` is for people."""

    detail: str
    reason: Reason = Reason.UNKNOWN


NoAnswer = NotSent | Unknown
Outcome = Answer | NoAnswer

LATE: Final = NotSent(Cause.LATE, "late")
OUT_OF_TIME: Final = NotSent(Cause.OUT_OF_TIME, "not sent in time")
CANCELLED: Final = NotSent(Cause.CANCELLED, "cancelled")
CLOSED: Final = NotSent(Cause.CLOSED, "the upstream is closed")
NO_CONNECTION: Final = NotSent(Cause.NO_CONNECTION, "no connection in time")


class Result(NamedTuple):
    """The final word on a call.

    `index` is the call's, as its caller counts. `outcome` None means that the call ended while it waited, and
    `never_ran` that no earlier attempt can have been executed either. `key` is the label of the last attempt's key or
    "". `queue_time` and `latency` are ns; `ended_at` is on the engine's clock. `failure` is None for a success.
    """

    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls on a result
    outcome: Outcome | None
    failure: Reason | None
    key: str
    attempts: int
    queue_time: int
    latency: int
    ended_at: int
    detail: str = ""  # what is wrong with an INVALID_CALL
    never_ran: bool = False

    @property
    def size(self) -> int:
        """Bytes this result is counted as: body, headers and an allowance for the rest."""
        outcome = self.outcome
        if not isinstance(outcome, Answer):
            return 256
        return 256 + len(outcome.body) + 32 * len(outcome.headers.names)
