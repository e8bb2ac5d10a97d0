"""When a limit resets, in every form that headers tell it in."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from apiflux_grpc.core.waits import LONGEST_RESET, reset_in
from tests.core.reading import HOUR, MINUTE, NOW


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # lengths of time
        ("6m0s", 6 * MINUTE),
        ("1s", SECOND),
        ("120ms", 120 * MILLISECOND),
        ("1m30.951s", MINUTE + 30_951 * MILLISECOND),
        ("0h2m3.5s", 2 * MINUTE + 3_500 * MILLISECOND),
        ("1h2m3.5s", LONGEST_RESET),
        ("59m59.999999999s", HOUR - 1),
        ("1d", LONGEST_RESET),
        ("0.01d", 864 * SECOND),
        ("0.25h", 15 * MINUTE),
        ("5us", 5 * MICROSECOND),
        ("5\u00b5s", 5 * MICROSECOND),
        ("5\u03bcs", 5 * MICROSECOND),
        ("5\u00c2\u00b5s", 5 * MICROSECOND),
        ("7ns", 7),
        ("0.5ns", 0),
        ("0s", 0),
        (" 2m \t", 2 * MINUTE),
        # seconds
        ("30", 30 * SECOND),
        ("1.5", 1_500 * MILLISECOND),
        ("0", 0),
        ("0.000000001", 1),
        ("0.0000000019", 1),
        ("3599.999999999", HOUR - 1),
        ("3601", LONGEST_RESET),
        ("999999999", LONGEST_RESET),
        # instants: NOW is 1769515140
        ("1769515200", MINUTE),
        ("1769515200.5", MINUTE + SECOND // 2),
        ("1769515140", 0),
        ("1000000000", 0),
        ("1769515139.999", 0),
        ("1769599999", LONGEST_RESET),
        ("1769515200000", MINUTE),
        ("1769515140001", MILLISECOND),
        ("1000000000000", 0),
        ("999999999999999", LONGEST_RESET),
        # RFC 3339
        ("2026-01-27T12:00:00Z", MINUTE),
        ("2026-01-27t12:00:00z", MINUTE),
        ("2026-01-27 12:00:00Z", MINUTE),
        ("2026-01-27T12:00:00.25Z", MINUTE + SECOND // 4),
        ("2026-01-27T12:00:00.123456789Z", MINUTE + 123_456 * MICROSECOND),
        ("2026-01-27T13:00:00+01:00", MINUTE),
        ("2026-01-27T06:30:00-05:30", MINUTE),
        ("2026-01-27T11:59:60Z", MINUTE),
        ("2026-01-27T11:58:00Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        ("9999-12-31T23:59:59.999999-23:59", LONGEST_RESET),
    ],
)
def test_reset(text: str, expected: int) -> None:
    """A length of time or an instant; the past is now, and nothing lasts longer than LONGEST_RESET."""
    assert reset_in(text, NOW) == expected
    assert reset_in(text, NOW.astimezone(timezone(timedelta(hours=9)))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "-1",
        "-1s",
        "+1",
        "1.",
        ".5",
        "1e3",
        "1 s",
        "1s ago",
        "s",
        "1h2",
        "1x",
        "1S",
        "1_0",
        "١",  # a digit to Python, and not in HTTP  # noqa: RUF001
        "nan",
        "inf",
        "9" * 16,
        "9" * 13 + "s",
        "1s" * 33,
        "1,5",
        "2026-01-27",
        "2026-01-27T12:00:00",
        "2026-01-27T12:00Z",
        "2026-13-27T12:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-01-27T24:00:00Z",
        "2026-01-27T12:00:61Z",
        "2026-01-27T12:00:00+24:00",
        "2026-01-27T12:00:00+0100",
        "0000-01-27T12:00:00Z",
        "9999-12-31T23:59:60Z",
        "20260127T120000Z",
        "2026-W05-2T12:00:00Z",
        "\x00",
    ],
)
def test_reset_that_cannot_be_read(text: str) -> None:
    """What is no length of time and no instant is None, and never raises."""
    assert reset_in(text, NOW) is None
