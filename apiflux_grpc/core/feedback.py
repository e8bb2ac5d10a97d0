"""What an answer says of its key.

Rule: a 429 concerns the key that drew it and no other; Retry-After means something on 429 only and is capped; what
can't be read is ignored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Answer, Key

LONGEST_RETRY_AFTER: Final = 3600 * SECOND
LONGEST_BACK_OFF: Final = 60 * SECOND


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
