"""Lines with a document: the fast way through them finds what a look at each member finds."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.jsontext import members
from apiflux_grpc.jobs.calls import parse_json, parse_value
from apiflux_grpc.jobs.values import Carried

NAMES = st.sampled_from(['"json"', '"a"', '"b"', r'"js\u006fn"', r'"\"json"'])
PLAIN = st.sampled_from(["1.10", "null", '"json"', r'"x\"json\": 1"', '"ü: "', "NaN"])


def object_of(pairs: list[tuple[str, str]]) -> str:
    return f"{{{', '.join(f'{name} : {value}' for name, value in pairs)}}}"


def line_of(pairs: list[tuple[str, str]]) -> str:
    """One that isn't read without a look for the document."""
    return object_of([*pairs, ('"c"', '"json"')])


VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(st.tuples(NAMES, inner), max_size=3).map(object_of) | inner.map(lambda one: f"[{one} ]"),
    max_leaves=4,
)


def member_by_member(line: str) -> dict[str, Any]:
    """Raises ValueError."""
    found = [(name, line[start:end]) for name, start, end in members(line)]
    fields = {name: Carried(text) if name == "json" else parse_value(text) for name, text in found}
    if len(fields) < len(found):
        names = [name for name, _ in found]
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} is used twice in one object"
        )
    return fields


def outcome(read: Any, line: str) -> str:
    """What was read, or what is wrong."""
    try:
        return repr(sorted(read(line).items()))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {min(error.pos, len(line.rstrip())) + 1}"
    except ValueError as error:
        return str(error)


@settings(max_examples=150)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=4).map(line_of), st.sampled_from(["", "}", " 1", ' "json": 1']))
@example('{"a": {"json": 1}, "json": NaN}', "")
@example('{"a": {"json": 1}, "json": 2}', "")
@example('{"json": 1, "json": 2}', "")
@example('{"json": {"json": 1}}', "")
def test_a_line_reads_as_its_members_do(line: str, more: str) -> None:
    """However often the name is in it, and wherever; with the same faults."""
    assert outcome(parse_json, line + more) == outcome(member_by_member, line + more)
