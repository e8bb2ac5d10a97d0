"""Lines and templates: what becomes a call, and what is said of what doesn't."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable

import pytest

from apiflux_grpc.jobs import lines
from apiflux_grpc.jobs.calls import parse_call
from apiflux_grpc.jobs.formats import JsonLines
from apiflux_grpc.jobs.lines import Entry, entries, lines_of
from apiflux_grpc.jobs.spreadsheet import Spreadsheet
from apiflux_grpc.jobs.template import Template
from apiflux_grpc.v1 import apiflux_pb2 as pb


def read(data: bytes, template: Template | None = None) -> list[Entry]:
    found = lines_of(io.BytesIO(data))
    if template is None:
        return list(entries(found, JsonLines()))
    return list(Spreadsheet(template, None, pytest.fail).entries(found))


def calls(data: bytes, template: Template | None = None) -> list[pb.Call]:
    found = read(data, template)
    assert [entry.fault for entry in found] == [""] * len(found)
    return [entry.call for entry in found if entry.call is not None]


def pairs(fields: Iterable[pb.QueryParameter] | Iterable[pb.Header]) -> list[tuple[str, str]]:
    return [(field.name, field.value) for field in fields]


def faults(data: bytes, template: Template | None = None) -> dict[int, str]:
    return {entry.line: entry.fault for entry in read(data, template) if entry.call is None}


def test_json_lines_are_numbered_as_an_editor_does() -> None:
    """Empty lines count but are no calls; a byte order mark and CRLF are no harm, a missing last newline neither."""
    found = read(b'\xef\xbb\xbf{"path": "/1"}\r\n\n  \r\n{"path": "/4"}\n[]\n{"path": "/6"}')
    assert [(entry.line, entry.call.path if entry.call else None) for entry in found] == [
        (1, "/1"),
        (4, "/4"),
        (5, None),
        (6, "/6"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"x"', "a JSON object, not a string"),
        ("[{}]", "a JSON object, not an array"),
        ('{"pth": "/"}', "did you mean 'path'?"),
        ('{"zzzzzz": 1}', "a call has id, method"),
        ('{"path": 5}', "path"),
        ('{"query": {"a": 1}}', "query"),
        ('{"query": ["a"]}', "query"),
        ('{"headers": {"a": null}}', "headers"),
        ('{"id": "\\ud800"}', "id"),
        ('{"idempotent": "yes"}', "idempotent"),
        ('{"json": 1, "body": ""}', "set one of them"),
        ('{"json": NaN}', "can't carry"),
        ('{"text": 1}', "text must be a string"),
        ('{"timeout": "soon"}', "timeout"),
    ],
)
def test_a_wrong_line_is_explained(line: str, said: str) -> None:
    """With the field, and without the names of our messages."""
    with pytest.raises(ValueError, match=said.replace("?", "\\?")) as caught:
        parse_call(line)
    assert "apiflux.v1" not in str(caught.value)


def test_the_short_way_and_the_long_way_read_the_same() -> None:
    """A line of plain fields doesn't go through json_format; its result must not show that."""
    plain = {"id": "ä", "method": "PUT", "path": "/x", "query": {"q": "ü"}, "headers": {"A": "b"}}
    short = parse_call(json.dumps(plain))
    assert short == parse_call(json.dumps({**plain, "idempotent": None}))
    assert short == pb.Call(
        id="ä",
        method="PUT",
        path="/x",
        query=[pb.QueryParameter(name="q", value="ü")],
        headers=[pb.Header(name="A", value="b")],
    )
    assert parse_call('{"path": null}') == pb.Call()
    full = parse_call('{"timeout": 1.5, "cost": "7", "idempotent": true, "json": {"a": [1]}}')
    assert (full.timeout.ToMilliseconds(), full.cost, full.idempotent) == (1500, 7, True)
    assert (full.body, pairs(full.headers)) == (b'{"a": [1]}', [("Content-Type", "application/json")])
    assert parse_call('{"timeout": "0.25"}').timeout.ToMilliseconds() == 250
    assert not parse_call('{"timeout": null}').HasField("timeout")


@pytest.mark.parametrize("given", ["QUL/wA==", "QUL/wA", "QUL_wA"])
def test_base64_is_read_in_both_alphabets(given: str) -> None:
    """With its padding or without."""
    assert parse_call(json.dumps({"body": given})).body == b"AB\xff\xc0"


def test_a_template_of_several_lines_is_explained_by_line_and_column() -> None:
    """A column alone would be looked for in the first line."""
    with pytest.raises(ValueError, match=r"Expecting ',' delimiter at line 3, column 3$"):
        Template('{\n  "path": "/"\n  "query": {}\n}')


@pytest.mark.parametrize("more", [{}, {"timeout": 1}])
def test_query_and_headers_may_have_repeats(more: dict[str, int]) -> None:
    """As a list of pairs, in its order, whether or not the line has other fields; an object is for those without."""
    twice = [["b", "2"], ["a", ""], ["b", "1"], ["b", "2"]]
    call = parse_call(json.dumps({"query": twice, "headers": [["X-A", "1"], ["x-a", "2"]], **more}))
    assert pairs(call.query) == [("b", "2"), ("a", ""), ("b", "1"), ("b", "2")]
    assert pairs(call.headers) == [("X-A", "1"), ("x-a", "2")]
    call = parse_call(json.dumps({"query": {"b": "2", "a": "1"}, "headers": None, **more}))
    assert (pairs(call.query), pairs(call.headers)) == ([("b", "2"), ("a", "1")], [])
    call = parse_call(json.dumps({"headers": [["a", "1"], ["content-TYPE", "b/c"]], "json": 1, **more}))
    assert pairs(call.headers) == [("a", "1"), ("content-TYPE", "b/c")]


def test_a_line_that_no_call_can_fill_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being held; the next one is read."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 50)
    data = b'{"path": "/1"}\n' + b"x" * 51 + b"\n" + b"y" * 5_000_000 + b"\n" + b'{"path": "/4"}'
    assert [(entry.line, entry.call is None) for entry in read(data)] == [(1, False), (2, True), (3, True), (4, False)]
    assert all(said.startswith("longer than") for said in faults(data).values())
    assert list(faults(b"\xff{}\n{}\n").items()) == [(1, "not UTF-8")]


def test_a_template_fills_every_string() -> None:
    """In path, query, headers and bodies; only the path is encoded; doubled braces are braces; other values stay."""
    template = Template(
        json.dumps(
            {
                "method": "POST",
                "path": "/{a}/{{x}}/{b}",
                "query": {"q": "{a}-{a}"},
                "headers": {"X-B": "{ b }"},
                "cost": "{n}",
                "idempotent": True,
                "json": {"deep": [{"a": "{a}", "n": 1}, "{{a}}", None]},
            }
        )
    )
    (call,) = calls('a,b,n\n"x/ä ?",{b},7\n'.encode(), template)
    assert call.path == "/x%2F%C3%A4%20%3F/{x}/%7Bb%7D"
    assert pairs(call.query) == [("q", "x/ä ?-x/ä ?")]
    assert ("X-B", "{b}") in pairs(call.headers)
    assert (call.cost, call.idempotent, call.id) == (7, True, "")
    assert json.loads(call.body) == {"deep": [{"a": "x/ä ?", "n": 1}, "{a}", None]}


def test_rows_have_the_id_of_their_column() -> None:
    """Unless the template says otherwise."""
    data = b"id,x\r\n7,a\r\n8,b\r\n"
    assert [call.id for call in calls(data, Template('{"path": "/{x}"}'))] == ["7", "8"]
    assert [call.id for call in calls(data, Template('{"id": "n{id}", "path": "/"}'))] == ["n7", "n8"]


def test_wrong_rows_are_named_by_the_line_they_begin_in() -> None:
    """A record over several lines counts them all, and what follows is read."""
    data = b'a,b\n"1\n1",2\nonly\n\xff,2\n"x"y,2\n3,4\n5,"open\n'
    template = Template('{"path": "/{a}"}')
    found = faults(data, template)
    assert list(found) == [4, 5, 6, 8]
    assert found[4] == "1 column; the header has 2"
    assert "UTF-8" in found[5]
    assert [entry.call.path for entry in read(data, template) if entry.call] == ["/1%0A1", "/3"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("[]", "a JSON object"),
        ("{", "not JSON"),
        ('{"pth": ""}', "did you mean 'path'?"),
        ('{"json": 1, "text": ""}', "set one of them"),
        ('{"path": "/{adress}"}', "path has {adress}.*did you mean 'address'?"),
        ('{"json": [{"x": "{zz}"}]}', r"json\[0\].x has {zz}.*the columns are 'id', 'address'"),
        ('{"path": "/{"}', "single '{'"),
        ('{"path": "/}"}', "single '}'"),
        ('{"path": "/{}"}', "has {}"),
    ],
)
def test_a_template_that_does_not_fit_is_explained(template: str, said: str) -> None:
    """Before a row is read."""
    with pytest.raises(ValueError, match=said.replace("?", "\\?")):
        read(b"id,address\n1,2\n", Template(template))


def test_a_header_must_name_each_column_once() -> None:
    """And an empty file is no calls at all."""
    with pytest.raises(ValueError, match="two columns 'a'"):
        read(b"a,b, a\n", Template("{}"))
    assert read(b"", Template("{}")) == []
    assert read(b"\n\n", Template("{}")) == []
    with pytest.raises(ValueError, match="UTF-8"):
        read(b"\xff\n1\n", Template("{}"))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"path": "/a", "path": "/b"}', "the name 'path' is used twice in one object"),
        ('{"json": 1, "json": 2}', "the name 'json' is used twice in one object"),
        ('{"json": 1, "query": {"a": "1", "a": "2"}}', "the name 'a' is used twice in one object"),
        ('{"json": -Infinity}', "JSON can't carry -Infinity"),
        ('{"json": "\\ud800"}', "json has half of a surrogate pair, which UTF-8 can't carry"),
        ('{"json": 1}{', "not JSON: Extra data at column 12"),
        ('{"json": 1,}', "not JSON: Expecting property name enclosed in double quotes at column 12"),
        ('{"path": "/"\r\n', "not JSON: Expecting ',' delimiter at column 13"),
        ('{"json": {}\n', "not JSON: Expecting ',' delimiter at column 12"),
        ('{"bodyJson": {}}', "unknown field 'bodyJson'; did you mean 'json'?"),
        ('{"bodyText": ""}', "unknown field 'bodyText'; did you mean 'text'?"),
        ('{"body_json": {}}', "unknown field 'body_json'; did you mean 'json'?"),
        ('{"idempotent": "yes"}', "idempotent must be true or false"),
        ('{"idempotent": 1}', "idempotent must be true or false"),
        ('{"json": ' + "[" * 100_000, "not JSON that can be read: it is nested too deeply"),
        ('{"timeout": "9s"}', "timeout is a number of seconds: write 9, not '9s'"),
        ('{"timeout": "1.5s"}', "timeout is a number of seconds: write 1.5, not '1.5s'"),
        ('{"timeout": "1e3"}', "timeout must be a number of seconds"),
        ('{"timeout": true}', "timeout must be a number of seconds"),
        ('{"timeout": NaN}', "timeout must be a number of seconds"),
        ('{"timeout": 1e99}', "timeout is too long"),
        ("[\n", "not JSON: Expecting value at column 2; write each call on one line"),
        ("[{}]", "must be a JSON object, not an array; write each call on one line"),
        ('{"path": "/a', "not JSON: Unterminated string starting at column 10"),
        ('{"path": "/\ta"}', "not JSON: Invalid control character at column 12"),
        (
            '{"body": {"model": "x"}}',
            "body must be a string in base64; give text as `text`, a JSON document as `json`",
        ),
        ('{"body": "Hello, world"}', "body is not base64; give text as `text`, a JSON document as `json`"),
        ('{"body": "QUJDR"}', "body is not base64; give text as `text`, a JSON document as `json`"),
        ('{"query": {"a": 5}}', "query.a must be a string"),
        ('{"headers": 5}', "headers must be an object, or a list of [name, value]"),
        ('{"query": [["a", "1"], ["b"]]}', "query[1] must be [name, value]"),
        ('{"query": [["a", "1"], "ab"]}', "query[1] must be [name, value]"),
        ('{"query": [{"name": "a", "value": "1"}]}', "query[0] must be [name, value]"),
        ('{"headers": [["a", 1]]}', "headers[0] must be two strings"),
        ('{"headers": [["a", "\\udc00"]]}', "headers[0] has half of a surrogate pair, which UTF-8 can't carry"),
        ('{"query": {"a": "\\udc00"}}', "query.a has half of a surrogate pair, which UTF-8 can't carry"),
        ('{"cost": "x"}', "cost must be a whole number below 2^63"),
        ('{"cost": 1.5}', "cost must be a whole number below 2^63"),
        ('{"cost": true}', "cost must be a whole number below 2^63"),
        ('{"cost": 9223372036854775808}', "cost must be a whole number below 2^63"),
        (f'{{"cost": {"9" * 5000}}}', "a number of 5000 digits is too long"),
        ('{"text": "\\ud800"}', "text has half of a surrogate pair, which UTF-8 can't carry"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(line: str, fault: str) -> None:
    """Not in Python's or protobuf's."""
    with pytest.raises(ValueError, match=f"^{re.escape(fault)}$"):
        parse_call(line)


def test_a_template_fills_in_no_names() -> None:
    """It says so, and sends no brace."""
    with pytest.raises(ValueError, match=re.escape("brace in the name '{id}'")):
        Template('{"json": {"{id}": 1}}').bind(["id"])


@pytest.mark.parametrize(
    "document",
    [
        "1.10",
        "0.1234567890123456789",
        "1E5",
        "-0",
        "12345678901234567890123",
        "9" * 5000,
        '{"a": 1, "a" :2}',
        '"\\u00fc\\/ü"',
        '"\\ud83d\\ude00"',
        "[ ]",
        "null",
        "[" * 900 + "]" * 900,
    ],
)
def test_json_is_carried_as_it_is_written(document: str) -> None:
    """No number, name, escape or space in it changes on the way into a body."""
    for line in (f'{{"json":{document}}}', f' {{ "path" : "/x", "json" : {document} , "id":"1"}}\n'):
        assert parse_call(line).body == document.encode()
    assert parse_call(f'{{"js\\u006fn": {document}, "path": "/\\u0041"}}').body == document.encode()


def test_a_template_s_json_is_carried_too() -> None:
    """Its numbers keep their text and its doubled names stay; what is filled in is quoted."""
    template = Template(
        '{"path": "/", "timeout": "{t}", "json": {"n": [1.10, 0.1234567890123456789, 1E5], "a": "{a}", "a": null}}'
    )
    (call,) = calls('a,t\n"x""\\ü",2.5\n'.encode(), template)
    assert call.body == '{"n":[1.10,0.1234567890123456789,1E5],"a":"x\\"\\\\ü","a":null}'.encode()
    assert call.timeout.ToMilliseconds() == 2500
    assert "half of a surrogate pair" in faults(b"a\n1\n", Template('{"json": "\\ud800"}'))[2]


def test_a_template_is_nested_as_deeply_as_it_can_be_filled_in() -> None:
    """One that is nested more deeply is refused before a row is read."""
    (call,) = calls(b"a\n1\n", Template('{"json": ' + "[" * 100 + "]" * 100 + "}"))
    assert len(call.body) == 200
    with pytest.raises(ValueError, match="nested too deeply"):
        Template('{"json": ' + "[" * 101 + "]" * 101 + "}")
