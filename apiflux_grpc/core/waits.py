"""How long an upstream asks us to wait, in all the forms that are seen.

Rule: explicit waits come first, the largest of them; a limit's reset counts only if there is none, since it may be the
time until all is back (six minutes beside a Retry-After of a second). A wait is never shorter than told. An instant is
read by the clock of who wrote it. Zero, negative or past is no wait; nor is what can't be read, which is named. Nothing
here raises, and the work is bounded whatever is sent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LONGEST_WAIT: Final = 31 * 86_400 * SECOND  # as far off as the reset of a monthly quota
LONGEST_RESET: Final = 3600 * SECOND  # newer answers renew it
_LONGEST_VALUE: Final = 1024  # characters of one header
_LONGEST_ITEM: Final = 64
_EXPLICIT: Final = {
    "retry-after": ("Retry-After", SECOND),  # RFC 9110 section 10.2.3
    "retry-after-ms": ("retry-after-ms", MILLISECOND),
    "x-ms-retry-after-ms": ("x-ms-retry-after-ms", MILLISECOND),
}


class Wait(NamedTuple):
    """What an answer says of waiting: `length` in ns, more than 0; None: nothing that can be used.

    `source` is where it was told, and `unread` what can't be read, both in words.
    """

    length: int | None = None
    source: str = ""
    unread: str = ""


NO_WAIT: Final = Wait()


def clock_of(headers: Mapping[str, str], wall_now: datetime) -> datetime:
    """The time of day by the clock of who wrote this answer: its Date, else ours."""
    date = headers.get("date")
    return wall_now if date is None else _date(date) or wall_now


def is_told(headers: Mapping[str, str]) -> bool:
    """Whether the answer has one of the headers that tell an explicit wait."""
    return any(name in headers for name in _EXPLICIT)


def told_wait(
    headers: Mapping[str, str], wall_now: datetime, name: str = "", texts: Sequence[str] = (), secret: str = ""
) -> Wait:
    """The largest explicit wait: of the usual headers, and of the pool's own field `name`, at which `texts` stand.

    What is unread goes into the log: without `secret`, which an upstream may send back.
    """
    best, source, unread = 0, "", ""
    clock = clock_of(headers, wall_now)
    told: list[tuple[str, int, Sequence[str]]] = [
        (*_EXPLICIT[header], (headers[header],)) for header in _EXPLICIT if header in headers
    ]
    if name:
        told.append((name, SECOND, texts))
        if not texts:
            unread = f"{name} is missing"
    for where, unit, values in told:
        for value, text in ((whole, item) for whole in values for item in _items(whole)):
            wait = _explicit(text, clock, unit)
            if wait is None:
                shown = "***" if secret and secret in value else text[:_LONGEST_ITEM]
                unread = f"{where}: {shown}"
            elif wait > best:
                best, source = wait, where
    return Wait(_rounded(best), source, unread)


def reset_wait(resets: Iterable[int]) -> Wait:
    """How long until the last of these limits resets, of which nothing is left: their resets in ns from now."""
    return Wait(_rounded(max(resets, default=0)), "a reset")


def _rounded(wait: int) -> int | None:
    """Up to whole milliseconds, as timers are; None: no wait."""
    return -(-wait // MILLISECOND) * MILLISECOND or None


def _explicit(text: str, clock: datetime, unit: int) -> int | None:
    """As `wait_in`; what is negative is no wait, and seconds may have any number of digits."""
    if text[:1] == "-":
        return None if wait_in(text[1:], clock, unit) is None else 0
    if text.isascii() and text.isdigit():
        text = text.lstrip("0") or "0"
        if len(text) > 15:
            return LONGEST_WAIT
    return wait_in(text, clock, unit)


def _items(value: str) -> list[str]:
    """The items of a list: of dates too, which have a comma each."""
    if len(value) > _LONGEST_VALUE:
        return [value]
    items: list[str] = []
    for part in value.split(","):
        if items and items[-1].lstrip('"')[:3].lower() in _WEEKDAYS and items[-1].lstrip('"').isalpha():
            items[-1] += "," + part
        else:
            items.append(part.strip())
    return [item for item in items if item] or [value]


# -- one value -----------------------------------------------------------------------------------

_WEEKDAYS: Final = frozenset({"mon", "tue", "wed", "thu", "fri", "sat", "sun"})
DECIMAL: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,18}))?")
# A number from here on is an instant and not a length of time: 2001 in seconds, and in milliseconds, since 1970.
_EPOCH_SECONDS: Final = 10**9
_EPOCH_MILLISECONDS: Final = 10**12
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)
_SPANS: Final = {
    "d": 86_400 * SECOND,
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": MILLISECOND,
    "us": 1000,
    "\u00b5s": 1000,  # the micro sign, which Go writes
    "\u03bcs": 1000,  # the Greek letter
    "\u00c2\u00b5s": 1000,  # the micro sign in UTF-8, read as Latin-1
    "ns": 1,
}
_SPAN: Final = re.compile("([0-9]{1,12})(?:\\.([0-9]{1,18}))?(" + "|".join(sorted(_SPANS, key=len, reverse=True)) + ")")
_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,18}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def wait_in(text: str, clock: datetime, unit: int = SECOND) -> int | None:
    """One value as ns from `clock`, 0 to LONGEST_WAIT; None: unreadable.

    A number counts `unit`s (ns); a length of time may name its own, as Go writes it (`6m0s`, `120ms`, `1h2m3.5s`). An
    instant is an HTTP date, one of RFC 3339, or seconds or milliseconds since 1970: no header says which, so a number
    of seconds from 10^9 on is one. Each may be in quotes.
    """
    value = _read(text, unit)
    if value is None:
        return None
    is_instant, wait = value
    if is_instant:
        wait -= _since_1970(clock)
    return min(max(0, wait), LONGEST_WAIT)


def _read(text: str, unit: int) -> tuple[bool, int] | None:
    """As _value, of a text with whatever stands around it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    return None if len(text) > _LONGEST_ITEM else _value(text, unit)


@lru_cache(maxsize=256)  # of resets: those of answers of the same second are the same
def _value(text: str, unit: int) -> tuple[bool, int] | None:
    """(is it an instant, ns: since 1970 if it is); None: unreadable."""
    match = DECIMAL.fullmatch(text)
    if match is not None:
        whole = int(match[1])
        if unit == SECOND and whole >= _EPOCH_MILLISECONDS:
            return True, whole * MILLISECOND
        return unit == SECOND and whole >= _EPOCH_SECONDS, whole * unit + -(-_nanos(match[2]) * unit // SECOND)
    at = _instant(text) if text[4:5] == "-" else _date(text)
    if at is not None:
        return True, _since_1970(at)
    span = _duration(text)
    return None if span is None else (False, span)


def reset_in(text: str, clock: datetime) -> int | None:
    """When a limit resets, as ns from `clock`, 0 to LONGEST_RESET; None: unreadable. In the forms of `wait_in`."""
    wait = wait_in(text, clock)
    return None if wait is None else min(wait, LONGEST_RESET)


@lru_cache(maxsize=256)  # upstreams tell the same few again and again
def reset_span(text: str) -> int | None:
    """As reset_in of a length of time, which needs no clock; None: it is an instant, or unreadable."""
    value = _read(text, SECOND)
    return None if value is None or value[0] else min(value[1], LONGEST_RESET)


@lru_cache(maxsize=64)  # answers of the same second have the same Date
def _date(text: str) -> datetime | None:
    """An HTTP date in any of its forms, RFC 9110 section 5.6.7."""
    if not text[:3].isalpha() or len(text) > _LONGEST_ITEM:
        return None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _since_1970(at: datetime) -> int:
    return (at - _EPOCH) // _TICK * 1000


def _nanos(fraction: str | None) -> int:
    """The digits after the point, as 10^-9."""
    return int(fraction[:9].ljust(9, "0")) if fraction else 0


def _duration(text: str) -> int | None:
    """A length of time in the grammar of Go's time.ParseDuration, and days, without a sign."""
    total = position = 0
    while match := _SPAN.match(text, position):
        total += (int(match[1]) * SECOND + _nanos(match[2])) * _SPANS[match[3]] // SECOND
        position = match.end()
    return total if position and position == len(text) else None


def _instant(text: str) -> datetime | None:
    """A date-time of RFC 3339 section 5.6, to the microsecond."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    leap = second == 60  # allowed at the end of a month; Python has no such second
    try:
        zone = UTC
        if match[8]:
            offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
            zone = timezone(-offset if match[8] == "-" else offset)
        at = datetime(year, month, day, hour, minute, second - leap, _nanos(match[7]) // 1000, zone)
        return at + timedelta(seconds=1) if leap else at
    except (ValueError, OverflowError):
        return None
