"""What an answer says of its call's cost."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.cost import LARGEST_COST, cost_of
from apiflux_grpc.core.fields import LARGEST_JSON, AnswerFields, HeaderField, JsonField
from apiflux_grpc.core.headers import NO_HEADERS, Headers
from apiflux_grpc.core.outcome import Answer, Reason

HEADER: Final = HeaderField("x-cost")
TOTAL: Final = ("usage", "total_tokens")


def spent(value: object) -> Answer:
    body = json.dumps({"id": "a", "usage": {"total_tokens": value}, "choices": [{}]}).encode()
    return Answer(200, NO_HEADERS, body, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12),
        (" 12\t", 12),
        ("0", 0),
        ("012", 12),
        ("12.0", 12),
        ("12.000", 12),
        (str(LARGEST_COST), LARGEST_COST),
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
        (str(LARGEST_COST + 1), None),
        ("9" * 10_000_000, None),
    ],
)
def test_cost_in_a_header(text: str, expected: int | None) -> None:
    """A whole number, or nothing; a body that is cut doesn't matter to it."""
    assert cost_of(AnswerFields(Answer(200, Headers.of({"x-cost": text}), b"", 0)), HEADER) == expected
    assert (
        cost_of(AnswerFields(Answer(200, Headers.of({"x-cost": text}), b"{", 0, True, Reason.BODY_CUT)), HEADER)
        == expected
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12, 12),
        (0, 0),
        (12.0, 12),
        (-0.0, 0),
        (LARGEST_COST, LARGEST_COST),
        (float(LARGEST_COST), LARGEST_COST),
        (12.5, None),
        (-1, None),
        (-1.0, None),
        (LARGEST_COST + 1, None),
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
    """A whole number, or nothing: no text, no truth value, no list."""
    assert cost_of(AnswerFields(spent(value)), JsonField(TOTAL)) == expected


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
    assert cost_of(AnswerFields(Answer(200, NO_HEADERS, body, 0)), JsonField(path)) == expected


def test_a_body_that_is_not_whole_says_nothing() -> None:
    """What was cut off may have held the field again."""
    whole = spent(7)
    assert cost_of(AnswerFields(Answer(200, NO_HEADERS, whole.body, 0, truncated=True)), JsonField(TOTAL)) is None
    assert (
        cost_of(AnswerFields(Answer(200, NO_HEADERS, whole.body, 0, fault=Reason.BODY_CUT)), JsonField(TOTAL)) is None
    )


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
)


@settings(print_blob=True)
@given(st.binary(max_size=50) | _values.map(lambda value: json.dumps(value).encode()), st.text(max_size=20))
def test_no_answer_can_break_it(body: bytes, header: str) -> None:
    """Whatever an upstream sends is a bounded cost or none."""
    for source in (HEADER, JsonField(("a", "b"))):
        cost = cost_of(AnswerFields(Answer(200, Headers.of({"x-cost": header}), body, 0)), source)
        assert cost is None or (type(cost) is int and 0 <= cost <= LARGEST_COST)
