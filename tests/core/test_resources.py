"""Which calls wait for a limit that the upstream names itself: those of its path segments, on its key."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.resources import MOST_SEGMENTS, Resources
from apiflux_grpc.core.units import SECOND


@pytest.mark.parametrize(
    ("path", "mask"),
    [
        ("/search/code", 0b10),
        ("search/users", 0b10),
        ("/search", 0b10),
        ("/sear%63h/x", 0b10),
        ("/searches/code", 0),
        ("/repos/search/", 0),
        ("/", 0),
        ("", 0),
    ],
)
def test_which_calls_wait(path: str, mask: int) -> None:
    """Those whose first path segment, decoded, was answered with the name, with the key that was told; until then."""
    resources = Resources(3)
    resources.learn("/search/issues", "search")
    resources.learn("/repos/a", "core")
    assert resources.used_up(1, "search", 0, 0, 5 * SECOND) == (5 * SECOND, True)
    assert resources.mask(path, 0) == mask
    assert resources.ends_at(path, 1) == (5 * SECOND if mask else 0)
    assert resources.mask(path, 5 * SECOND) == 0


def test_a_later_answer_that_something_is_left_lets_calls_go() -> None:
    """One to a call that was taken before the refusal says what was."""
    resources = Resources(1)
    resources.learn("/search", "search")
    resources.used_up(0, "search", 3 * SECOND, 4 * SECOND, 60 * SECOND)
    resources.left(0, "search", 3 * SECOND)
    assert resources.mask("/search", 5 * SECOND)
    resources.left(0, "search", 5 * SECOND)
    assert not resources.mask("/search", 5 * SECOND)
    assert not resources.of(0)


def test_without_a_told_wait_it_doubles() -> None:
    """With each refusal of a call that was taken after the last one; those on their way say nothing new."""
    resources = Resources(1)
    ends = []
    now = 0
    for _ in range(8):
        until, is_new = resources.used_up(0, "search", now, now, 0)
        assert is_new
        assert resources.used_up(0, "search", now, now + 1, 0) == (until, False)
        ends.append((until - now) // SECOND)
        now = until + 1
    assert ends == [1, 2, 4, 8, 16, 32, 60, 60]


def test_calls_come_back_one_after_the_other() -> None:
    """So that the first answer says how much is left before the last one goes; faster if it was told when."""
    resources = Resources(1)
    resources.learn("/search", "search")
    until, _ = resources.used_up(0, "search", 0, 0, 0)
    assert [resources.in_line("/search", 0, until) - until for _ in range(3)] == [0, SECOND // 10, SECOND // 5]
    resources.used_up(0, "search", 0, 0, 8192 * SECOND // 1000)
    until = 8192 * SECOND // 1000
    assert [resources.in_line("/search", 0, until) - until for _ in range(3)] == [0, SECOND // 1000, SECOND // 500]
    assert resources.in_line("/search", 0, until + 1) == until + 1
    assert resources.in_line("/repos", 0, until) == until


def test_a_bounded_number_of_segments_is_kept() -> None:
    """The oldest is forgotten."""
    resources = Resources(1)
    for number in range(MOST_SEGMENTS + 1):
        resources.learn(f"/{number}", "a")
    resources.used_up(0, "a", 0, 0, SECOND)
    assert not resources.mask("/0", 0)
    assert resources.mask("/1", 0)
    assert resources.mask(f"/{MOST_SEGMENTS}", 0)
