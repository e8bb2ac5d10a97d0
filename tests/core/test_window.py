"""The window against a naive log of every stamp, and its edges."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apiflux_grpc.core.window import GROUPS, Window

PER: Final = 1_000_000_000


def taken(window: Window, amount: int = 1) -> Window:
    """The window with `amount` taken from it."""
    window.used += amount
    return window


@pytest.mark.parametrize("per", [1, 100, 127, 128, 9_999, 10_000, PER, 86_400 * PER])
@pytest.mark.parametrize("instant", [0, 5, 1 << 60])
def test_a_slot_is_back_one_window_after_its_instant_and_not_before(per: int, instant: int) -> None:
    """Half-open: a slot is free exactly `per` and the drift margin after its instant, and not one ns earlier."""
    window = taken(Window(1, per))
    end = window.record(instant, 1)
    assert end == window.next_end == instant + per + per // 10_000 + 1
    window.expire(end - 1)
    assert window.free == 0
    window.expire(end)
    assert window.free == 1
    assert window.next_end is None


def test_what_is_taken_has_no_end_of_its_own() -> None:
    """A slot without an instant never comes back by time alone."""
    window = taken(Window(3, PER), 2)
    window.expire(1 << 62)
    assert window.free == 1
    assert window.next_end is None


def test_a_group_ends_with_its_last_member() -> None:
    """Instants within a 128th of the window come back together, when the last of them may."""
    window = taken(Window(10, PER), 3)
    window.record(0, 1)
    window.record(PER // GROUPS, 1)
    window.record(PER // GROUPS + 1, 1)
    assert [*window.ends()] == [(PER // GROUPS + window.kept, 2), (PER // GROUPS + 1 + window.kept, 1)]


@pytest.mark.parametrize("late", [0, 1, PER // 2, PER, 10 * PER])
def test_an_instant_that_comes_late_frees_nothing_early(late: int) -> None:
    """An instant before those already in the log waits with the newest of them."""
    window = taken(Window(2, PER), 2)
    newest = 20 * PER
    window.record(newest, 1)
    window.record(newest - late, 1)
    window.expire(newest + window.kept - 1)
    assert window.free == 0
    window.expire(newest + window.kept)
    assert window.free == 2


def test_amounts_come_back_whole() -> None:
    """A cost is one amount: it comes back at one instant, and a debt below 0 is paid off the same way."""
    window = taken(Window(10, PER), 14)
    assert window.free == -4
    window.record(0, 14)
    window.expire(window.kept)
    assert window.free == 10


def test_a_large_limit_keeps_a_small_log() -> None:
    """A million slots, recorded one by one, are a hundred groups and come back to the last one."""
    window = taken(Window(1_000_000, PER), 1_000_000)
    for instant in range(0, PER, PER // 1_000_000):
        window.record(instant, 1)
    assert window.free == 0
    assert len([*window.ends()]) <= GROUPS
    window.expire(PER + window.kept)
    assert window.free == 1_000_000


@pytest.mark.parametrize("per", [100, 128, PER, 86_400 * PER])
def test_the_log_is_bounded_whatever_the_instants(per: int) -> None:
    """The log never has more than 130 groups: here the first is as wide and the others as close as can be."""
    window = Window(1_000_000, per)
    window.record(0, 1)
    window.record(window.span, 1)
    now = window.span + 1
    most = 0
    while now < 3 * per:
        window.expire(now)
        window.record(now, 1)
        most = max(most, len([*window.ends()]))
        now += window.span + 1
    assert most <= GROUPS + 2


# -- cuts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "left"), [(100, 70), (10, 7), (3, 2), (2, 1), (1, 1)])
def test_a_cut_leaves_seven_tenths_and_one_at_least(most: int, left: int) -> None:
    """A limit is never cut down to nothing."""
    window = taken(Window(most, PER), 1)
    assert window.cut(5, 0)
    assert (window.max, window.nominal, window.free) == (left, most, left - 1)


@pytest.mark.parametrize(
    ("now", "taken_at", "again"),
    [
        (PER + 5, 4, False),  # it was on its way with the first
        (PER + 5, 5, False),
        (PER + 4, 6, False),  # within one window of the cut
        (PER + 5, 6, True),
    ],
)
def test_one_cut_per_window_and_for_calls_after_it_alone(now: int, taken_at: int, again: bool) -> None:
    """A burst of refusals is one cut, and calls from before it say nothing new."""
    window = Window(100, PER)
    window.cut(5, 0)
    assert window.cut(now, taken_at) == again
    assert window.max == (49 if again else 70)


def test_a_cut_comes_back_in_twentieths() -> None:
    """One step for each window without another refusal, whether that cut anything or not; never above what it was."""
    window = Window(100, PER)
    window.cut(0, 0)
    assert window.next_end == window.recover_at == window.kept
    seen = []
    for at in (window.kept - 1, window.kept):
        window.expire(at)
        seen.append(window.max)
    assert not window.cut(window.kept + 1, 0)  # an old call's refusal: no cut, but the wait begins anew
    window.expire(2 * window.kept)
    assert [*seen, window.max] == [70, 75, 75]
    now, coming = window.kept + 1, []
    for _ in range(5):
        now = window.next_end
        window.expire(now)
        coming.append(window.max)
    assert coming == [80, 85, 90, 95, 100]
    assert now == 6 * window.kept + 1
    assert not [*window.ends()]


def test_a_small_limit_comes_back_by_ones() -> None:
    """A twentieth of little is one call."""
    window = Window(3, PER)
    window.cut(0, 0)
    window.expire(window.kept)
    assert window.max == 3


# -- corrected costs -----------------------------------------------------------------------------


@pytest.mark.parametrize("difference", [-30, -1, 0, 1, 200])
def test_a_correction_comes_back_with_its_entry(difference: int) -> None:
    """While the entry is in the log, what is corrected ends with it."""
    window = taken(Window(100, PER), 30)
    window.record(0, 30)
    window.correct(window.newest, PER // 2, difference)
    assert window.free == 70 - difference
    window.expire(window.kept)
    assert (window.free, [*window.ends()]) == (100, [])


@pytest.mark.parametrize(("difference", "used"), [(-30, 0), (0, 0), (50, 50), (150, 150)])
@pytest.mark.parametrize("others", [0, 7])
def test_a_correction_of_what_has_ended(difference: int, used: int, others: int) -> None:
    """An overrun is debt from now on, paid off by waiting; nothing is given back twice."""
    window = taken(Window(100, PER), 30)
    window.record(0, 30)
    entry = window.newest
    now = window.kept
    window.expire(now)
    if others:
        taken(window, others).record(now, others)
    window.correct(entry, now, difference)
    assert window.used == used + others
    window.expire(now + window.kept - 1)
    assert window.used == used + others
    window.expire(now + window.kept)
    assert window.used == 0


# -- the heir ------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 10, 50])
def test_an_heir_of_the_same_length_knows_every_slot(most: int) -> None:
    """What was spent ends when it would have; what is on its way counts and ends when it is recorded."""
    window = taken(Window(10, PER), 7)
    window.record(0, 2)
    window.record(PER // 2, 3)
    heir = window.heir(most, PER, PER // 2, pending=2)
    assert heir.free == most - 7
    assert [*heir.ends()] == [*window.ends()]
    heir.expire(heir.kept)
    assert heir.free == most - 5
    heir.record(PER, 2)
    heir.expire(PER + heir.kept)
    assert heir.free == most


@pytest.mark.parametrize("at", [0, PER // 20, PER // 5])
def test_an_heir_of_a_shorter_window_forgets_what_it_need_not_know(at: int) -> None:
    """Slots that ended by the new length are free."""
    window = taken(Window(10, PER), 4)
    window.record(0, 4)
    heir = window.heir(10, PER // 10, at, pending=0)
    assert heir.used == (0 if at == PER // 5 else 4)
    heir.expire(heir.kept)
    assert heir.used == 0


@pytest.mark.parametrize(("spent", "pending"), [(0, 0), (4, 0), (4, 3), (100, 0)])
def test_an_heir_of_a_longer_window_counts_what_it_cannot_know_as_spent(spent: int, pending: int) -> None:
    """Before the old window anything may have happened; that ends when the last of it must have."""
    window = taken(Window(100, PER), spent + pending)
    window.record(9 * PER, spent)
    now = 9 * PER + PER // 2
    heir = window.heir(50, 10 * PER, now, pending)
    assert heir.free == min(0, 50 - spent - pending)
    heir.expire(now - window.kept + heir.kept - 1)
    assert heir.free == min(0, 50 - spent - pending)
    heir.expire(now - window.kept + heir.kept)
    assert heir.free == 50 - spent - pending
    heir.expire(9 * PER + heir.kept)
    assert heir.used == pending


@settings(print_blob=True)
@given(
    st.lists(st.tuples(st.integers(0, 2 * PER), st.booleans()), max_size=60),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([PER // 3, PER, 2 * PER, 20 * PER]),
    st.lists(st.integers(0, PER), max_size=60),
)
def test_no_window_of_a_changed_limit_is_overrun(
    before: list[tuple[int, bool]], old: int, new: int, per: int, after: list[int]
) -> None:
    """Whatever went out before and under whichever limit, a window with a call of the new one holds its max at most."""
    window = Window(old, PER)
    now, arrivals = 0, []
    for step, wants in before:
        now += step
        window.expire(now)
        if wants and window.free > 0:
            taken(window).record(now, 1)
            arrivals.append(now)
    window.expire(now)
    heir = window.heir(new, per, now, pending=0)
    for step in after:
        now += step
        heir.expire(now)
        if heir.free > 0:
            taken(heir).record(now, 1)
            arrivals.append(now)
            assert sum(1 for at in arrivals if at > now - per) <= new


class WindowMachine(RuleBasedStateMachine):
    """A window beside a list of every instant."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(1, PER)
        self.now = 0
        self.pending = 0
        self.newest = 0
        self.instants: list[tuple[int, int, int]] = []  # (instant, newest so far, amount)

    @initialize(most=st.integers(1, 30), per=st.sampled_from([1, 100, 128, 1_000_003, PER, 3_600 * PER]))
    def begin(self, most: int, per: int) -> None:
        self.window = Window(most, per)

    def used(self) -> int:
        """By the promise: every call counts for exactly `per` from its instant."""
        return self.pending + sum(amount for at, _, amount in self.instants if at + self.window.per > self.now)

    def used_at_most(self) -> int:
        """By what the window may be late: a group's span, the drift, and the order of what it is told."""
        late = self.window.span + self.window.per // 10_000 + 1
        return self.pending + sum(
            amount for _, newest, amount in self.instants if newest + self.window.per + late > self.now
        )

    @rule(
        thousandths=st.sampled_from([0, 1, 3, 7, 8, 9, 50, 300, 992, 999, 1000, 1001, 1010, 5000]),
        more=st.integers(-2, 2),
    )
    def wait(self, thousandths: int, more: int) -> None:
        self.now += max(0, self.window.per * thousandths // 1000 + more)
        self.window.expire(self.now)

    @precondition(lambda self: self.window.free > 0)
    @rule(share=st.integers(1, 30))
    def take(self, share: int) -> None:
        amount = min(share, self.window.free)
        assert self.used() + amount <= self.window.max
        taken(self.window, amount)
        self.pending += amount

    @precondition(lambda self: self.pending)
    @rule(share=st.integers(1, 30), late=st.sampled_from([0, 0, 0, 1, 500, 5000]))
    def record(self, share: int, late: int) -> None:
        amount = min(share, self.pending)
        instant = max(0, self.now - self.window.per * late // 1000)
        self.newest = max(self.newest, instant)
        self.window.record(instant, amount)
        self.pending -= amount
        self.instants.append((instant, self.newest, amount))

    @precondition(lambda self: self.pending)
    @rule()
    def give_back(self) -> None:
        taken(self.window, -1)
        self.pending -= 1

    @invariant()
    def is_safe_and_not_late(self) -> None:
        """It never allows what the list doesn't, and withholds nothing for longer than its rule says."""
        self.window.expire(self.now)
        assert self.used() <= self.window.max - self.window.free <= self.used_at_most()
        assert len([*self.window.ends()]) <= GROUPS + 1


TestWindowMachine: Any = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=100, stateful_step_count=40, print_blob=True)


@settings(print_blob=True)
@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, PER // 3), st.booleans()), min_size=1, max_size=200),
)
def test_no_window_holds_more_than_the_limit(most: int, steps: list[tuple[int, bool]]) -> None:
    """Whatever the times of asking, no half-open window holds more arrivals than the limit; and none is withheld for
    longer than the group's span and the drift allow."""
    window = Window(most, PER)
    arrivals: list[int] = []
    now = 0
    for step, wants in steps:
        now += step
        window.expire(now)
        naive = sum(1 for at in arrivals if now - at < PER)
        late = sum(1 for at in arrivals if now - at < window.kept + window.span)
        assert naive <= most - window.free <= late
        if wants and window.free > 0:
            taken(window).record(now, 1)
            arrivals.append(now)
    for place, at in enumerate(arrivals):
        assert sum(1 for other in arrivals[place:] if other - at < PER) <= most


TestWindowMachine.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
