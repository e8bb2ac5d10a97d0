"""Results as lines: what stands in one, and what a later run reads of it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiflux_grpc.jobs.known import key_of
from apiflux_grpc.jobs.rows import Kept, kept, line_of
from apiflux_grpc.v1 import apiflux_pb2 as pb


def answered(body: bytes, kind: str = "application/json", **more: Any) -> pb.CallResult:
    """A result with this body."""
    result = pb.CallResult(index=3, id="a", key_label="key-1", attempts=1)
    result.response.status_code = 200
    result.response.body = body
    if kind:
        result.response.headers.add(name="content-type", value=kind)
    for name, value in more.items():
        setattr(result.response, name, value)
    return result


def test_lengths_of_time_are_seconds() -> None:
    """As numbers, to the nanosecond; an instant stays text."""
    result = answered(b"{}")
    result.queue_time.FromNanoseconds(56_072)
    result.latency.FromNanoseconds(1_018_556_594)
    result.completed_at.FromNanoseconds(1_767_261_600_327_807_165)
    fields = json.loads(line_of(result))
    assert (fields["queueTime"], fields["latency"]) == (0.000056072, 1.018556594)
    assert fields["completedAt"] == "2026-01-01T10:00:00.327807165Z"


def test_names_are_those_of_the_contract() -> None:
    """In the order of the contract, as proto3 JSON spells them."""
    fields = json.loads(line_of(answered(b"1.10", truncated=True)))
    assert list(fields) == [
        "index",
        "id",
        "response",
        "keyLabel",
        "attempts",
        "queueTime",
        "latency",
        "completedAt",
    ]
    assert list(fields["response"]) == ["statusCode", "headers", "bodyJson", "truncated"]


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json; charset=utf-8"])
def test_a_document_is_embedded_as_it_came(kind: str) -> None:
    """Byte by byte, but for white space around it and line ends; the line can be read back."""
    line = line_of(answered(b'\t{ "a" : 1.10,\r\n "a": 1E5 }\n', kind))
    assert b'"bodyJson":{ "a" : 1.10, "a": 1E5 },' in line.replace(b"}}", b"},")
    assert line.count(b"\n") == 1
    assert kept(line) == Kept(key_of("a", 3), False)


def test_what_reads_like_the_place_of_a_document_is_not_it() -> None:
    """Neither an id nor a header nor the document itself."""
    result = answered(b'{"bodyJson":null, "x": 1.10}')
    result.id = '"bodyJson":null'
    result.response.headers.add(name="x", value='"bodyJson":null,bodyJson":null')
    fields = json.loads(line_of(result))
    assert fields["id"] == '"bodyJson":null'
    assert fields["response"]["bodyJson"] == {"bodyJson": None, "x": 1.1}
    assert fields["response"]["headers"][1] == ["x", '"bodyJson":null,bodyJson":null']


@pytest.mark.parametrize(
    ("body", "kind", "field", "text"),
    [
        (b"9" * 5000, "application/json", "bodyText", "9" * 5000),
        (b"[" * 501 + b"]" * 501, "application/json", "bodyText", "[" * 501 + "]" * 501),
        (b"[NaN]", "application/json", "bodyText", "[NaN]"),
        (b'"\\ud800"', "application/json", "bodyText", '"\\ud800"'),
        (b"\xef\xbb\xbf{}", "application/json", "bodyText", "\ufeff{}"),
        (b"{}", "text/plain", "bodyText", "{}"),
        (b"{}", "", "bodyText", "{}"),
        (b"", "application/json", "bodyText", ""),
        (b'{"a": ', "application/json", "bodyText", '{"a": '),
        (b"\xff", "application/json", "body", "/w=="),
        (b"\xff\xfe{\x00}\x00", "application/json", "body", "//57AH0A"),
        (b'"\xed\xa0\x80"', "application/json", "body", "Iu2ggCI="),
    ],
)
def test_what_is_no_document_is_text_or_bytes(body: bytes, kind: str, field: str, text: str) -> None:
    """Nothing of it is lost, and the line can be read back."""
    line = line_of(answered(body, kind))
    response = json.loads(line)["response"]
    assert {name: value for name, value in response.items() if name.startswith("body")} == {field: text}
    assert kept(line) == Kept(key_of("a", 3), False)


@settings(max_examples=100)
@given(
    st.binary(max_size=60) | st.text('[]{}",:\\\\ud8dc0019.eE-+ \n\r\tntrue\ufeff', max_size=60).map(str.encode),
    st.sampled_from(["application/json", "text/plain", ""]),
)
@example(b'"\\uD83D\\uDE00\\ud83d"', "application/json")
def test_any_answer_makes_one_line_that_can_be_read_back(body: bytes, kind: str) -> None:
    """Whatever bytes came; and none of them is lost, but for white space around a document and its line ends."""
    line = line_of(answered(body, kind))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert kept(line).key == key_of("a", 3)
    response = json.loads(line)["response"]
    if "bodyJson" in response:
        assert response["bodyJson"] == json.loads(body)
    elif "bodyText" in response:
        assert response["bodyText"].encode() == body
    else:
        assert base64.b64decode(response["body"]) == body


def test_the_deepest_document_can_be_read_back_where_calls_are_deep() -> None:
    """By us too, some hundred calls deep."""
    line = line_of(answered(b"[" * 500 + b"]" * 500))
    assert b'"bodyJson":' in line

    def deep(levels: int) -> Kept:
        return deep(levels - 1) if levels else kept(line)

    assert deep(200).key == key_of("a", 3)
