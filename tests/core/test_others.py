"""What others take of a window, by what an answer says is left of it."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.others import Others, Word
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.core.window import Window

PER: Final = 10 * SECOND
JITTER: Final = 250 * MILLISECOND
NOW: Final = 20 * SECOND


def window_with(ours: int, back: int = 0, others: int = 0, refused: int = 0) -> tuple[Window, Others]:
    """100 per 10 s, of which we took `ours` two seconds ago; `back` came back half a second ago."""
    window = Window(100, PER)
    estimate = Others(window, JITTER, 0)
    window.used = ours + back
    if back:
        window.record(NOW - 11 * SECOND, back)
    window.record(NOW - 2 * SECOND, ours)
    estimate.expire(NOW - SECOND // 2, out=False, slow=False)
    estimate.refused(refused, NOW - 2 * SECOND)
    window.set_others(others)
    return window, estimate


@pytest.mark.parametrize(
    ("state", "word", "others"),
    [
        # nobody else
        ({"ours": 30}, Word(70, None, NOW, 0), 0),
        ({"ours": 30}, Word(75, None, NOW, 5), 0),
        # more than we took is used
        ({"ours": 30}, Word(50, None, NOW, 0), 20),
        ({"ours": 30}, Word(50, 100, NOW, 0), 20),
        ({"ours": 30, "others": 5}, Word(50, None, NOW, 0), 20),
        # of what the upstream allows, if that is more; if it is less, what it doesn't allow can't be used
        ({"ours": 30}, Word(150, 200, NOW, 0), 20),
        ({"ours": 30}, Word(20, 50, NOW, 0), 50),
        # what was refused, the upstream didn't count
        ({"ours": 30, "refused": 10}, Word(60, None, NOW, 0), 20),
        # what came back while the call was on its way, it may have counted
        ({"ours": 30, "back": 15}, Word(50, None, NOW - SECOND, 0), 5),
        ({"ours": 30, "back": 15}, Word(50, None, NOW, 0), 20),
        # fewer take it; what may have arrived later isn't known to be free
        ({"ours": 30, "others": 40}, Word(50, None, NOW, 0), 20),
        ({"ours": 30, "others": 40}, Word(50, None, NOW, 5), 25),
        ({"ours": 30, "others": 40}, Word(50, None, NOW, 25), 40),
        ({"ours": 30, "others": 40}, Word(50, None, NOW, None), 40),
        # never all others' and more
        ({"ours": 0}, Word(0, 300, NOW, 0), 100),
        # a call that was sent a period ago says nothing, unless it tells a lower max
        ({"ours": 30}, Word(50, None, NOW - 11 * SECOND, 0), 0),
        ({"ours": 30, "others": 40}, Word(50, None, NOW - 11 * SECOND, 0), 40),
        ({"ours": 30}, Word(20, 60, NOW - 11 * SECOND, 0), 40),
    ],
)
def test_what_others_take(state: dict[str, int], word: Word, others: int) -> None:
    """It moves into what is certain by as little as possible, and the answer's change is what was returned."""
    window, estimate = window_with(**state)
    change = estimate.hear(word, NOW)
    assert (window.others, change) == (others, others - state.get("others", 0))


def test_what_came_back_in_time_was_ours() -> None:
    """The upstream has freed what we sent a period ago, and we keep it J longer: it isn't free twice."""
    window, estimate = window_with(ours=30, others=40)
    now = NOW - 2 * SECOND + PER + JITTER // 2 - window.kept + PER
    estimate.hear(Word(50, None, now, 0), now)
    assert window.others == 40


def test_an_estimate_ends_a_period_after_its_last_word() -> None:
    """Whatever reset was told; it is forgotten once."""
    window, estimate = window_with(ours=0)
    estimate.hear(Word(80, None, NOW, 0), NOW)
    ends_at = NOW + window.kept + JITTER
    assert (window.others, estimate.ends_at()) == (20, ends_at)
    assert not estimate.expire(ends_at - 1, out=False, slow=False)
    assert estimate.expire(ends_at, out=False, slow=False)
    assert window.others == 0
    assert not estimate.expire(ends_at + PER, out=False, slow=False)


@pytest.mark.parametrize("told", [False, True])
def test_of_long_calls_an_estimate_shrinks(told: bool) -> None:
    """By twice as much each period, whether such calls are on their way or were answered too late to say anything."""
    window, estimate = window_with(ours=0, others=40)
    estimate.hear(Word(60, None, NOW, 0), NOW)
    amounts = []
    for _ in range(6):
        now = estimate.ends_at()
        if told:
            estimate.hear(Word(60, None, now - 11 * SECOND, 0), now)
        assert not estimate.expire(now, out=False, slow=not told)
        amounts.append(window.others)
    assert amounts == [39, 37, 33, 25, 9, 0]


def test_a_lower_limit_of_long_calls_holds_while_it_is_told() -> None:
    """The estimate shrinks to what the upstream doesn't allow, and no further until nobody says so any more."""
    window, estimate = window_with(ours=0)
    for _ in range(5):
        now = max(NOW, min(estimate.ends_at(), NOW + 100 * SECOND))
        estimate.hear(Word(10, 60, now - 11 * SECOND, 0), now)
        estimate.expire(now, out=False, slow=False)
        assert (window.others, estimate.lower) == (40, 60)
    while window.others:
        estimate.expire(estimate.ends_at(), out=False, slow=False)
    assert estimate.lower is None
