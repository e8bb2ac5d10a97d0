"""The breaker: tables of what follows what, and a machine that compares it with a naive one.

The naive breaker keeps nothing but the log of what happened, and works out everything from it each time it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apiflux_grpc.core.breaker import STALE, Breaker, State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.units import SECOND

FIRST: Final = 10 * SECOND
LONGEST: Final = 60 * SECOND


def of_key() -> Breaker:
    return Breaker(1, FIRST, LONGEST)


def opened(now: int = 0) -> Breaker:
    breaker = of_key()
    assert breaker.failed(now, breaker.began(now))
    return breaker


# -- closed, and how it opens --------------------------------------------------------------------


def test_calls_go_while_it_is_closed() -> None:
    """A closed breaker makes nobody wait."""
    breaker = of_key()
    assert breaker.state is State.CLOSED
    assert breaker.ready_at(7) <= 7
    eras = [breaker.began(7) for _ in range(3)]
    assert not any(breaker.is_probe(era) for era in eras)
    assert breaker.ready_at(7) <= 7


def test_a_failure_opens_it_for_the_first_cool_down() -> None:
    """Nothing goes until the cool-down is over."""
    breaker = opened(now=5)
    assert breaker.state is State.OPEN
    assert breaker.ready_at(5) == 5 + FIRST
    assert breaker.ready_at(5 + FIRST) <= 5 + FIRST


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_only_a_whole_run_opens_it(threshold: int) -> None:
    """One failure fewer than the threshold changes nothing."""
    breaker = Breaker(threshold, FIRST, LONGEST)
    eras = [breaker.began(0) for _ in range(threshold)]
    assert [breaker.failed(now, era) for now, era in enumerate(eras)] == [False] * (threshold - 1) + [True]


def test_a_success_between_ends_the_run() -> None:
    """Failures count in a row only."""
    breaker = Breaker(3, FIRST, LONGEST)
    for _ in range(10):
        for _ in range(2):
            assert not breaker.failed(0, breaker.began(0))
        assert not breaker.succeeded(0, breaker.began(0))
    assert breaker.state is State.CLOSED


def test_a_call_without_a_word_on_health_leaves_the_run_as_it_is() -> None:
    """It neither ends the run nor adds to it."""
    breaker = Breaker(2, FIRST, LONGEST)
    assert not breaker.failed(0, breaker.began(0))
    assert not breaker.abandoned(0, breaker.began(0))
    assert breaker.failed(0, breaker.began(0))


# -- half-open -----------------------------------------------------------------------------------


def test_one_probe_at_a_time() -> None:
    """While the probe is out nothing else goes."""
    breaker = opened()
    probe = breaker.began(FIRST)
    assert breaker.is_probe(probe)
    assert breaker.state is State.HALF_OPEN
    assert breaker.ready_at(FIRST) == breaker.ready_at(100 * FIRST) == FAR
    assert breaker.began(FIRST) == STALE
    assert breaker.is_probe(probe)


def test_its_success_closes_the_breaker_and_resets_the_cool_down() -> None:
    """The next opening is as short as the first."""
    breaker = opened()
    assert breaker.failed(FIRST, breaker.began(FIRST))
    assert breaker.succeeded(3 * FIRST, breaker.began(3 * FIRST))
    assert breaker.state is State.CLOSED
    assert breaker.ready_at(3 * FIRST) <= 3 * FIRST
    assert breaker.failed(3 * FIRST, breaker.began(3 * FIRST))
    assert breaker.ready_at(3 * FIRST) == 4 * FIRST


def test_its_failure_doubles_the_cool_down_up_to_the_longest() -> None:
    """Each failed probe waits twice as long for the next, up to a bound."""
    breaker = opened()
    now, waits = 0, []
    for _ in range(6):
        waits.append(breaker.ready_at(now) - now)
        now = breaker.ready_at(now)
        assert breaker.failed(now, breaker.began(now))
    assert waits == [10 * SECOND, 20 * SECOND, 40 * SECOND, LONGEST, LONGEST, LONGEST]


def test_a_probe_that_failed_elsewhere_too_does_not_double_the_cool_down() -> None:
    """It says little, and others like it may follow; the next that fails here alone goes on as if it had not been."""
    breaker = opened()
    now, waits = 0, []
    for alone in (False, False, True, False, True):
        now = breaker.ready_at(now)
        assert breaker.failed(now, breaker.began(now), alone=alone)
        waits.append(breaker.ready_at(now) - now)
    assert waits == [10 * SECOND, 10 * SECOND, 20 * SECOND, 20 * SECOND, 40 * SECOND]


def test_a_cool_down_begins_when_the_probe_fails() -> None:
    """Not when the probe was sent."""
    breaker = opened()
    probe = breaker.began(FIRST)
    assert breaker.failed(FIRST + 30 * SECOND, probe)
    assert breaker.ready_at(FIRST + 30 * SECOND) == 3 * FIRST + 30 * SECOND


def test_one_failure_reopens_it_whatever_the_threshold() -> None:
    """A half-open breaker needs no run of failures."""
    breaker = Breaker(3, FIRST, LONGEST)
    for _ in range(3):
        breaker.failed(0, breaker.began(0))
    assert breaker.failed(FIRST, breaker.began(FIRST))
    assert breaker.succeeded(3 * FIRST, breaker.began(3 * FIRST))
    assert not breaker.failed(3 * FIRST, breaker.began(3 * FIRST))  # the run begins anew


def test_an_abandoned_probe_makes_way_for_another_at_once() -> None:
    """A probe that ended without a word doesn't keep others from trying."""
    breaker = opened()
    first = breaker.began(FIRST)
    assert breaker.abandoned(FIRST + 1, first)
    assert breaker.state is State.HALF_OPEN
    assert breaker.ready_at(FIRST + 1) <= FIRST + 1
    second = breaker.began(FIRST + 1)
    assert breaker.is_probe(second)
    assert not breaker.is_probe(first)
    assert breaker.failed(FIRST + 2, second)
    assert breaker.ready_at(FIRST + 2) == FIRST + 2 + 2 * FIRST  # it neither doubled nor reset the cool-down


# -- failures that are excused ---------------------------------------------------------------------


def test_a_run_of_which_one_is_excused_is_shorter() -> None:
    """It takes one more failure to open it."""
    breaker = Breaker(3, FIRST, LONGEST)
    for _ in range(2):
        breaker.failed(0, breaker.began(0))
    assert not breaker.excused(1)
    assert not breaker.failed(0, breaker.began(0))
    assert breaker.failed(0, breaker.began(0))


@pytest.mark.parametrize("probing", [False, True])
def test_it_closes_if_what_is_left_would_not_open_it(probing: bool) -> None:
    """At once, also while a probe is out, of which nothing is expected then; the next cool-down is the first."""
    breaker = Breaker(2, FIRST, LONGEST)
    for _ in range(2):
        breaker.failed(0, breaker.began(0))
    breaker.failed(FIRST, breaker.began(FIRST))
    probe = breaker.began(3 * FIRST) if probing else STALE
    assert not breaker.excused(1)
    assert breaker.excused(1)
    assert breaker.state is State.CLOSED
    assert breaker.ready_at(4 * FIRST) <= 4 * FIRST
    assert not breaker.failed(4 * FIRST, probe)
    assert breaker.failed(4 * FIRST, breaker.began(4 * FIRST))  # one stands
    assert breaker.ready_at(4 * FIRST) == 5 * FIRST
    assert not breaker.excused(0)


def test_what_another_process_found_is_not_excused() -> None:
    """Its failures aren't known here."""
    breaker = Breaker(2, FIRST, LONGEST)
    breaker.failed(0, breaker.began(0))
    breaker.opened(0, FIRST)
    breaker.failed(FIRST, breaker.began(FIRST))
    assert not breaker.excused(2)
    assert breaker.state is State.OPEN


def test_whether_a_call_has_succeeded_after_one_that_failed() -> None:
    """By its time, or because nothing has failed since."""
    breaker = Breaker(3, FIRST, LONGEST)
    breaker.failed(5, breaker.began(5))
    assert not breaker.has_worked_since(5)
    breaker.succeeded(7, breaker.began(6))
    assert breaker.has_worked_since(9)
    breaker.doubted()
    assert breaker.has_worked_since(6)
    assert not breaker.has_worked_since(7)


# -- calls that were in flight -------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1, 3, 50])
def test_fifty_calls_in_flight_are_one_rejection(threshold: int) -> None:
    """Results of calls that began before the last change count for nothing."""
    breaker = Breaker(threshold, FIRST, LONGEST)
    eras = [breaker.began(0) for _ in range(50)]
    assert sum(breaker.failed(now, era) for now, era in enumerate(eras)) == 1
    assert breaker.ready_at(50) == threshold - 1 + FIRST


@pytest.mark.parametrize("how", ["succeeded", "failed", "abandoned"])
@pytest.mark.parametrize("stage", ["open", "cooled down", "probing", "abandoned", "closed again", "open again"])
def test_the_result_of_an_earlier_call_changes_nothing(how: str, stage: str) -> None:
    """Whenever it comes, and whatever it is."""
    breaker = Breaker(2, FIRST, LONGEST)
    late = breaker.began(0)
    for _ in range(2):
        breaker.failed(0, breaker.began(0))
    now = 0 if stage == "open" else FIRST
    probe = STALE
    if stage not in ("open", "cooled down"):
        probe = breaker.began(now)
    if stage == "abandoned":
        breaker.abandoned(now, probe)
    if stage in ("closed again", "open again"):
        breaker.succeeded(now, probe)
    if stage == "open again":
        for _ in range(2):
            breaker.failed(now, breaker.began(now))
    before = (breaker.state, breaker.ready_at(now), breaker.is_probe(probe))
    assert not getattr(breaker, how)(now, late)
    assert (breaker.state, breaker.ready_at(now), breaker.is_probe(probe)) == before
    if stage == "closed again":
        assert not breaker.failed(now, breaker.began(now))  # it joined no run
        assert breaker.failed(now, breaker.began(now))


@pytest.mark.parametrize("how", ["succeeded", "failed", "abandoned"])
def test_a_probe_that_was_given_up_says_nothing_more(how: str) -> None:
    """Abandoned and replaced by another, its late result neither opens nor closes, nor ends the other."""
    breaker = opened()
    first = breaker.began(FIRST)
    breaker.abandoned(FIRST, first)
    second = breaker.began(FIRST)
    assert not getattr(breaker, how)(FIRST, first)
    assert breaker.is_probe(second)
    assert breaker.succeeded(FIRST, second)


@pytest.mark.parametrize("how", ["succeeded", "failed", "abandoned"])
@pytest.mark.parametrize("now", [0, FIRST - 1])
def test_a_call_that_goes_though_none_may_counts_for_nothing(how: str, now: int) -> None:
    """Its result belongs to no era."""
    breaker = opened()
    era = breaker.began(now)
    assert era == STALE
    assert not breaker.is_probe(era)
    assert not getattr(breaker, how)(now, era)
    assert breaker.state is State.OPEN
    assert breaker.ready_at(now) == FIRST


def test_all_at_one_instant() -> None:
    """Eras, not instants, tell calls before a change from calls after it: a clock may stand still."""
    breaker = Breaker(1, 1, 1)
    early = [breaker.began(5) for _ in range(3)]
    assert breaker.failed(5, early[0])
    probe = breaker.began(6)
    assert breaker.succeeded(6, probe)
    again = breaker.began(6)
    assert not breaker.failed(6, early[1])
    assert breaker.failed(6, again)
    assert not breaker.succeeded(6, early[2])
    assert breaker.state is State.OPEN


@pytest.mark.parametrize(("threshold", "first", "longest"), [(0, 1, 1), (1, 0, 1), (1, -1, 1), (1, 2, 1)])
def test_what_makes_no_breaker(threshold: int, first: int, longest: int) -> None:
    """A threshold or a cool-down that means nothing is refused."""
    with pytest.raises(ValueError, match="threshold"):
        Breaker(threshold, first, longest)


def test_its_repr_says_how_it_is() -> None:
    """State, probe and run, in one line."""
    breaker = opened()
    assert "open" in repr(breaker)
    breaker.began(FIRST)
    assert "half-open, a probe out" in repr(breaker)


# -- against a naive one -------------------------------------------------------------------------


@dataclass(eq=False)
class Attempt:
    era: int
    permitted: bool


@dataclass
class Naive:
    """Reads everything from the log. A change is an opening or a closing."""

    threshold: int
    first: int
    longest: int
    log: list[tuple[str, int, Attempt]] = field(default_factory=list)
    changes: list[tuple[str, int, int]] = field(default_factory=list)  # what, when, the length of the log then

    @property
    def closed(self) -> bool:
        return not self.changes or self.changes[-1][0] == "closing"

    def since_last_change(self) -> list[tuple[str, int, Attempt]]:
        return self.log[self.changes[-1][2] :] if self.changes else self.log

    def probes_out(self) -> list[Attempt]:
        if self.closed:
            return []
        recent = self.since_last_change()
        out = [attempt for what, _, attempt in recent if what == "began" and attempt.permitted]
        ended = [attempt for what, _, attempt in recent if what != "began"]
        return [attempt for attempt in out if attempt not in ended]

    def outage(self) -> list[tuple[str, int, int]]:
        """The openings since it was last closed."""
        openings: list[tuple[str, int, int]] = []
        for change in self.changes:
            openings = [] if change[0] == "closing" else [*openings, change]
        return openings

    def ready_at(self, now: int) -> int:
        if self.closed:
            return now
        if self.probes_out():
            return FAR
        openings = self.outage()
        return openings[-1][1] + min(self.first << (len(openings) - 1), self.longest)

    def counts(self, attempt: Attempt) -> bool:
        """Whether it was permitted and nothing changed since it began."""
        recent = self.since_last_change()
        return attempt.permitted and any(what == "began" and other is attempt for what, _, other in recent)

    def end(self, how: str, now: int, attempt: Attempt) -> bool:
        """Returns what the breaker's method of that name must return."""
        counts, closed = self.counts(attempt), self.closed
        self.log.append((how, now, attempt))
        if not counts:
            return False
        if how == "abandoned":
            return not closed
        if how == "succeeded":
            if not closed:
                self.changes.append(("closing", now, len(self.log)))
            return not closed
        run = 0
        for what, _, other in self.since_last_change():
            if self.counts(other):
                run = run + 1 if what == "failed" else 0 if what == "succeeded" else run
        if closed and run < self.threshold:
            return False
        self.changes.append(("opening", now, len(self.log)))
        return True


class BreakerMachine(RuleBasedStateMachine):
    """Any number of calls, begun and ended in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.flying: list[Attempt] = []

    @initialize(threshold=st.integers(1, 4), first=st.integers(1, 5), times=st.integers(1, 9))
    def start(self, threshold: int, first: int, times: int) -> None:
        self.naive = Naive(threshold, first, first * times)
        self.breaker = Breaker(threshold, first, first * times)

    @rule(step=st.integers(0, 12))
    def wait(self, step: int) -> None:
        self.now += step

    @rule()
    def wait_until_ready(self) -> None:
        ready = self.breaker.ready_at(self.now)
        if ready != FAR:
            self.now = max(self.now, ready)

    @rule(times=st.integers(1, 5))
    def begin(self, times: int) -> None:
        """Also when none may go."""
        for _ in range(times):
            permitted = self.naive.ready_at(self.now) <= self.now
            probe = permitted and not self.naive.closed
            attempt = Attempt(self.breaker.began(self.now), permitted)
            assert self.breaker.is_probe(attempt.era) == probe
            assert (attempt.era == STALE) == (not permitted)
            self.naive.log.append(("began", self.now, attempt))
            self.flying.append(attempt)

    @precondition(lambda self: self.flying)
    @rule(how=st.sampled_from(["succeeded", "failed", "failed", "abandoned"]), data=st.data())
    def end(self, how: str, data: st.DataObject) -> None:
        attempt = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        assert getattr(self.breaker, how)(self.now, attempt.era) == self.naive.end(how, self.now, attempt)

    @precondition(lambda self: self.naive.probes_out())
    @rule(how=st.sampled_from(["succeeded", "failed", "failed", "abandoned"]))
    def end_the_probe(self, how: str) -> None:
        (attempt,) = self.naive.probes_out()
        self.flying.remove(attempt)
        assert getattr(self.breaker, how)(self.now, attempt.era) == self.naive.end(how, self.now, attempt)

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "naive"):
            return
        ready, expected = self.breaker.ready_at(self.now), self.naive.ready_at(self.now)
        assert ready == expected or max(ready, expected) <= self.now
        assert (self.breaker.state is State.CLOSED) == self.naive.closed
        probed = not self.naive.closed and any(
            what == "began" and attempt.permitted for what, _, attempt in self.naive.since_last_change()
        )
        assert (self.breaker.state is State.HALF_OPEN) == probed


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, print_blob=True)
TestBreaker: Any = BreakerMachine.TestCase
TestBreaker.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
