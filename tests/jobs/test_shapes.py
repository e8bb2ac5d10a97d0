"""Methods and paths of many calls in few lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.jobs.shapes import DEEPEST, MOST, Shapes

MANY = range(MOST + 1)


def told(*calls: tuple[str, str], most: int = 100) -> list[tuple[str, int]]:
    shapes = Shapes()
    for method, path in calls:
        shapes.add(method, path)
    return shapes.told(most)


def test_paths_are_told_as_they_are_while_they_are_few() -> None:
    """The most frequent first; a slash at the beginning is optional, and no method is GET."""
    calls = [("POST", "/v1/chat/completions"), ("", "v1/models"), ("GET", "/v1/models"), ("GET", "")]
    assert told(*calls) == [("GET /v1/models", 2), ("GET /", 1), ("POST /v1/chat/completions", 1)]
    assert told(*[("GET", f"/{number}") for number in range(MOST)]) == [(f"GET /{number}", 1) for number in range(MOST)]


def test_where_paths_differ_in_many_ways_a_star_stands_for_them() -> None:
    """What follows is still told apart, also of those that were counted before; and so is each method."""
    calls = [("GET", f"/users/{number}/{'posts' if number % 3 else 'likes'}") for number in MANY]
    calls += [("GET", "/users/next"), ("GET", "/groups/1"), ("PUT", "/users/1")]
    assert told(*calls) == [
        ("GET /users/*/posts", 6),
        ("GET /users/*/likes", 3),
        ("GET /groups/1", 1),
        ("GET /users/*", 1),
        ("PUT /users/1", 1),
    ]


def test_a_long_path_ends_in_dots_and_many_lines_in_others() -> None:
    """So there are never many."""
    path = "/".join("abcdefgh")
    assert told(("GET", path)) == [("GET /a/b/c/d/e/...", 1)]
    assert DEEPEST == 5
    calls = [("GET", "/a")] * 3 + [("GET", "/b"), ("GET", "/c"), ("GET", "/d")]
    assert told(*calls, most=2) == [("GET /a", 3), ("others", 3)]


PATHS = st.lists(st.sampled_from([str(number) for number in range(2 * MOST)]), max_size=DEEPEST + 2).map("/".join)


@given(st.lists(st.tuples(st.sampled_from(["GET", "POST"]), PATHS), max_size=60), st.integers(2, 9))
def test_no_call_is_lost(calls: list[tuple[str, str]], most: int) -> None:
    """Whatever was joined, each is counted once, in no more lines than there may be."""
    lines = told(*calls, most=most)
    assert len(lines) <= most
    assert sum(count for _, count in lines) == len(calls)
