"""proto3 JSON becomes the request that it says, or a fault with its place: nothing is guessed, repaired or left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.checks import MOST_FAULTS
from apiflux_grpc.core.errors import BatchTooLarge, InvalidRequest
from apiflux_grpc.ops import decoding
from apiflux_grpc.ops.decoding import DEEPEST, MOST_VALUES, Decoding
from apiflux_grpc.v1 import apiflux_pb2 as pb


def decoded(text: str | bytes, max_calls: int = 1_000) -> pb.ProcessRequest:
    decode = Decoding(text if isinstance(text, bytes) else text.encode(), max_calls=max_calls)
    for _ in decode.slices():
        pass
    return decode.request


def faults_of(text: str | bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        decoded(text)
    return [*caught.value.violations]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
pairs: Any = st.lists(st.builds(dict, name=text, value=text), max_size=2)
durations: Any = st.builds(dict, seconds=st.integers(0, 10**9), nanos=st.integers(0, 999_999_999))
calls = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("id", "method", "path"), text),
        "query": pairs,
        "headers": pairs,
        "body": st.binary(max_size=9),
        "timeout": durations,
        "cost": st.integers(-(1 << 63), (1 << 63) - 1),
        "idempotent": st.booleans(),
    },
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": st.integers(-(1 << 31), (1 << 31) - 1),
        "initial_backoff": durations,
        "max_backoff": durations,
        "reasons": st.lists(st.sampled_from(pb.Reason.values()), max_size=3),
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "pool": text,
        "calls": st.lists(calls, max_size=3),
        "repeat": st.fixed_dictionaries({}, optional={"template": calls, "count": st.integers(-9, 9)}),
        "priority": st.integers(-9, 9),
        "correlation_id": text,
        "retry": policies,
        "ordered": st.booleans(),
    },
)


@settings(max_examples=60)
@given(requests, st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_every_request_that_json_can_say(fields: dict[str, Any], names: bool, indent: int | None, ascii: bool) -> None:
    """By protobuf's own printer, with either kind of name, on one line or many."""
    request = pb.ProcessRequest(**fields)
    told = json_format.MessageToDict(request, preserving_proto_field_name=names)
    assert decoded(json.dumps(told, indent=indent, ensure_ascii=ascii)) == request


@pytest.mark.parametrize(
    ("value", "call"),
    [
        ('{"body": "aGk="}', pb.Call(body=b"hi")),
        ('{"body": "aGk"}', pb.Call(body=b"hi")),
        ('{"body": "_-8"}', pb.Call(body=b"\xff\xef")),
        ('{"body": "/+8="}', pb.Call(body=b"\xff\xef")),
        ('{"cost": "9007199254740993"}', pb.Call(cost=9007199254740993)),
        ('{"cost": 9007199254740993}', pb.Call(cost=9007199254740993)),
        ('{"cost": 1e3}', pb.Call(cost=1000)),
        ('{"cost": 0}', pb.Call(cost=0)),
        ('{"cost": null, "timeout": null, "path": null}', pb.Call()),
        ('{"timeout": "0.25s"}', pb.Call(timeout={"nanos": 250_000_000})),  # type: ignore[arg-type]
        ('{"id": "\\u00e5\\ud83d\\ude00"}', pb.Call(id="å😀")),
        ("{}", pb.Call()),
    ],
)
def test_a_value_can_be_spelled_in_several_ways(value: str, call: pb.Call) -> None:
    """As proto3 JSON has them: base64 of both alphabets, 64-bit numbers as strings, null for what is absent."""
    request = decoded(f'{{"calls": [{value}]}}')
    assert list(request.calls) == [call]
    assert request.calls[0].HasField("cost") == call.HasField("cost")


@pytest.mark.parametrize(
    ("call", "field", "text"),
    [
        ('{"path": 1}', "path", "must be a string"),
        ('{"id": "\\ud83d"}', "id", "half of a surrogate pair"),
        ('{"body": "{}"}', "body", "must be base64"),
        ('{"body": "aGk!"}', "body", "must be base64"),
        ('{"body": "a"}', "body", "must be base64"),
        ('{"body": [1]}', "body", "must be base64"),
        ('{"cost": 1.5}', "cost", "must be a whole number"),
        ('{"cost": "1_0"}', "cost", "must be a whole number"),
        ('{"cost": true}', "cost", "must be a whole number"),
        ('{"cost": 9223372036854775808}', "cost", "to 9223372036854775807"),
        ('{"cost": 1e400}', "cost", "must be a whole number"),
        ('{"timeout": 5}', "timeout", "must be a string"),
        ('{"timeout": "5"}', "timeout", 'must be seconds, such as "1.5s"'),
        ('{"idempotent": "true"}', "idempotent", "true or false, without quotes"),
        ('{"headers": {"a": "b"}}', "headers", "must be a list"),
        ('{"headers": [{"name": 1}]}', "headers[0].name", "must be a string"),
        ('{"headers": [null]}', "headers[0]", "must be an object"),
        ('{"url": "/"}', "url", "is no field of this; use id, method, path, query"),
    ],
)
def test_a_wrong_value_is_named(call: str, field: str, text: str) -> None:
    """By the path of its field, with what it must be."""
    ((place, told),) = faults_of(f'{{"calls": [{{}}, {call}]}}')
    assert place == f"calls[1].{field}"
    assert text in told


def test_a_byte_order_mark_is_no_part_of_it() -> None:
    """Some editors begin a file with one."""
    assert decoded(b"\xef\xbb\xbf{}") == pb.ProcessRequest()


def test_all_wrong_values_are_named_together() -> None:
    """The first of very many."""
    assert [place for place, _ in faults_of('{"calls": [{"id": 1, "path": 2}], "pool": 3, "x": 4}')] == [
        *("calls[0].id", "calls[0].path"),
        *("pool", "x"),
    ]
    with pytest.raises(InvalidRequest) as caught:
        decoded(json.dumps({"calls": [{"id": 1}] * 50}))
    assert (len(caught.value.violations), caught.value.more) == (MOST_FAULTS, 50 - MOST_FAULTS)


@pytest.mark.parametrize(
    ("body", "place", "why"),
    [
        ("", "line 1, column 1", "begins with {"),
        ("[]", "line 1, column 1", "begins with {"),
        ("{", "line 1, column 2", "expected a value"),
        ("{,}", "line 1, column 2", "expected a value"),
        ("{1: 2}", "line 1, column 2", "a name in quotes"),
        ('{"pool"}', "line 1, column 8", "expected a colon"),
        ('{"pool": }', "line 1, column 10", "expected a value"),
        ('{"pool": "a",}', "line 1, column 14", "expected a value"),
        ('{"pool": "a" "b"}', "line 1, column 14", "expected a comma"),
        ('{"pool": "a"} {}', "line 1, column 15", "something follows"),
        ('{"pöol": "😀", x}', "line 1, column 15", "expecting value"),
        ('{"😀":\n"😀", "a": "å\t"}', "line 2, column 13", "invalid control character"),
        (b'{"pool": "a\xff"}', "line 1, column 12", "this isn't UTF-8"),
        ('{"pool": "a\nb"}', "line 1, column 12", "invalid control character"),
        ('{"pool": "a", "pool": "b"}', "line 1, column 15", "pool is there twice"),
        ('{"calls": [{}', "line 1, column 14", "expected a comma or ]"),
        ('{"calls": [{},]}', "line 1, column 15", "expected a value"),
        ('{"calls": [{}, {"path": "/a}]}', "line 1, column 16", "expected a value"),
        ('{"calls":\n [{},\n  {"path": tru}]}', "line 3, column 12", "expecting value"),
        ('{"calls": [{"id": "a", "id": "b"}]}', "line 1, column 12", "id is there twice"),
        ('{"priority": NaN}', "line 1, column 14", "NaN is no JSON"),
        ('{"priority": ' + "9" * 5_000 + "}", "line 1, column 14", "4300 digits"),
        ('{"x": ' + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1) + "}", "line 1, column 7", "nested at most"),
        ('{"x": ' + "[" * 100_000, "line 1, column 7", "nested at most"),
    ],
)
def test_what_is_no_json_has_its_place(body: str | bytes, place: str, why: str) -> None:
    """Line and column, as an editor counts them."""
    ((field, told),) = faults_of(body)
    assert field == "request"
    assert told.startswith(f"{place}: ")
    assert why in told


def test_no_call_has_more_values_than_a_call_can_have() -> None:
    """It is refused before any of them is made."""
    many = ",".join("1" * (MOST_VALUES + 2))
    ((_, told),) = faults_of(f'{{"calls": [{{"headers": [{many}]}}]}}')
    assert "more than" in told
    ((_, told),) = faults_of(f'{{"retry": {{"reasons": [{many}]}}}}')
    assert "more than" in told


def test_no_more_calls_are_read_than_a_batch_has() -> None:
    """The first one too many ends it."""
    assert len(decoded('{"calls": [{}, {}]}', max_calls=2).calls) == 2
    with pytest.raises(BatchTooLarge):
        decoded('{"calls": [{}, {}, {]', max_calls=2)


def test_the_loop_gets_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many calls, and sooner after so many characters."""
    monkeypatch.setattr(decoding, "SLICE", 10)
    assert len(list(Decoding(json.dumps({"calls": [{}] * 100}).encode(), max_calls=100).slices())) == 9
    monkeypatch.setattr(decoding, "SLICE_CHARS", 50)
    long = {"calls": [{"id": "a" * 60}] * 5}
    assert len(list(Decoding(json.dumps(long).encode(), max_calls=100).slices())) == 4


@pytest.mark.parametrize("end", ['"}]}', "", '"', '"}]', '"}}', '\\"}]}', "\\"])
def test_a_long_value_is_found_piece_by_piece(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """As a short one is, and the loop gets a turn meanwhile: its end, or that it has none, wherever pieces are cut."""
    long = r"a\"{[\\" * 10_000
    for size in (7, 1_000):
        monkeypatch.setattr(decoding, "SLICE_CHARS", size)
        decode = Decoding(f'{{"calls": [{{"headers": [{{}}], "id": "{long}{end}'.encode(), max_calls=1)
        turns = 0
        try:
            for _ in decode.slices():
                turns += 1
        except InvalidRequest:
            assert end != '"}]}'
        else:
            assert end == '"}]}'
            assert decode.request.calls[0].id == json.loads(f'"{long}"')
        assert turns > 20


def test_a_long_value_is_bounded_before_it_is_made() -> None:
    """In depth, in marks and in names."""
    for body, why in (
        ('{"x": ' + "[" * 100 + " " * 60_000, "nested at most"),
        ('{"x": [' + "[]," * 500_000 + "[]]}", "more than"),
        ('{"x": [' + "1," * 500_000 + "1]}", "more than"),
        ('{"x": ' + ":" * 60_000, "expected a value"),
        ("{" + ",".join(f'"{name}": 1' for name in range(101)) + "}", "fewer than 100 fields"),
    ):
        ((_, told),) = faults_of(body)
        assert why in told
