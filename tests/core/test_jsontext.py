"""JSON as text: it is found, looked at, and never changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from apiflux_grpc.core.jsontext import DEEPEST, depth, has_half_pair, members, members_at, one_line

NUMBERS = some.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
STRINGS = some.text(some.characters(codec="utf-8"), max_size=8).flatmap(
    lambda text: some.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False)])
)
SPACES = some.text(" \t\r\n", max_size=2)


def _joined(items: list[tuple[str, str]], brackets: str) -> str:
    return brackets[0] + ",".join(space + item + space for item, space in items) + brackets[1]


def _nested(inner: some.SearchStrategy[str]) -> some.SearchStrategy[str]:
    member = some.builds(lambda name, space, value: f"{name}{space}:{space}{value}", STRINGS, SPACES, inner)
    return some.one_of(
        some.lists(some.tuples(inner, SPACES), max_size=4).map(lambda items: _joined(items, "[]")),
        some.lists(some.tuples(member, SPACES), max_size=4).map(lambda items: _joined(items, "{}")),
    )


DOCUMENTS = some.recursive(some.one_of(NUMBERS, STRINGS, some.sampled_from(["true", "false", "null"])), _nested)


class Members(list[tuple[str, object]]):
    """Of an object, also those whose names are used twice."""


def read(text: str) -> object:
    """The document with the text of its numbers."""
    return json.loads(text, parse_int=lambda n: ("n", n), parse_float=lambda n: ("n", n), object_pairs_hook=Members)


def levels(value: object) -> int:
    """How deeply it is nested."""
    inside = [member for _, member in value] if isinstance(value, Members) else value
    return 1 + max(map(levels, inside), default=0) if isinstance(inside, list) else 0


@settings(max_examples=100)
@given(DOCUMENTS, SPACES)
def test_a_document_on_one_line_is_the_same_document(text: str, space: str) -> None:
    """Whatever its numbers, names and escapes are; only white space between them may go."""
    line = one_line(space + text + space)
    assert "\n" not in line
    assert "\r" not in line
    assert line == line.strip()
    assert read(line) == read(text)
    assert line == text or "\n" in text or "\r" in text


@settings(max_examples=100)
@given(some.lists(some.tuples(STRINGS, DOCUMENTS), max_size=4), SPACES)
def test_members_are_found_where_they_stand(pairs: list[tuple[str, str]], space: str) -> None:
    """Each with the text of its value, in their order, names that are used twice included."""
    inside = f"{space},{space}".join(f"{name}{space}:{space}{value}" for name, value in pairs)
    text = f"{space}{{{space}{inside}{space}}}{space}"
    found = members(text)
    assert [(name, text[start:end]) for name, start, end in found] == [
        (json.loads(name), value) for name, value in pairs
    ]
    assert members_at(text, len(space)) == found


@settings(max_examples=100)
@given(DOCUMENTS)
def test_depth_counts_no_bracket_inside_a_string(text: str) -> None:
    """It is that of a walk over the document."""
    assert depth(text) == levels(read(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "{} {}",
        "NaN",
        "[-Infinity]",
        "\ufeff{}",
        "01",
        "[1,]",
        "{'a': 1}",
        '"a\nb"',
        "9" * 5000,
        "[" * 100_000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        '"\\ud800"',
        '["\\uD83D", "\\uDE00"]',
        '"\\udc00\\ud800"',
        '"\\\\\\udfff"',
    ],
)
def test_what_not_every_reader_takes_is_no_line(text: str) -> None:
    """What isn't one JSON document, or one with a number, a nesting or half a pair that a reader may stumble over."""
    with pytest.raises(ValueError):  # noqa: PT011 - any text
        one_line(text)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "9" * 4000,
        "1E999999",
        "[" * DEEPEST + "]" * DEEPEST,
        '["' + "[" * 2000 + '"]',
        '"\\\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\uD83D\\uDE00\\n"',
        '{"a": 1, "a": 2}',
    ],
)
def test_what_every_reader_takes_is_a_line(text: str) -> None:
    """As it is."""
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[]", "must be a JSON object"),
        ("1", "must be a JSON object"),
        ("{", "property name"),
        ("{1: 2}", "property name"),
        ('{"a"}', "':' delimiter"),
        ('{"a":}', "Expecting value"),
        ('{"a":1', "',' delimiter"),
        ('{"a":1,}', "property name"),
        ('{"a":1}x', "Extra data"),
        ("{}x", "Extra data"),
        ('{"a":NaN}', "can't carry NaN"),
        ('{"a\n":1}', "control character"),
    ],
)
def test_what_is_no_object_has_no_members(text: str, said: str) -> None:
    """It says what is wrong, as json does."""
    with pytest.raises(ValueError, match=said):
        members(text)


def test_half_a_pair_is_seen_in_escapes_alone() -> None:
    """Not behind an escaped backslash, and not in a whole pair."""
    cases = {'"\\ud800"': True, '"\\\\ud800"': False, '"\\ud800\\udc00"': False, '"ud800"': False}
    assert {text: has_half_pair(text) for text in cases} == cases


def test_members_of_what_is_inside() -> None:
    """Of an object inside the document they are found too; of anything else there are none."""
    text = '{"a": {"b": 1.10} , "c": [{}]}'
    (_, start, _), (_, other, _) = members(text)
    ((name, begin, end),) = members_at(text, start)
    assert (name, text[begin:end]) == ("b", "1.10")
    assert members_at(text, other) == []
