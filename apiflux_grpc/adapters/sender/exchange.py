"""One request on its way, and the answer that may end it.

Rule: the origin alone writes an exchange's `carrier`, `over` and `slot`; who subclasses Exchange only hears `sent` and
`done`. So "is it over?" and "was it handed to a connection?" each have one answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from apiflux_grpc.core.outcome import Cause, NotSent, Reason, Unknown


class Reply(NamedTuple):
    """An answer, as it came.

    `names` of its headers, in lower case, and `values`, one for each name; `answered_at`: its head came (ns);
    `truncated`: the body went over the cap, and this is a little more than the cap; `fault`: why the body isn't whole.
    """

    # A tuple, since one is made per call: a class with slots costs more than twice as much.
    status: int
    names: list[bytes]
    values: list[bytes]
    body: bytes
    answered_at: int
    truncated: bool
    fault: Reason | None


class Carrier(Protocol):
    """The connection that an exchange was written on, as far as the origin needs it to stop the exchange."""

    def cut(self, detail: str, fault: Reason, reason: Reason, cause: Cause) -> None:
        """End the exchange now, as what is known of it.

        A Reply with `fault` if its head came, NotSent for `cause` if nothing went out, else Unknown for `reason`.
        """


class Exchange:
    """One request, and who is told of it. Instants are ns of the origin's clock."""

    # Compared by identity: the wheel keeps them as keys, and two calls may well have equal bytes.
    __slots__ = ("carrier", "deadline", "head_only", "idempotent", "over", "request", "send_by", "slot")

    def __init__(
        self, request: bytes, *, head_only: bool, deadline: int, send_by: int | None = None, idempotent: bool = True
    ) -> None:
        self.request = request
        self.head_only = head_only  # HEAD: an answer has no body, whatever its head says (RFC 9112, section 6.3)
        self.deadline = deadline
        # Written later, a call could arrive when its bucket's limit doesn't allow for it any more.
        self.send_by = send_by
        self.idempotent = idempotent  # it may run twice, so it may take a connection that has been idle for a while
        self.carrier: Carrier | None = None  # from the write on
        self.over = False  # `done` was said
        self.slot = 0  # of its deadline in the wheel

    def sent(self, at: int) -> None:
        """The request's bytes went to the socket."""
        raise NotImplementedError

    def done(self, ending: Reply | NotSent | Unknown) -> None:
        """It is over; said exactly once, never before `begin` has returned."""
        raise NotImplementedError
