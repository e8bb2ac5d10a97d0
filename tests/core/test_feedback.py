"""What a 429 says of its key, and what an answer says of its call's cost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.feedback import (
    LARGEST,
    LARGEST_JSON,
    LONGEST_BACK_OFF,
    LONGEST_RETRY_AFTER,
    block_for,
    cost_of,
    retry_after,
)
from apiflux_grpc.core.model import SECOND, Key, Limit
from apiflux_grpc.core.outcome import Answer, Reason

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def key_of(*pers: int) -> Key:
    return Key("key-0", "secret", tuple(Limit(10, per) for per in pers))


def refusal(header: str | None = None) -> Answer:
    return Answer(429, {} if header is None else {"retry-after": header}, b"", 0)


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


# -- what a call cost ----------------------------------------------------------------------------

TOTAL: Final = ("usage", "total_tokens")


def spent(value: object) -> Answer:
    return Answer(200, {}, json.dumps({"id": "a", "usage": {"total_tokens": value}, "choices": [{}]}).encode(), 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12),
        (" 12\t", 12),
        ("0", 0),
        ("012", 12),
        ("12.0", 12),
        ("12.000", 12),
        (str(LARGEST), LARGEST),
        ("12.5", None),
        ("12.", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1 2", None),
        ("5, 7", None),
        ("", None),
        ("many", None),
        ("²", None),
        ("1_0", None),
        (str(LARGEST + 1), None),
        ("9" * 10_000_000, None),
    ],
)
def test_cost_in_a_header(text: str, expected: int | None) -> None:
    """A whole number, or nothing; a body that is cut doesn't matter to it."""
    assert cost_of(Answer(200, {"x-cost": text}, b"", 0), "x-cost", None) == expected
    assert cost_of(Answer(200, {"x-cost": text}, b"{", 0, True, Reason.BODY_CUT), "x-cost", TOTAL) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12, 12),
        (0, 0),
        (12.0, 12),
        (-0.0, 0),
        (LARGEST, LARGEST),
        (float(LARGEST), LARGEST),
        (12.5, None),
        (-1, None),
        (-1.0, None),
        (LARGEST + 1, None),
        (1e300, None),
        (float("inf"), None),
        (float("nan"), None),
        (True, None),
        (False, None),
        (None, None),
        ("12", None),
        ([12], None),
        ({"total_tokens": 12}, None),
    ],
)
def test_cost_in_a_body(value: object, expected: int | None) -> None:
    assert cost_of(spent(value), None, TOTAL) == expected


def test_a_cost_in_the_header_comes_before_one_in_the_body() -> None:
    """The body is asked only where the header is missing."""
    body = spent(7).body
    assert cost_of(Answer(200, {"x-cost": "5"}, body, 0), "x-cost", TOTAL) == 5
    assert cost_of(Answer(200, {"x-cost": "junk"}, body, 0), "x-cost", TOTAL) is None
    assert cost_of(Answer(200, {}, body, 0), "x-cost", TOTAL) == 7
    assert cost_of(Answer(200, {"x-cost": "5"}, body, 0), None, TOTAL) == 7
    assert cost_of(Answer(200, {"x-cost": "5"}, body, 0), None, None) is None


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (b"12", (), 12),
        (b'{"a":{"b":{"c":1}}}', ("a", "b", "c"), 1),
        (b'{"a":{"b":{"c":1}}}', ("a", "b"), None),
        (b'{"a":{"b":1}}', ("a", "b", "c"), None),
        (b'{"a":1}', ("b",), None),
        (b'[{"a":1}]', ("0", "a"), None),
        (b'{"a":1,"a":2}', ("a",), 2),
        ('{"ä":3}'.encode(), ("ä",), 3),
        (b"", ("a",), None),
        (b"{", ("a",), None),
        (b'{"a":1}x', ("a",), None),
        (b'{"a":1' + b"0" * 5000 + b"}", ("a",), None),
        (b"\xff\xfe\x00", ("a",), None),
        (b"[" * 500_000, ("a",), None),
        (b'{"a":' * 100_000, ("a",), None),
        (b'{"a":1}'.ljust(LARGEST_JSON), ("a",), 1),
        (b'{"a":1}'.ljust(LARGEST_JSON + 1), ("a",), None),
    ],
)
def test_bodies(body: bytes, path: tuple[str, ...], expected: int | None) -> None:
    """From object to object; what isn't JSON, is too large or too deep says nothing."""
    assert cost_of(Answer(200, {}, body, 0), None, path) == expected


def test_a_body_that_is_not_whole_says_nothing() -> None:
    """What was cut off may have held the field again."""
    whole = spent(7)
    assert cost_of(Answer(200, {}, whole.body, 0, truncated=True), None, TOTAL) is None
    assert cost_of(Answer(200, {}, whole.body, 0, fault=Reason.BODY_CUT), None, TOTAL) is None


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
)


@settings(deadline=None, print_blob=True)
@given(st.binary(max_size=50) | _values.map(lambda value: json.dumps(value).encode()), st.text(max_size=20))
def test_no_answer_can_break_it(body: bytes, header: str) -> None:
    """Whatever an upstream sends is a bounded cost or none."""
    for name in (None, "x-cost"):
        cost = cost_of(Answer(200, {"x-cost": header}, body, 0), name, ("a", "b"))
        assert cost is None or (type(cost) is int and 0 <= cost <= LARGEST)
