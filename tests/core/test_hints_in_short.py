"""The short ways of reading hints say what the reader says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.hints import hints, in_full

NOW: Final = datetime(2026, 1, 27, 11, 59, 0, tzinfo=UTC)
NUMBERS: Final = st.sampled_from(
    ["0", "7", "60", "100", "007", "1.5", "-1", "", " 3", "3, 4", "10;w=1", "9" * 15, "9" * 16, "x"]
)
RESETS: Final = NUMBERS | st.sampled_from(
    [
        "1s",
        "6m0s",
        "120ms",
        "0",
        "1769515200",
        "1769515200000",
        "2026-01-27T12:00:00Z",
        '"5"',
        "Tue, 27 Jan 2026 12:00:00 GMT",
    ]
)
ITEMS: Final = st.builds(
    "{}{}{}".format,
    st.sampled_from(['"default"', '"b"', '"A"', "a", "5", "a=1", '"default"']),
    st.sampled_from([";r=5", ";r=05", ";r=-1", ";r=x", "", ";q=9", " ;r=5", ";r=5;r=6"]),
    st.sampled_from(["", ";t=30", ";t=9999999", ";w=60", ";t=1.5", ";qu=tokens", ';t=1, "b";r=1']),
)
POLICIES: Final = st.sampled_from(
    [
        '"default";q=100;w=60',
        '"default";q=1;qu="content-bytes"',
        '"b";q=5;w=1, "default";q=9;qu="tokens"',
        "100;w=60",
        '"default";q=x',
        '"',
        "x" * 2000,
    ]
)


@st.composite
def told_headers(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Headers as upstreams send them, and as none should."""
    pairs = draw(st.sampled_from([[], [("date", "Tue, 27 Jan 2026 11:58:00 GMT")], [("x-ratelimit-resource", "core")]]))
    pairs = [*pairs]
    for name in draw(st.lists(st.sampled_from(GROUPS), max_size=2)):
        for field, values in (("limit", NUMBERS), ("remaining", NUMBERS), ("reset", RESETS)):
            if draw(st.integers(0, 9)):
                pairs.append((name.format(field), draw(values)))
    if draw(st.integers(0, 3)) == 0:
        pairs.append(("ratelimit", draw(ITEMS)))
    if draw(st.integers(0, 3)) == 0:
        pairs.append(("ratelimit-policy", draw(POLICIES)))
    return pairs


GROUPS: Final = (
    "x-ratelimit-{}",
    "x-ratelimit-{}-requests",
    "x-ratelimit-{}-tokens",
    "anthropic-ratelimit-requests-{}",
    "ratelimit-{}",
    "x-ratelimit-{}-minute",
)


@given(told_headers())
@example([("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "7200")])
@example([("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "Tue, 27 Jan 2026 12:00:00 GMT")])
@example([("x-ratelimit-remaining", "5"), ("ratelimit-remaining", "5"), ("x-ratelimit-resource", "core")])
def test_the_short_ways_say_what_the_reader_says(pairs: list[tuple[str, str]]) -> None:
    """Usual headers are read in short, and to the letter as they are read in full."""
    headers = Headers.of(pairs)
    short, full = hints(headers, NOW), in_full(headers, NOW)
    assert short == full
    assert [(hint.name, hint.resource) for hint in short[0]] == [(hint.name, hint.resource) for hint in full[0]]


@example([('"default";r=5;t=7200', '"default";q=x'), ('"default";r=5', '"default";q=100;w=60')])
@given(st.lists(st.tuples(ITEMS, POLICIES | st.none()), min_size=1, max_size=3))
def test_the_short_way_of_items_says_what_the_reader_says(answers: list[tuple[str, str | None]]) -> None:
    """RateLimit and its policies are read in short, and to the letter as they are read in full."""
    for item, policy in answers:
        headers = Headers.of([("ratelimit", item)] + ([] if policy is None else [("ratelimit-policy", policy)]))
        short, full = hints(headers, NOW), in_full(headers, NOW)
        assert short == full
        assert [hint.name for hint in short[0]] == [hint.name for hint in full[0]]
