"""An answer's headers: as they came, and read by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.core.headers import NO_HEADERS, Headers

PAIRS = [("Set-Cookie", "a=1, b"), ("Date", "now"), ("set-cookie", "c=2"), ("empty", "")]


def test_repeats_and_order_stay() -> None:
    """Each header is there as often as it came, its name in lower case."""
    headers = Headers.of(PAIRS)
    assert list(headers.pairs) == [("set-cookie", "a=1, b"), ("date", "now"), ("set-cookie", "c=2"), ("empty", "")]
    assert headers.names == ("set-cookie", "date", "set-cookie", "empty")
    assert Headers.of(headers) is headers
    assert list(headers.without("date", "empty").pairs) == [("set-cookie", "a=1, b"), ("set-cookie", "c=2")]


def test_read_by_name_they_are_joined() -> None:
    """As a mapping they have each name once, with its values joined by a comma."""
    headers = Headers.of(PAIRS)
    assert headers == {"set-cookie": "a=1, b, c=2", "date": "now", "empty": ""}
    assert (headers["date"], headers.get("empty"), headers.get("etag"), headers.get("etag", "-")) == (
        "now",
        "",
        None,
        "-",
    )
    assert ("set-cookie" in headers, "Set-Cookie" in headers, len(headers)) == (True, False, 3)
    with pytest.raises(KeyError):
        headers["etag"]
    assert (len(NO_HEADERS), list(NO_HEADERS.pairs), dict(NO_HEADERS)) == (0, [], {})


def test_each_name_has_a_value() -> None:
    """Headers can't be made of more names than values, or the other way round."""
    with pytest.raises(ValueError, match="2 names of headers have 1 values"):
        Headers(("a", "b"), ("1",))
    with pytest.raises(ValueError, match="0 names"):
        Headers((), ("1",))


def test_a_value_is_not_shown() -> None:
    """A header may hold what no log should."""
    assert repr(Headers.of({"Set-Cookie": "secret", "a": "b"})) == "<Headers set-cookie, a>"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=2)), max_size=8))
def test_nothing_is_lost(pairs: list[tuple[str, str]]) -> None:
    """Whatever the pairs, they come out as they went in, and the mapping is the one that joins them in order."""
    headers = Headers.of(pairs)
    assert list(headers.pairs) == pairs
    joined: dict[str, list[str]] = {}
    for name, value in pairs:
        joined.setdefault(name, []).append(value)
    assert list(headers.items()) == [(name, ", ".join(values)) for name, values in joined.items()]
