"""A row of the hostile table: what one answer makes of its call, and whether its connection may be used again.

Rule: a row is right if RFC 9112 says so or leaves it open; where it leaves it open, both readings are named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from apiflux_grpc.core.outcome import Answer, Outcome, Reason, Unknown
from tests.adapters.sender.script import Step

BODY_CAP = 100_000
HEAD_CAP = 32_768
S = b"HTTP/1.1 200 OK\r\n"
OK = S + b"Content-Length: 2\r\n\r\nok"
STRAY = b"HTTP/1.1 418 Stray\r\nX-Stray: 1\r\nContent-Length: 5\r\n\r\nstray"
CHUNKED = S + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
REST = b"\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Want:
    """The outcomes that are right: an Answer with one of `faults`, `status` and `body` (None: any), Unknown for one of
    `reasons`.
    """

    status: int | None = None
    body: bytes | None = None
    faults: tuple[Reason | None, ...] = ()
    reasons: tuple[Reason, ...] = ()
    truncated: bool = False

    def fits(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Unknown):
            return outcome.reason in self.reasons
        return (
            isinstance(outcome, Answer)
            and outcome.fault in self.faults
            and outcome.truncated == self.truncated
            and self.status in {None, outcome.status}
            and self.body in {None, outcome.body}
            and "x-stray" not in outcome.headers
        )

    def __str__(self) -> str:
        answer = f"Answer {self.status} {self.body and self.body[:40]!r} {self.faults}" if self.faults else ""
        unknown = f"Unknown {self.reasons}" if self.reasons else ""
        return f"<{' or '.join(filter(None, (answer, unknown)))}>"


def whole(body: bytes | None = b"ok", status: int = 200) -> Want:
    """An answer without a fault."""
    return Want(status, body, (None,))


def cut(body: bytes | None = None, status: int = 200) -> Want:
    """An answer whose body is not whole."""
    return Want(status, body, (Reason.BODY_CUT,))


UNKNOWN = (Reason.UNKNOWN,)
LOST = Want(reasons=UNKNOWN)  # no valid head: may have been executed
REFUSED = Want(faults=(Reason.BODY_CUT,), reasons=UNKNOWN)  # the head may count as valid, the body can't
EITHER = Want(200, b"ok", (None,), UNKNOWN)  # RFC 9112 leaves it open; both are safe
WHOLE_OR_CUT = Want(200, None, (None, Reason.BODY_CUT))  # this too
LATE = Want(reasons=(Reason.TIMEOUT,))


@dataclass(frozen=True)
class Row:
    """`reuse`: may the connection be used again? None: either is right. `control`: aiohttp is held to it too. `late`:
    its time is up when the client has taken in what was sent.
    """

    name: str
    steps: tuple[Step, ...]
    want: Want
    reuse: bool | None
    method: str = "GET"
    body: bytes = b""
    early: bool = False
    control: bool = True
    late: bool = False


Sections = dict[str, list[Row]]


class AddRow(Protocol):
    """Adds a row to a section: `answer` is sent first, then what `then` says."""

    def __call__(
        self,
        name: str,
        answer: bytes,
        want: Want,
        *then: Step,
        reuse: bool | None = False,
        method: str = "GET",
        body: bytes = b"",
        early: bool = False,
        control: bool = True,
        late: bool = False,
    ) -> None: ...


def section(sections: Sections, name: str) -> AddRow:
    """Begins a section."""
    rows = sections[name] = []

    def add(
        name: str,
        answer: bytes,
        want: Want,
        *then: Step,
        reuse: bool | None = False,
        method: str = "GET",
        body: bytes = b"",
        early: bool = False,
        control: bool = True,
        late: bool = False,
    ) -> None:
        rows.append(Row(name, (answer, *then), want, reuse, method, body, early, control, late))

    return add
