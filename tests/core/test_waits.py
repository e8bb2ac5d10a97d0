"""How long a 429 asks us to wait."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Key, Limit
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.waits import LONGEST_BACK_OFF, LONGEST_RETRY_AFTER, block_for, retry_after

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def key_of(*pers: int) -> Key:
    return Key("key-0", "secret", tuple(Limit(10, per) for per in pers))


def refusal(header: str | None = None) -> Answer:
    return Answer(429, Headers.of({} if header is None else {"retry-after": header}), b"", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3 * SECOND),
        (" 3\t", 3 * SECOND),
        ("007", 7 * SECOND),
        ("0000000000000007", 7 * SECOND),
        ("0", 0),
        ("3600", LONGEST_RETRY_AFTER),
        ("3601", LONGEST_RETRY_AFTER),
        ("9" * 5000, LONGEST_RETRY_AFTER),
        ("Thu, 01 Jan 2026 00:00:07 GMT", 7 * SECOND),
        ("Thursday, 01-Jan-26 00:00:07 GMT", 7 * SECOND),
        ("Thu Jan  1 00:00:07 2026", 7 * SECOND),
        ("Thu, 01 Jan 2026 01:00:07 +0100", 7 * SECOND),
        ("Thu, 01 Jan 2026 00:00:07", 7 * SECOND),
        ("Wed, 31 Dec 2025 00:00:07 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after(text: str, expected: int) -> None:
    """Seconds or an HTTP date in any of its forms; the past is now, and the far future is capped."""
    assert retry_after(text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "0x10",
        "1 2",
        "²",
        "١",  # a digit to Python, and not in HTTP  # noqa: RUF001
        "nan",
        "Thu, 32 Jan 2026 00:00:07 GMT",
        "Thu, 01 Jan 2026 25:00:07 GMT",
        "Thu, 01 Jan 2026 00:00:07 +99999999999999999",
        "\x00",
        ",",
    ],
)
def test_what_cannot_be_read_is_ignored(text: str) -> None:
    """Junk is no Retry-After; it raises nothing."""
    assert retry_after(text, NOW) is None


date_like = st.from_regex(r"\A[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} [-+]?[A-Z0-9]{1,25}\Z")


@settings(deadline=None, print_blob=True)
@given(st.text() | date_like | st.text("0123456789:+-, GMTJan", max_size=60))
def test_no_header_can_break_it(text: str) -> None:
    """An upstream's header, whatever it is, gives a bounded wait or none."""
    wait = retry_after(text, NOW)
    assert wait is None or 0 <= wait <= LONGEST_RETRY_AFTER


@pytest.mark.parametrize("drawn", [1, 5, 500])
@pytest.mark.parametrize(("header", "wait"), [("0", 0), ("30", 30 * SECOND), ("99999", LONGEST_RETRY_AFTER)])
def test_a_key_waits_as_long_as_it_is_told(header: str, wait: int, drawn: int) -> None:
    """Retry-After is taken at its word, up to its cap, however many 429s came before and whatever the limits are."""
    assert block_for(refusal(header), key_of(SECOND), drawn, NOW) == wait


@pytest.mark.parametrize("header", [None, "junk", "-5"])
@pytest.mark.parametrize(
    ("pers", "waits"),
    [
        ((3600 * SECOND, SECOND), [1, 2, 4, 8, 16, 32, 60, 60]),
        ((10 * SECOND, SECOND), [1, 2, 4, 8, 10, 10, 10, 10]),
        ((SECOND // 10,), [1] * 8),
        ((), [1, 2, 4, 8, 16, 32, 60, 60]),
    ],
)
def test_without_being_told_a_key_backs_off_by_itself(
    header: str | None, pers: tuple[int, ...], waits: list[int]
) -> None:
    """One second, doubling up to the key's longest window, at most a minute."""
    key = key_of(*pers)
    assert [block_for(refusal(header), key, drawn, NOW) for drawn in range(1, 9)] == [wait * SECOND for wait in waits]
    assert block_for(refusal(header), key, 10_000, NOW) <= LONGEST_BACK_OFF
