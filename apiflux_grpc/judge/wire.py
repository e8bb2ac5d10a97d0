"""What the judge puts on the wire: a plain answer, or the course of a fault.

The rule: bytes and when they are due, nothing else. What they do to a connection is in answers.py.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Final, Literal, NamedTuple

from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.apis.api import Said, phrase
from apiflux_grpc.judge.faults import KIB, STATUSES, Fault

GARBAGE: Final = b"\x16\x03\x01\x02\x00\x01\x00\xff no HTTP\r\n\r\n"
PIECE: Final = b"x" * (64 * KIB)
as_json: Final = json.JSONEncoder(separators=(",", ":")).encode  # dumps would make an encoder for each answer
RST_AFTER: Final = 0.01  # seconds for what was written to leave: a reset takes back what hasn't


class Course(NamedTuple):
    """The course of an answer: `begin` is written at once, then each of `rest`, then the connection comes to its end.

    `every` is in seconds, before each of `rest` and before the end. After the end `keep` it can be used again.
    """

    begin: bytes = b""
    rest: Iterator[bytes] = iter(())
    every: float = 0.0
    end: Literal["keep", "hang", "close", "reset"] = "keep"


def head(status: int, *fields: str) -> str:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status} {phrase(status)}", *fields, "", ""])


def written(said: Said, fields: Iterable[str] = (), *, head_only: bool = False) -> bytes:
    """An ordinary answer, with these headers behind its own."""
    text = said.body if isinstance(said.body, str) else as_json(said.body)
    payload = text.encode()
    own = (f"Content-Type: {said.content_type}", f"Content-Length: {len(payload)}")
    begin = head(said.status, *own, *said.fields, *fields).encode()
    return begin if head_only else begin + payload


def ok(cost: int | None, fields: Iterable[str], *, head_only: bool = False) -> bytes:
    """The answer to a call that was accepted; with `cost`, as OpenAI tells it and in X-Cost. It is made often."""
    payload = '{"ok":true}' if cost is None else f'{{"ok":true,"usage":{{"total_tokens":{cost}}}}}'
    said = "".join(f"{field}\r\n" for field in fields)
    if cost is not None:
        said = f"X-Cost: {cost}\r\n{said}"
    begin = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n{said}\r\n"
    return (begin if head_only else begin + payload).encode()


CLOSE: Final = ("Connection: close",)
OK: Final = ok(None, ())


def course_of(fault: Fault, said: Said, fields: Iterable[str], *, head_only: bool, wall: Callable[[], float]) -> Course:
    """What a fault puts on the wire. `said` is what the API says where the fault is a status; `wall` gives seconds
    since 1970."""
    if fault.kind in STATUSES or fault.kind == "redirect":
        return Course(written(said, (*_fault_fields(fault, wall), *fields), head_only=head_only))
    match fault.kind:
        case "hang":
            return Course(end="hang")
        case "reset":
            return Course(end="reset")
        case "reset-in-head":
            return Course(b"HTTP/1.1 200 OK\r\nContent-Ty", every=RST_AFTER, end="reset")
        case "close":
            return Course(end="close")
        case "garbage":
            return Course(GARBAGE, end="close")
    kind = "Content-Type: application/octet-stream"
    chunked = fault.kind == "cut-chunked"
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {fault.size}"
    begin = head(200, kind, length, *fields).encode()
    if head_only:
        return Course(begin)
    match fault.kind:
        case "cut-chunked":
            return Course(begin, iter([b"%x\r\n" % fault.size, *_pieces(fault.size), b"\r\n"]), end="close")
        case "cut":
            return Course(begin, _pieces(fault.size // 2), end="close")
        case "cut-reset":
            return Course(begin, _pieces(fault.size // 2), RST_AFTER, "reset")
        case "slow":
            return Course(begin, _pieces(fault.size, 1), fault.every_ns / SECOND)
        case _:
            return Course(begin, _pieces(fault.size))


def _fault_fields(fault: Fault, wall: Callable[[], float]) -> Iterator[str]:
    if fault.kind == "redirect":
        yield f"Location: {fault.to}"
    if fault.retry_after is not None:
        # A date has whole seconds: rounded up, so that it isn't sooner than was asked for.
        date = formatdate(math.ceil(wall() + fault.retry_after), usegmt=True) if fault.as_date else fault.retry_after
        yield f"Retry-After: {date}"


def _pieces(size: int, at_a_time: int = len(PIECE)) -> Iterator[bytes]:
    for done in range(0, size, at_a_time):
        yield PIECE[: min(at_a_time, size - done)]
