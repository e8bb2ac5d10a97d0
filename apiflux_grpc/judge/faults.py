"""The faults that the judge injects: which arrival suffers which, and what it then puts on the wire.

The rule: a fault befalls only an arrival that the ledger accepted, so one that is over a limit or has an unknown key
gets its honest 429 or 401. What decides, the first of these that applies:

1. X-Judge-Fault of the call: a list of faults, one per accepted arrival of the call, the last of them for all further
   ones. `500,500,ok` fails twice; `hang` hangs every time; `ok` is no fault, whatever else is set. A call is what
   X-Call-Id names; without it, calls of one method and target are one call. What is no list gets a 400 that says so.
2. A rejected key (401): on command, by a span of time since the judge's start, or for its first calls.
3. Chance. The draw depends on seed, call and arrival alone, so the same calls meet the same faults in any order.

A fault is a kind with parameters, `KIND;NAME=VALUE;...`:

| kind | what happens once the request was read |
|---|---|
| 400 to 599 | that answer; `retry-after` in seconds, or `retry-date`, seconds from now, as an HTTP date |
| redirect | 302 to `to`, which contains neither comma nor semicolon |
| hang | no answer, the connection stays |
| reset, reset-in-head | RST, at once or after a part of the head |
| close | FIN without an answer |
| garbage | bytes that are no HTTP, then FIN |
| cut, cut-reset | half of the `size` bytes that Content-Length promised, then FIN or RST |
| cut-chunked | a chunk of `size` bytes and no last chunk, then FIN |
| slow | a whole answer of `size` bytes, one `every` so often |
| huge | a whole answer of `size` bytes, as fast as it is read |

An answer to HEAD has no body: all cuts, `slow` and `huge` are then ordinary answers.

It deliberately doesn't know connections and owns no state; what a fault does to a connection is in judge.py.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from functools import lru_cache
from hashlib import blake2b
from http import HTTPStatus
from re import compile as regex
from typing import Any, Final, Literal, NamedTuple

from apiflux_grpc.judge.ledger import NS, parse_duration

KIB: Final = 1 << 10
SIZES: Final = {"": 1, "KiB": KIB, "MiB": KIB**2, "GiB": KIB**3}
SIZE: Final = regex(r"([0-9]{1,12})(|KiB|MiB|GiB)")
URL: Final = regex(r"https?://[!-~]+")
ELSEWHERE: Final = "http://elsewhere.invalid/"
GARBAGE: Final = b"\x16\x03\x01\x02\x00\x01\x00\xff no HTTP\r\n\r\n"
PIECE: Final = b"x" * (64 * KIB)
RST_AFTER: Final = 0.01  # seconds for what was written to leave: a reset takes back what hasn't
STATUSES: Final = frozenset(str(status.value) for status in HTTPStatus if status >= 400)


class Fault(NamedTuple):
    """What befalls an arrival; the report counts it as `kind`. Sizes are in bytes."""

    kind: str
    retry_after: int | None = None  # seconds
    as_date: bool = False  # Retry-After as an HTTP date
    to: str = ELSEWHERE
    size: int = 0
    every_ns: int = 0


class Chance(NamedTuple):
    """A fault, and the share of arrivals that it befalls."""

    fault: Fault
    probability: float


class Rejection(NamedTuple):
    """A key is answered 401: its `first` accepted arrivals, or those from `from_ns` to `until_ns` after the start."""

    label: str
    first: int = 0
    from_ns: int = 0
    until_ns: int = 0


class Course(NamedTuple):
    """The course of an answer: `begin` is written at once, then each of `rest`, then the connection comes to its end.

    `every` is in seconds, before each of `rest` and before the end. After the end `keep` it can be used again.
    """

    begin: bytes = b""
    rest: Iterator[bytes] = iter(())
    every: float = 0.0
    end: Literal["keep", "hang", "close", "reset"] = "keep"


REJECTED: Final = Fault("401")
DEFAULTS: Final = {
    **{kind: Fault(kind) for kind in ("ok", "redirect", "hang", "reset", "reset-in-head", "close", "garbage")},
    **{kind: Fault(kind, size=1000) for kind in ("cut", "cut-reset", "cut-chunked")},
    "slow": Fault("slow", size=100, every_ns=NS // 10),
    "huge": Fault("huge", size=64 * KIB**2),
}


# --- Faults from text -------------------------------------------------------------------------------------------------


def parse_fault(text: str) -> Fault:
    """`500`, `503;retry-after=2`, `huge;size=10MiB`, `ok`. Raises ValueError for any other form."""
    kind, *parameters = (part.strip() for part in text.split(";"))
    fault = Fault(kind) if kind in STATUSES else DEFAULTS.get(kind)
    if fault is None:
        kinds = ", ".join(DEFAULTS)
        raise ValueError(f"{text!r} is no fault: expected a status from 400 to 599, or one of {kinds}")
    taken = _parameters_of(fault)
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name not in taken:
            raise ValueError(
                f"{text!r} is no fault: expected {kind} {'with ' + ' or '.join(taken) if taken else 'alone'}"
            )
        try:
            fault = fault._replace(**_read(name, value))
        except ValueError:
            raise ValueError(f"{text!r} is no fault: expected {name}={FORMS[name]}") from None
    return fault


FORMS: Final = {
    "retry-after": "SECONDS",
    "retry-date": "SECONDS from now, like 5 or -5",
    "to": "URL, without comma and semicolon",
    "size": "BYTES, like 5000 or 64MiB",
    "every": "DURATION, like 20ms",
}


def _parameters_of(fault: Fault) -> tuple[str, ...]:
    if fault.kind in STATUSES:
        return "retry-after", "retry-date"
    if fault.kind == "redirect":
        return ("to",)
    return tuple(name for name, given in (("size", fault.size), ("every", fault.every_ns)) if given)


def _read(name: str, value: str) -> dict[str, Any]:
    """The fields of a Fault that a parameter sets. Raises ValueError."""
    match name:
        case "retry-after":
            return {"retry_after": _whole(value), "as_date": False}
        case "retry-date":
            seconds = -_whole(value[1:]) if value.startswith("-") else _whole(value)
            return {"retry_after": seconds, "as_date": True}
        case "every":
            return {"every_ns": parse_duration(value)}
        case "size":
            match = SIZE.fullmatch(value)
            size = int(match[1]) * SIZES[match[2]] if match else 0
            if size < 1:
                raise ValueError
            return {"size": size}
        case _:
            if not URL.fullmatch(value):
                raise ValueError
            return {"to": value}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError
    return int(text)


@lru_cache(maxsize=1024)
def parse_script(text: str) -> tuple[Fault, ...]:
    """Faults with commas between, as in X-Judge-Fault: `500,503;retry-after=1,ok`. Raises ValueError."""
    return tuple(parse_fault(part.strip()) for part in text.split(","))


def parse_chances(texts: Iterable[str]) -> tuple[Chance, ...]:
    """Texts like `500=0.01` or `slow;size=9=0.5`. Raises ValueError, which names the position."""
    chances = []
    for at, text in enumerate(texts, 1):
        fault, _, share = text.rpartition("=")
        try:
            probability = float(share)
        except ValueError:
            probability = 0.0
        if not fault or not 0.0 < probability <= 1.0:
            raise ValueError(f"fault {at}: {text!r}: expected FAULT=PROBABILITY, like 500=0.01, above 0, at most 1")
        try:
            chances.append(Chance(parse_fault(fault), probability))
        except ValueError as error:
            raise ValueError(f"fault {at}: {error}") from None
    if (total := math.fsum(chance.probability for chance in chances)) > 1.0:
        raise ValueError(f"fault {len(chances)}: expected probabilities of at most 1 together, not {total:g}")
    return tuple(chances)


def parse_rejections(texts: Iterable[str], labels: Iterable[str]) -> tuple[Rejection, ...]:
    """Texts like `key-1=2s..5s` (since the start) or `key-1=3` (its first calls), for keys with one of `labels`.

    Raises ValueError, which names the position.
    """
    labels = tuple(labels)
    rejections = []
    for at, text in enumerate(texts, 1):
        label, _, when = text.rpartition("=")
        if label not in labels:
            raise ValueError(f"rejection {at}: {text!r}: expected LABEL=..., with one of {', '.join(labels)}")
        try:
            rejections.append(_rejection(label, when.strip()))
        except ValueError:
            forms = "LABEL=FROM..UNTIL, like key-1=2s..5s, or LABEL=CALLS, like key-1=3"
            raise ValueError(f"rejection {at}: {text!r}: expected {forms}") from None
    return tuple(rejections)


def _rejection(label: str, when: str) -> Rejection:
    begin, dots, end = when.partition("..")
    if not dots:
        rejection = Rejection(label, first=_whole(when))
    else:
        from_ns = 0 if begin.strip() == "0" else parse_duration(begin)
        rejection = Rejection(label, from_ns=from_ns, until_ns=parse_duration(end))
    if not rejection.first and rejection.from_ns >= rejection.until_ns:
        raise ValueError
    return rejection


# --- Which arrival ----------------------------------------------------------------------------------------------------


class Faults:
    """Who suffers what. Pure: the same question has the same answer."""

    def __init__(self, chances: Iterable[Chance] = (), rejections: Iterable[Rejection] = (), seed: int = 0) -> None:
        self._chances = tuple(chances)
        self._rejections: dict[str, list[Rejection]] = defaultdict(list)
        for rejection in rejections:
            self._rejections[rejection.label].append(rejection)
        self._seed = (seed % 2**64).to_bytes(8, "big")
        self.any = bool(self._chances or self._rejections)

    def rejects(self, label: str, nth: int, since_ns: int) -> bool:
        """Whether the nth accepted arrival of a key, `since_ns` after the start, gets a 401."""
        return any(
            nth <= each.first or each.from_ns <= since_ns < each.until_ns for each in self._rejections.get(label, ())
        )

    def drawn(self, call_id: str, nth: int) -> Fault | None:
        """The fault that chance has for the nth accepted arrival of a call."""
        if not self._chances:
            return None
        name = f"{nth} {call_id}".encode(errors="backslashreplace")
        draw = int.from_bytes(blake2b(name, digest_size=8, key=self._seed).digest(), "big") / 2**64
        for fault, probability in self._chances:
            if draw < probability:
                return fault
            draw -= probability
        return None


def scripted(script: str, nth: int) -> Fault:
    """The fault that X-Judge-Fault has for the nth accepted arrival of a call. Raises ValueError."""
    faults = parse_script(script)
    return faults[min(nth, len(faults)) - 1]


# --- On the wire ------------------------------------------------------------------------------------------------------


def head(status: int, *fields: str) -> str:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *fields, "", ""])


def course_of(fault: Fault, fields: Iterable[str], *, head_only: bool, wall: Callable[[], float]) -> Course:
    """What a fault puts on the wire. `fields` go into the head of an answer; `wall` gives seconds since 1970."""
    if fault.kind in STATUSES or fault.kind == "redirect":
        return Course(_answer(fault, fields, head_only, wall))
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
            return Course(begin, _pieces(fault.size, 1), fault.every_ns / NS)
        case _:
            return Course(begin, _pieces(fault.size))


def _answer(fault: Fault, fields: Iterable[str], head_only: bool, wall: Callable[[], float]) -> bytes:
    status = 302 if fault.kind == "redirect" else int(fault.kind)
    payload = json.dumps({"ok": False, "error": f"{HTTPStatus(status).phrase}, injected"})
    own = ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    if status == 302:
        own.append(f"Location: {fault.to}")
    if fault.retry_after is not None:
        # A date has whole seconds: rounded up, so that it isn't sooner than was asked for.
        date = formatdate(math.ceil(wall() + fault.retry_after), usegmt=True) if fault.as_date else fault.retry_after
        own.append(f"Retry-After: {date}")
    return (head(status, *own, *fields) + ("" if head_only else payload)).encode()


def _pieces(size: int, at_a_time: int = len(PIECE)) -> Iterator[bytes]:
    for done in range(0, size, at_a_time):
        yield PIECE[: min(at_a_time, size - done)]
