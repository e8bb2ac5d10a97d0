"""How long an upstream asks us to wait, in all the forms that are seen.

Rule: what can't be read is None and never raises; what is told is capped, since a wrong clock upstream must not idle a
key for ever; the work is bounded whatever is sent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Key
    from apiflux_grpc.core.outcome import Answer

LONGEST_RETRY_AFTER: Final = 3600 * SECOND
LONGEST_BACK_OFF: Final = 60 * SECOND
LONGEST_RESET: Final = 3600 * SECOND  # newer answers renew it


def retry_after(value: str, wall_now: datetime) -> int | None:
    """A Retry-After header (seconds or an HTTP date, RFC 9110 section 10.2.3) as ns from now; None: unreadable."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0")[:12] or "0"  # int() of endless digits takes endless time
        return min(int(digits) * SECOND, LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    seconds = (at - wall_now).total_seconds()
    return min(max(0, int(seconds * SECOND)), LONGEST_RETRY_AFTER)


def block_for(answer: Answer, key: Key, drawn: int, wall_now: datetime) -> int:
    """How long (ns) the key of a 429 waits; `drawn` counts its 429s in a row, this one included.

    Without a Retry-After: one second, doubling up to the key's longest window, at most a minute.
    """
    header = answer.headers.get("retry-after")
    told = None if header is None else retry_after(header, wall_now)
    if told is not None:
        return told
    longest = max((limit.per for limit in key.limits), default=LONGEST_BACK_OFF)
    return min(SECOND << min(drawn - 1, 40), max(SECOND, longest), LONGEST_BACK_OFF)


# -- when a limit resets -------------------------------------------------------------------------

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


def reset_in(text: str, wall_now: datetime) -> int | None:
    """When a limit resets, as ns from now, 0 to LONGEST_RESET; None: unreadable.

    A length of time as Go writes it (`6m0s`, `120ms`, `1h2m3.5s`) or in seconds, or an instant as seconds or
    milliseconds since 1970 or of RFC 3339. No header says which: a number from 10^9 on is an instant.
    """
    text = text.strip()
    if len(text) > 64:
        return None
    match = DECIMAL.fullmatch(text)
    if match is not None:
        whole = int(match[1])
        if whole >= _EPOCH_MILLISECONDS:
            wait = whole * MILLISECOND - _since_1970(wall_now)
        else:
            wait = whole * SECOND + _nanos(match[2])
            if whole >= _EPOCH_SECONDS:
                wait -= _since_1970(wall_now)
    elif text[4:5] == "-":
        at = _instant(text)
        if at is None:
            return None
        wait = (at - wall_now) // _TICK * 1000
    else:
        span = _duration(text)
        if span is None:
            return None
        wait = span
    return min(max(0, wait), LONGEST_RESET)


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
