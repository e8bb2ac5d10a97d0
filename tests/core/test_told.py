"""What an upstream has told of one owner's limits: what it holds back, and until when."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.model import Counts, Limit
from apiflux_grpc.core.told import LONGEST_WORD, Mark, Told
from apiflux_grpc.core.units import SECOND
from tests.core.building import budget_of, taken_at

SHORT: Final = Limit(10, SECOND)
LONG: Final = Limit(100, 60 * SECOND)


def test_hints_of_two_lengths_both_hold() -> None:
    """Each for as long as its own limit's period: the end of the short one doesn't end the long one."""
    budget = budget_of(SHORT, LONG, jitter=0)
    told = budget.listen(0)
    told.hear(0, Hint(4, None, 10, SECOND, None), 0, None, 0)
    told.hear(1, Hint(7, None, 100, 60 * SECOND, None), 0, None, 0)
    assert taken_at(budget, 0) == 4
    budget.advance(2 * SECOND)
    assert {window.others for window in budget.windows} == {0, 93}
    assert taken_at(budget, 2 * SECOND) == 3
    budget.advance(61 * SECOND)
    assert {window.others for window in budget.windows} == {0}


@pytest.mark.parametrize(
    ("hint", "limited", "wait", "held_until", "ends_at"),
    [
        # something is left: that many may go
        (Hint(3, 5 * SECOND, None, None, None, "a"), False, 0, 0, 5 * SECOND),
        (Hint(3, None, None, 7 * SECOND, None, "a"), False, 0, 0, 7 * SECOND),
        (Hint(3, None, None, None, None, "a"), False, 0, 0, LONGEST_WORD),
        # nothing is: until the reset, without one a second
        (Hint(0, 5 * SECOND, None, None, None, "a"), False, 5 * SECOND, 5 * SECOND, 5 * SECOND),
        (Hint(0, None, None, None, None, "a"), False, SECOND, SECOND, SECOND),
        # of a refusal its owner is blocked for, and then a call may go
        (Hint(0, 5 * SECOND, None, None, None, "a"), True, 0, 0, FAR),
    ],
)
def test_a_limit_that_is_not_configured(hint: Hint, limited: bool, wait: int, held_until: int, ends_at: int) -> None:
    """The newest word holds: how long nothing may go, and when it ends by itself."""
    told = Told([], 0, 0)
    mark = told.mark(1, 1, 1)
    told.ended(mark, answered=True)
    told.allow(hint, mark, 0, 0, limited=limited)
    assert (told.wait(1, 0), told.held_until(0), told.next_end()) == (wait, held_until, ends_at)


def test_no_more_is_taken_than_is_left_though_one_at_a_time() -> None:
    """Three are left of a limit that isn't configured: three go, the next waits for an answer, and goes alone."""
    told = Told([], 0, 0)
    first = told.mark(1, 1, 1)
    told.ended(first, answered=True)
    told.allow(Hint(3, 5 * SECOND, None, None, None, "a"), first, 0, 0, limited=False)
    marks: list[Mark] = []
    while told.wait(1, 0) == 0:
        marks.append(told.mark(1, len(marks) + 1, len(marks) + 1))
    assert len(marks) == 3
    assert told.wait(1, 0) == 5 * SECOND
    for mark in marks:
        assert told.ended(mark, answered=True)
    assert told.wait(1, 0) == 0


def test_an_older_word_says_nothing() -> None:
    """Calls overtake each other: what was left when an earlier call came isn't what is left now."""
    told = Told([], 0, 0)
    first, second = told.mark(1, 1, 1), told.mark(1, 2, 2)
    told.allow(Hint(0, 5 * SECOND, None, None, Counts.CALLS, "a"), second, 2, 0, limited=False)
    told.allow(Hint(9, 5 * SECOND, None, None, Counts.CALLS, "a"), first, 2, 0, limited=False)
    assert told.held_until(0) == 5 * SECOND
