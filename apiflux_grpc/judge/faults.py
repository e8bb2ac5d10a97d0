"""The faults that the judge can inject, and how they are written on the command line and in X-Judge-Fault.

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

Which arrival gets a fault is decided in chance.py, what the fault puts on the wire in wire.py.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from re import compile as regex
from typing import Any, Final, NamedTuple

from apiflux_grpc.core.units import SECOND, parse_duration
from apiflux_grpc.judge.apis.api import OVERLOADED

KIB: Final = 1 << 10
SIZES: Final = {"": 1, "KiB": KIB, "MiB": KIB**2, "GiB": KIB**3}
SIZE: Final = regex(r"([0-9]{1,12})(|KiB|MiB|GiB)")
URL: Final = regex(r"https?://[!-~]+")
ELSEWHERE: Final = "http://elsewhere.invalid/"
STATUSES: Final = frozenset(str(int(status)) for status in (*HTTPStatus, OVERLOADED) if status >= 400)


class Fault(NamedTuple):
    """A fault of one arrival; the report counts it as `kind`. Sizes are in bytes."""

    kind: str
    retry_after: int | None = None  # seconds
    as_date: bool = False  # Retry-After as an HTTP date
    to: str = ELSEWHERE
    size: int = 0
    every_ns: int = 0


class Chance(NamedTuple):
    """A fault, and the share of arrivals that get it."""

    fault: Fault
    probability: float


class Rejection(NamedTuple):
    """A key gets `fault`: its `first` accepted arrivals, or those from `from_ns` to `until_ns` after the start."""

    label: str
    first: int = 0
    from_ns: int = 0
    until_ns: int = 0
    fault: Fault = Fault("401")


DEFAULTS: Final = {
    **{kind: Fault(kind) for kind in ("ok", "redirect", "hang", "reset", "reset-in-head", "close", "garbage")},
    **{kind: Fault(kind, size=1000) for kind in ("cut", "cut-reset", "cut-chunked")},
    "slow": Fault("slow", size=100, every_ns=SECOND // 10),
    "huge": Fault("huge", size=64 * KIB**2),
}
FORMS: Final = {
    "retry-after": "SECONDS",
    "retry-date": "SECONDS from now, such as 5 or -5",
    "to": "URL, without a comma or semicolon",
    "size": "BYTES, such as 5000 or 64MiB",
    "every": "DURATION, such as 20ms",
}


def parse_fault(text: str) -> Fault:
    """`500`, `503;retry-after=2`, `huge;size=10MiB`, `ok`. Raises ValueError for any other form."""
    kind, *parameters = (part.strip() for part in text.split(";"))
    fault = Fault(kind) if kind in STATUSES else DEFAULTS.get(kind)
    if fault is None:
        kinds = ", ".join(DEFAULTS)
        raise ValueError(f"{text!r} is not a fault; use a status from 400 to 599, or one of {kinds}")
    taken = _parameters_of(fault)
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name not in taken:
            raise ValueError(f"{text!r}: {kind} takes {' or '.join(taken) or 'no parameter'}, not {name!r}")
        try:
            fault = fault._replace(**_read(name, value))
        except ValueError:
            raise ValueError(f"{text!r}: must be {name}={FORMS[name]}") from None
    return fault


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
            raise ValueError(f"fault {at}: {text!r} must be FAULT=PROBABILITY, such as 500=0.01; above 0, at most 1")
        try:
            chances.append(Chance(parse_fault(fault), probability))
        except ValueError as error:
            raise ValueError(f"fault {at}: {error}") from None
    if (total := math.fsum(chance.probability for chance in chances)) > 1.0:
        raise ValueError(f"fault {len(chances)}: the probabilities add up to {total:g}; at most 1 is possible")
    return tuple(chances)


def parse_rejections(texts: Iterable[str], labels: Iterable[str]) -> tuple[Rejection, ...]:
    """Texts like `key-1=2s..5s` (since the start) or `key-1=3` (its first calls), for keys with one of `labels`.

    What follows a semicolon is the fault instead of a 401, such as `key-1=0..6s;429;retry-after=2`. Raises ValueError,
    which names the position.
    """
    labels = tuple(labels)
    rejections = []
    for at, text in enumerate(texts, 1):
        label = max((label for label in labels if text.startswith(f"{label}=")), key=len, default=None)
        if label is None:
            raise ValueError(f"rejection {at}: {text!r} must be LABEL=..., with one of {', '.join(labels)}")
        when, _, fault = text[len(label) + 1 :].partition(";")
        try:
            rejection = _rejection(label, when.strip())
        except ValueError:
            forms = "LABEL=FROM..UNTIL, such as key-1=2s..5s, or LABEL=CALLS, such as key-1=3"
            raise ValueError(f"rejection {at}: {text!r} must be {forms}") from None
        try:
            rejections.append(rejection._replace(fault=parse_fault(fault)) if fault else rejection)
        except ValueError as error:
            raise ValueError(f"rejection {at}: {error}") from None
    return tuple(rejections)


def _rejection(label: str, when: str) -> Rejection:
    begin, dots, end = when.partition("..")
    if not dots:
        rejection = Rejection(label, first=_whole(when))
    else:
        from_ns = 0 if begin.strip() == "0" else parse_duration(begin.strip())
        rejection = Rejection(label, from_ns=from_ns, until_ns=parse_duration(end.strip()))
    if not rejection.first and rejection.from_ns >= rejection.until_ns:
        raise ValueError
    return rejection
