"""Which of a pool's rules an answer matches."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.core.fields import LARGEST_JSON, AnswerFields, Field, HeaderField, JsonField
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.matching import first_match
from apiflux_grpc.core.outcome import Answer, Reason
from apiflux_grpc.core.rules import AnswerRule, Condition, Means


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Answer:
    return Answer(status, Headers.of({name.replace("_", "-"): value for name, value in headers.items()}), body, 0)


def matched(rules: list[AnswerRule], one: Answer) -> int | None:
    """The number of the rule that matches."""
    rule = first_match(rules, AnswerFields(one), one.status)
    return None if rule is None else [other is rule for other in rules].index(True)


def json_is(path: str, *values: str) -> Condition:
    return Condition(JsonField(tuple(path.split("."))), values)


def test_the_first_rule_that_matches_holds() -> None:
    """In order: by status, then by all conditions; a rule without any matches everything."""
    rules = [
        AnswerRule(Means.LIMITED, ((403, 403), (429, 429)), (Condition(HeaderField("x-left"), ("0",)),)),
        AnswerRule(Means.FAILED, ((400, 499),), (json_is("error.code", "a", "b"), json_is("error.kind", "c"))),
        AnswerRule(Means.AGAIN, ((400, 599),)),
    ]
    assert matched(rules, answer(status=403, x_left="0")) == 0
    assert matched(rules, answer(status=403, x_left="1")) == 2
    assert matched(rules, answer(b'{"error": {"code": "b", "kind": "c"}}', status=429)) == 1
    assert matched(rules, answer(b'{"error": {"code": "b"}}', status=429)) == 2
    assert matched(rules, answer(status=200, x_left="0")) is None
    assert matched([*rules, AnswerRule(Means.SUCCESS)], answer(status=200)) == 3


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b'{"a": "x"}', ["x"]),
        (b'{"a": 429}', ["429"]),
        (b'{"a": 1.10}', ["1.10"]),
        (b'{"a": -0.5E+3}', ["-0.5E+3"]),
        (b'{"a": %s}' % (b"9" * 5000), ["9" * 5000]),
        (b'{"a": NaN}', ["NaN"]),
        (b'{"a": true}', ["true"]),
        (b'{"a": false}', ["false"]),
        (b'{"a": null}', ["null"]),
        (b'[{"a": "x"}, {"a": 7}]', ["x", "7"]),
        (b'{"a": ["x"]}', []),
        (b'{"a": {"b": "x"}}', []),
        (b'{"b": "x"}', []),
        (b'{"a": "x"', []),
        (b"\xff\xfe", []),
        (b"", []),
        (b"[" * 500_000, []),
        (b'{"a": "%s"}' % (b"x" * LARGEST_JSON), []),
    ],
)
def test_what_stands_in_a_body(body: bytes, texts: list[str]) -> None:
    """Values as they are written; no objects, no lists, and nothing of what is no JSON or too large."""
    assert AnswerFields(answer(body)).texts(JsonField(("a",))) == texts


def test_a_body_that_is_not_whole_says_nothing() -> None:
    """What was cut off isn't read, even if it happens to be JSON."""
    whole = answer(b'{"a": "x"}')
    for part in (whole._replace(truncated=True), whole._replace(fault=Reason.BODY_CUT)):
        assert AnswerFields(part).texts(JsonField(("a",))) == []


def test_a_header_stands_without_the_spaces_around_it() -> None:
    """A header that comes twice is one value, joined; one that isn't there has none."""
    fields = AnswerFields(Answer(200, Headers.of([("X-A", " 0 "), ("X-B", "1"), ("x-b", "2")]), b"", 0))
    places: list[Field] = [HeaderField("x-a"), HeaderField("x-b"), HeaderField("x-c")]
    assert [fields.texts(place) for place in places] == [["0"], ["1, 2"], []]


@given(body=st.binary(max_size=40) | st.text(max_size=20).map(lambda text: json.dumps({"a": text}).encode()))
def test_nothing_raises(body: bytes) -> None:
    """Whatever a body is, it matches or it doesn't."""
    assert matched([AnswerRule(Means.LIMITED, (), (json_is("a", "x"),))], answer(body)) in (None, 0)
