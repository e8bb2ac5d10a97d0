"""How long an upstream asks us to wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.core.waits import LONGEST_WAIT, Wait, is_told, reset_wait, told_wait

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE: Final = 60 * SECOND


def waited(text: str, name: str = "retry-after") -> Wait:
    return told_wait(Headers.of({name: text}), NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3 * SECOND),
        (" 3\t", 3 * SECOND),
        ("007", 7 * SECOND),
        ("0000000000000007", 7 * SECOND),
        ("3601", 3601 * SECOND),
        ("9" * 9, LONGEST_WAIT),
        ("9" * 900, LONGEST_WAIT),
        # decimals and units
        ("7.99", 7_990 * MILLISECOND),
        ("7.9901", 7_991 * MILLISECOND),
        ("0.0000001", MILLISECOND),
        ("60s", MINUTE),
        ("1m30s", 90 * SECOND),
        ("500ms", 500 * MILLISECOND),
        ("1.5us", MILLISECOND),
        # quoted, and lists
        ('"30"', 30 * SECOND),
        ('" 1m "', MINUTE),
        ("8, 8", 8 * SECOND),
        ("8, 9 ,7", 9 * SECOND),
        ("8,,", 8 * SECOND),
        ("8, soon", 8 * SECOND),
        ("0, 8", 8 * SECOND),
        ("Thu, 01 Jan 2026 00:00:07 GMT, Thu, 01 Jan 2026 00:00:09 GMT, 8", 9 * SECOND),
        # instants
        ("Thu, 01 Jan 2026 00:00:07 GMT", 7 * SECOND),
        ("Thursday, 01-Jan-26 00:00:07 GMT", 7 * SECOND),
        ("Thu Jan  1 00:00:07 2026", 7 * SECOND),
        ("Thu, 01 Jan 2026 01:00:07 +0100", 7 * SECOND),
        ("Thu, 01 Jan 2026 00:00:07", 7 * SECOND),
        ('"Thu, 01 Jan 2026 00:00:07 GMT"', 7 * SECOND),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        ("2026-01-01T00:00:07Z", 7 * SECOND),
        ("2026-01-01T01:00:07.5+01:00", 7_500 * MILLISECOND),
        (f"{int(NOW.timestamp()) + 7}", 7 * SECOND),
        (f"{int(NOW.timestamp()) + 7}.25", 7_250 * MILLISECOND),
    ],
)
def test_every_form_is_read_and_rounded_up(text: str, expected: int) -> None:
    """Seconds with or without decimals or a unit, quoted, a list, and instants in four forms."""
    assert waited(text).length == expected
    assert waited(text).source == "Retry-After"


@pytest.mark.parametrize(
    "text",
    ["0", "0.0", "-1", "-5", "-1.5s", "0s", "Wed, 31 Dec 2025 00:00:07 GMT", "2025-12-31T00:00:00Z", "1000000000"],
)
def test_zero_negative_or_past_is_no_wait(text: str) -> None:
    """It can be read, and says nothing that can be used."""
    assert waited(text) == Wait()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "+1",
        "1e3",
        "0x10",
        "1 2",
        "²",
        "١",  # a digit to Python, and not in HTTP  # noqa: RUF001
        "nan",
        "inf",
        "1h2",
        "Thu, 32 Jan 2026 00:00:07 GMT",
        "Thu, 01 Jan 2026 25:00:07 GMT",
        "Thu, 01 Jan 2026 00:00:07 +99999999999999999",
        "\x00",
        ",",
        "Thu,",
        "8," * 600,
    ],
)
def test_what_cannot_be_read_is_named_and_no_wait(text: str) -> None:
    """Junk is no wait; it raises nothing, and is told with the header's name."""
    wait = waited(text)
    assert (wait.length, wait.source) == (None, "")
    assert wait.unread.startswith("Retry-After: ")
    assert len(wait.unread) < 100


@pytest.mark.parametrize("text", ["s3cret,key", "in 5 s, s3cret,key", "x" * 60 + "s3cret,key"])
def test_no_secret_is_named(text: str) -> None:
    """What can't be read goes into the log, which has no key in it, be it whole, split as a list or cut."""
    wait = told_wait({"retry-after": text}, NOW, "error.wait", [text], secret="s3cret,key")
    assert wait.unread == "error.wait: ***"
    assert told_wait({"retry-after": text}, NOW, secret="s3cret,key").unread == "Retry-After: ***"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "1500"}, 1_500 * MILLISECOND),
        ({"x-ms-retry-after-ms": "1500"}, 1_500 * MILLISECOND),
        ({"retry-after-ms": "1500.5"}, 1_501 * MILLISECOND),
        ({"retry-after-ms": "2s"}, 2 * SECOND),
        ({"retry-after-ms": "1769515200000"}, LONGEST_WAIT),
        ({"retry-after-ms": "-1"}, None),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 2 * SECOND),
        ({"retry-after": "1", "retry-after-ms": "1500"}, 1_500 * MILLISECOND),
        ({"retry-after": "0", "retry-after-ms": "1500"}, 1_500 * MILLISECOND),
        ({"retry-after": "soon", "x-ms-retry-after-ms": "1500"}, 1_500 * MILLISECOND),
        ({"x-ratelimit-reset": "1500"}, None),
    ],
)
def test_the_largest_explicit_wait_counts(headers: Mapping[str, str], expected: int | None) -> None:
    """Of all headers that tell one, in seconds or milliseconds; a reset is none."""
    assert told_wait(headers, NOW).length == expected
    assert is_told(headers) == ("x-ratelimit-reset" not in headers)


def test_the_same_header_twice_is_a_list() -> None:
    """Both values are read, and the larger one counts."""
    headers = Headers.of([("Retry-After", "8"), ("Retry-After", "9")])
    assert told_wait(headers, NOW).length == 9 * SECOND


@pytest.mark.parametrize("date", ["Thu, 01 Jan 2026 00:05:00 GMT", "Thursday, 01-Jan-26 00:05:00 GMT"])
@pytest.mark.parametrize("told", ["Thu, 01 Jan 2026 00:05:03 GMT", "2026-01-01T00:05:03Z", "1767225903"])
def test_an_instant_is_read_by_the_clock_of_who_wrote_it(date: str, told: str) -> None:
    """An upstream five minutes ahead that says 00:05:03 at 00:05:00 means three seconds."""
    assert told_wait({"date": date, "retry-after": told}, NOW).length == 3 * SECOND
    assert told_wait({"date": date, "retry-after": "3"}, NOW).length == 3 * SECOND


@pytest.mark.parametrize("date", ["", "now", "Thu, 32 Jan 2026 00:05:00 GMT"])
def test_without_a_date_that_parses_our_clock_counts(date: str) -> None:
    """What can't be read doesn't matter."""
    assert told_wait({"date": date, "retry-after": "Thu, 01 Jan 2026 00:00:07 GMT"}, NOW).length == 7 * SECOND


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["30s"], Wait(30 * SECOND, "error.retryDelay")),
        (["30s", "41s"], Wait(41 * SECOND, "error.retryDelay")),
        (["4"], Wait(5 * SECOND, "Retry-After")),
        (["soon"], Wait(5 * SECOND, "Retry-After", "error.retryDelay: soon")),
        ([], Wait(5 * SECOND, "Retry-After", "error.retryDelay is missing")),
    ],
)
def test_the_field_that_the_pool_names_is_one_of_them(texts: list[str], expected: Wait) -> None:
    """It counts if it is the largest; if it is missing, or can't be read, that is told."""
    assert told_wait({"retry-after": "5"}, NOW, "error.retryDelay", texts) == expected


def test_of_several_resets_the_last_counts() -> None:
    """While one limit has nothing left, no call passes."""
    assert reset_wait([MINUTE, SECOND, 0]).length == MINUTE
    assert reset_wait([0]).length is None
    assert reset_wait([]).length is None


date_like = st.from_regex(r"\A[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} [-+]?[A-Z0-9]{1,25}\Z")


@settings(print_blob=True)
@given(st.text() | date_like | st.text('0123456789:+-, GMTJan"smh.', max_size=60), st.text(max_size=30) | date_like)
@example("9" * 100_000, "9" * 100_000)
def test_no_header_can_break_it(text: str, date: str) -> None:
    """An upstream's headers, whatever they are, give a bounded wait in whole milliseconds or none."""
    for name in ("retry-after", "retry-after-ms"):
        wait = told_wait({name: text, "date": date}, NOW)
        assert wait.length is None or 0 < wait.length <= LONGEST_WAIT
        assert not (wait.length or 0) % MILLISECOND


@given(st.integers(1, 10**6), st.timedeltas(timedelta(days=-9000), timedelta(days=9000)))
def test_a_wait_is_never_shorter_than_told(milliseconds: int, skew: timedelta) -> None:
    """Whatever the form, and however wrong a clock is."""
    there = (NOW + skew).replace(microsecond=0)
    told = there + timedelta(milliseconds=milliseconds)
    date = there.strftime("%a, %d %b %Y %H:%M:%S GMT")
    for text in (f"{milliseconds / 1000:.3f}", f"{milliseconds}ms", told.isoformat()):
        assert told_wait({"retry-after": text, "date": date}, NOW).length == milliseconds * MILLISECOND
