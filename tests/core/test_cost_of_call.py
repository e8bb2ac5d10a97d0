"""What a call costs by its pool's rule."""

from __future__ import annotations

import json
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.cost_of_call import MOST_MEMBERS, cost_of_call
from apiflux_grpc.core.fields import LARGEST_JSON
from apiflux_grpc.core.rules import CostOfCall

TOKENS = CostOfCall(("max_tokens",), 0.25, ("messages",))
MOST = CostOfCall(("a",))
TEXT = CostOfCall(per_byte=1.0, per_byte_of=("a",))


@pytest.mark.parametrize(
    ("rule", "body", "cost"),
    [
        (TOKENS, b'{"max_tokens": 100, "messages": [1, 2, 3, 4]}', 103),
        (TOKENS, b'{"max_tokens": 100, "messages": "12345"}', 102),  # 7 bytes with the quotes, 1.75
        (TOKENS, b'{"max_tokens": 100}', 100),
        (CostOfCall(("a|b",)), b'{"b": 7}', 7),
        (CostOfCall(("a|b",)), b'{"a": null, "b": 7}', 7),
        (CostOfCall(("a|b",)), b'{"b": 7, "a": 9}', 9),
        (CostOfCall(("a|b",)), b'{"a|b": 7}', 1),
        (CostOfCall(("x|y", "a|b")), b'{"y": {"b": 7}, "x": 1}', 7),
        (CostOfCall(None, 1.0, ("a|b",)), b'{"b": [1], "a": 1}', 3),
        (TOKENS, b'{"messages": "12345"}', 2),
        (TOKENS, b"{}", 1),
        (TOKENS, b"", 1),
        (CostOfCall(("a",), at_least=7), b'{"a": 6}', 7),
        (CostOfCall(("a",), at_least=7), b'{"a": 8}', 8),
        (CostOfCall(("a",), at_least=0), b"{}", 0),
        # the number
        (MOST, b'{"a": 1.5}', 2),
        (MOST, b'{"a": 2.0}', 2),
        (MOST, b'{"a": 12e2}', 1200),
        (MOST, b'{"a": -5}', 1),
        (MOST, b'{"a": "5"}', 1),
        (MOST, b'{"a": true}', 1),
        (MOST, b'{"a": null}', 1),
        (MOST, b'{"a": NaN}', 1),
        (MOST, b'{"a": [5]}', 1),
        (MOST, b'{"a": 5, "a": 6}', 6),
        (MOST, b'{"b": {"a": 5}}', 1),
        (MOST, b'[{"a": 5}]', 1),
        (MOST, b'{"\\u0061": 5}', 5),
        (MOST, b' {"a" :\t5\n,\r"b":0 } ', 5),
        (MOST, b'{"a": %d}' % LARGEST_COST, LARGEST_COST),
        (MOST, b'{"a": %d}' % (LARGEST_COST + 1), LARGEST_COST + 1),
        (MOST, b'{"a": %s}' % (b"9" * 5000), LARGEST_COST + 1),
        (MOST, b'{"a": 1e999999999999999999999}', LARGEST_COST + 1),
        (MOST, b'{"a": 1e-999999999999999999999}', 1),
        (MOST, b'{"a": 10e-%s1}' % (b"0" * 5000), 1),
        (CostOfCall(("a", "b")), b'{"a": {"b": 5}}', 5),
        (CostOfCall(("a", "b")), b'{"a": {"c": 5}}', 1),
        (CostOfCall(("a", "b")), b'{"a": [{"b": 5}]}', 1),
        (CostOfCall(("a", "b")), b'{"a": 5}', 1),
        # the bytes, as they are sent
        (TEXT, b'{"a":  [1 ,2]  }', 6),
        (TEXT, b'{"a": "\\u00e9"}', 8),
        (TEXT, '{"é": 0, "a": "é"}'.encode(), 4),
        (TEXT, b'{"a": {"b": "}"}, "c": 1}', 10),
        (CostOfCall(per_byte=0.1), b"x" * 30, 3),  # not 3.0000000000000004
        (CostOfCall(per_byte=0.1), b"x" * 31, 4),
        (CostOfCall(("a",), 1.0), b'{"a": 9}', 17),
        # no JSON
        (TOKENS, b'{"max_tokens": 100', 1),
        (TOKENS, b'{"max_tokens": 100} x', 1),
        (TOKENS, b'{"max_tokens": 100,}', 1),
        (TOKENS, b'{"max_tokens" 100}', 1),
        (TOKENS, b'{"max_tokens": 100 "b": 1}', 1),
        (TOKENS, b"{max_tokens: 100}", 1),
        (TOKENS, b'{"max_tokens": }', 1),
        (TOKENS, b'{"max_tokens": 100, "b": "\xff"}', 1),
        (TOKENS, b'{"max_tokens": 100, "b": %s}' % (b"[" * 100_000), 1),
        (CostOfCall(per_byte=1.0), b"\xff\xfe", 2),
    ],
)
def test_what_a_call_costs(rule: CostOfCall, body: bytes, cost: int) -> None:
    """The sum, rounded up; what isn't there, or isn't JSON, counts 0."""
    assert cost_of_call(rule, body) == cost


def test_a_body_that_is_too_large_to_be_read_counts_with_all_its_bytes() -> None:
    """The largest calls aren't the cheapest."""
    body = json.dumps({"max_tokens": 100, "messages": "x" * LARGEST_JSON}).encode()
    assert cost_of_call(TOKENS, body) == ceil(len(body) / 4)
    assert cost_of_call(MOST, body) == 1


@pytest.mark.parametrize(("within", "path"), [("%s", ("max_tokens",)), ('{"x": %s}', ("x", "max_tokens"))])
def test_an_object_of_too_many_members_is_not_gone_through(within: str, path: tuple[str, ...]) -> None:
    """A megabyte of them would keep everybody waiting for a second; the call costs as one that is too large to read."""
    others = [f'"{place}": 0' for place in range(MOST_MEMBERS)]
    rule = CostOfCall(path, 0.25, ("messages",))
    few, many = ((within % f'{{{", ".join(some)}, "max_tokens": 100}}').encode() for some in (others[1:], others))
    assert (cost_of_call(rule, few), cost_of_call(rule, many)) == (100, ceil(len(many) / 4))


NAMES = st.sampled_from(["a", "b", "é", '"', "\\"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 10**6)
    | st.sampled_from([0.5, 1e3, "", "}", "é", '"a": 1', "\U0001f600"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


@given(body=JSON, at=st.lists(NAMES, min_size=1, max_size=2), indent=st.none() | st.just(1), ascii_only=st.booleans())
@example(body={"a": {"a": 5}}, at=["a", "a"], indent=1, ascii_only=True)
def test_it_finds_what_a_json_parser_finds(body: Any, at: list[str], indent: int | None, ascii_only: bool) -> None:
    """However it is written: the number is the parser's, the bytes are those between the neighbours."""
    found = body
    for name in at:
        found = found.get(name) if isinstance(found, dict) else None
    number = found if isinstance(found, int | float) and not isinstance(found, bool) else 0
    whole = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert cost_of_call(CostOfCall(tuple(at), at_least=0), whole) == ceil(Fraction(number))
    if indent is None:
        is_there = _is_there(body, at)
        size = len(json.dumps(found, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")) if is_there else 0
        assert cost_of_call(CostOfCall(None, 1.0, tuple(at), 0), whole) == size


def _is_there(body: Any, at: list[str]) -> bool:
    for name in at:
        if not isinstance(body, dict) or name not in body:
            return False
        body = body[name]
    return True


@given(body=st.binary(max_size=60) | st.text('{}[]:,"\\ 1a', max_size=30).map(str.encode))
def test_nothing_raises(body: bytes) -> None:
    """Whatever a body is, its call has a cost, and one that isn't JSON has the least."""
    cost = cost_of_call(MOST, body)
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        assert cost == 1
