"""The supervisor's decisions, on instants that a test hands in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.workers.supervision import (
    CUT_SHORT,
    ONE_WISH,
    TRIES,
    Action,
    Announce,
    Bounds,
    Kill,
    Start,
    Supervision,
    Terminate,
)
from apiflux_grpc.workers.words import Fault

BOUNDS = Bounds()
KILLED = -9


class Desk:
    """A Supervision and its clock, which is looked at as often as it wants to be. What it did is in `done`."""

    def __init__(self, count: int = 2) -> None:
        self.supervision = Supervision(count, BOUNDS)
        self.now = 7 * SECOND
        self.done: list[Action] = []
        self.beating: set[int] = set()
        self.look()

    def look(self) -> list[Action]:
        """What is done now."""
        self.supervision.at(self.now)
        return self._decided()

    def wait(self, span: int) -> list[Action]:
        """What is done within this span, at whose end it is looked at as well."""
        since, end = len(self.done), self.now + span
        while self.now < end and self.supervision.exit_code is None:
            assert self.supervision.wake_at is not None
            self.now = min(end, max(self.supervision.wake_at, self.now + 1))
            self.supervision.at(self.now)
            for number in self.beating:
                self.supervision.beat(number)
            self._decided()
        return self.done[since:]

    def serve(self, *numbers: int) -> list[Action]:
        """These serve now, and beat from now on."""
        self.supervision.at(self.now)
        for number in numbers:
            self.supervision.serves(number)
        self.beating.update(numbers)
        return self._decided()

    def end(self, number: int, code: int = KILLED, fault: Fault | None = None) -> list[Action]:
        """The process of this worker ended now."""
        self.beating.discard(number)
        self.supervision.at(self.now)
        if fault is not None:
            self.supervision.failed(number, fault)
        self.supervision.ended(number, code)
        return self._decided()

    def signal(self) -> list[Action]:
        self.supervision.at(self.now)
        self.supervision.signalled()
        return self._decided()

    def _decided(self) -> list[Action]:
        actions = self.supervision.decide()
        self.done += actions
        return actions

    @property
    def exit_code(self) -> int | None:
        return self.supervision.exit_code

    @property
    def outcome(self) -> tuple[int | None, str]:
        """The exit code, and why."""
        return self.supervision.exit_code, self.supervision.why


@pytest.fixture
def desk() -> Desk:
    """Two workers that serve."""
    desk = Desk()
    desk.serve(1, 2)
    return desk


def test_all_start_at_once_and_the_address_is_told_when_the_last_serves() -> None:
    """Once, whatever comes later."""
    desk = Desk(3)
    assert desk.done == [Start(1), Start(2), Start(3)]
    assert desk.serve(2, 1) == []
    assert desk.serve(3) == [Announce()]
    desk.end(2)
    desk.wait(BOUNDS.first_wait)
    assert desk.serve(2) == []


def test_what_keeps_one_from_starting_is_told_once_and_ends_all() -> None:
    """With the exit code and the words of that worker; the others are told to end, and their ends add nothing."""
    desk = Desk(3)
    desk.serve(1)
    assert desk.end(2, 2, Fault(2, "the state_dir is read-only")) == [Terminate(1), Terminate(3)]
    assert desk.exit_code is None
    desk.end(3, 2, Fault(2, "the state_dir is read-only"))
    desk.end(1, 0)
    assert desk.outcome == (2, "the state_dir is read-only")


@pytest.mark.parametrize(
    ("code", "how"), [(-9, "was killed by SIGKILL"), (1, "ended with exit code 1"), (-63, "was killed by signal 63")]
)
def test_one_that_dies_without_a_word_before_all_served_ends_all(code: int, how: str) -> None:
    """Exit code 1, and a line that says how it died."""
    desk = Desk()
    assert desk.end(2, code) == [Terminate(1)]
    desk.end(1, -15)
    assert desk.outcome == (1, f"worker 2 {how} before all served")


def test_one_that_ends_is_started_again(desk: Desk) -> None:
    """After the first wait and not sooner, under its own number, while the other goes on."""
    assert desk.end(2) == []
    assert desk.wait(BOUNDS.first_wait - 1) == []
    assert desk.wait(1) == [Start(2)]


def test_one_that_ends_again_and_again_waits_twice_as_long_each_time(desk: Desk) -> None:
    """Up to the longest wait; and one that lived begins anew."""
    waits = []
    for _ in range(12):
        desk.end(2)
        since = desk.now
        while not desk.wait(BOUNDS.first_wait):
            pass
        waits.append((desk.now - since) // MILLISECOND)
        desk.serve(2)
    assert waits[:4] == [100, 200, 400, 800]
    assert waits[-2:] == [30_000, 30_000]
    desk.wait(BOUNDS.lived)
    desk.end(2)
    assert desk.wait(BOUNDS.first_wait) == [Start(2)]


def test_one_that_did_not_live_long_enough_does_not_begin_anew(desk: Desk) -> None:
    """A nanosecond is missing."""
    desk.end(2)
    desk.wait(BOUNDS.first_wait)
    desk.serve(2)
    desk.wait(BOUNDS.lived - 1)
    desk.end(2)
    assert desk.wait(2 * BOUNDS.first_wait - 1) == []
    assert desk.wait(1) == [Start(2)]


def test_it_goes_on_as_long_as_one_works(desk: Desk) -> None:
    """However often another one fails."""
    for _ in range(3 * TRIES):
        desk.end(2, 1, Fault(1, "the disk is full"))
        desk.wait(BOUNDS.longest_wait)
    assert desk.exit_code is None


def test_all_is_given_up_when_none_works_and_each_failed_often(desk: Desk) -> None:
    """Exit code 1, with the last words; who started us can try again."""
    for _ in range(TRIES):
        for number in (1, 2):
            assert desk.exit_code is None
            desk.end(number, 1, Fault(1, "the disk is full"))
        desk.wait(BOUNDS.longest_wait)
    assert desk.outcome == (1, "no worker can start any more: the disk is full")


def test_a_silent_one_is_killed_and_started_again(desk: Desk) -> None:
    """When the bound is over and not before: it may hold what all need."""
    desk.beating.discard(2)
    assert desk.wait(BOUNDS.silence - 1) == []
    (killed,) = desk.wait(1)
    assert killed == Kill(2, "did not answer for 10 s")
    assert desk.wait(BOUNDS.silence) == []  # once
    desk.end(2)
    assert desk.wait(BOUNDS.first_wait) == [Start(2)]


def test_one_that_never_serves_is_killed(desk: Desk) -> None:
    """It has longer than one that serves, and its beats don't count."""
    desk.end(2)
    desk.wait(BOUNDS.first_wait)
    desk.beating.add(2)
    assert desk.wait(BOUNDS.start - 1) == []
    assert desk.wait(1) == [Kill(2, "did not serve within 60 s")]


def test_time_in_which_the_supervisor_stood_still_does_not_count(desk: Desk) -> None:
    """It was stopped, or the machine was: nobody is killed for that, but for silence after it."""
    desk.beating.clear()
    desk.now += 3600 * SECOND
    assert desk.look() == []
    assert desk.wait(BOUNDS.silence - BOUNDS.silence // 10 - 1) == []
    assert [type(action) for action in desk.wait(1)] == [Kill, Kill]


def test_a_signal_drains_all_and_one_that_waits_is_not_started(desk: Desk) -> None:
    """0 when all ended as they should; one that was about to start again ends with a 0 as well."""
    desk.end(1)
    assert desk.signal() == [Terminate(2)]
    assert desk.wait(BOUNDS.first_wait) == []
    assert desk.exit_code is None
    desk.end(2, 0)
    assert desk.exit_code == 0


def test_a_signal_before_all_serve_is_a_clean_end() -> None:
    """Though SIGTERM meets an interpreter that doesn't listen to it yet."""
    desk = Desk()
    assert desk.signal() == [Terminate(1), Terminate(2)]
    desk.end(1, -15)
    desk.end(2, 0)
    assert desk.exit_code == 0


def test_a_drain_ends(desk: Desk) -> None:
    """One that doesn't is killed, which is a fault of ours; beats don't help."""
    desk.signal()
    desk.end(1, 0)
    assert desk.wait(BOUNDS.drain - 1) == []
    assert desk.wait(1) == [Kill(2, "did not end within 30 s")]
    desk.end(2)
    assert desk.outcome == (1, "")


def test_one_that_fails_while_it_drains_is_not_a_clean_end(desk: Desk) -> None:
    """Its exit code isn't lost among the others'."""
    desk.signal()
    desk.end(1, 1)
    desk.end(2, 0)
    assert desk.exit_code == 1


def test_a_second_signal_cuts(desk: Desk) -> None:
    """But not one that comes along with the first: `timeout` signals a process and its group."""
    desk.signal()
    desk.wait(ONE_WISH - 1)
    assert desk.signal() == []
    desk.wait(1)
    assert [type(action) for action in desk.signal()] == [Kill, Kill]
    assert desk.signal() == []
    desk.end(1)
    desk.end(2)
    assert desk.exit_code == CUT_SHORT


@given(st.data())
def test_whatever_happens_it_ends_when_it_is_told(data: st.DataObject) -> None:
    """No worker runs twice or is forgotten, and after a signal all are gone in bounded time."""
    count = data.draw(st.integers(1, 3))
    desk = Desk(count)
    running = {action.number for action in desk.done if isinstance(action, Start)}

    def see(actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(number):
                    assert number not in running
                    running.add(number)
                case Terminate(number) | Kill(number):
                    assert number in running

    for _ in range(data.draw(st.integers(0, 30))):
        if desk.exit_code is not None:
            break
        match data.draw(st.sampled_from(["serve", "end", "fail", "wait", "pause", "signal"])):
            case "serve" if running:
                see(desk.serve(data.draw(st.sampled_from(sorted(running)))))
            case "end" | "fail" as how if running:
                number = data.draw(st.sampled_from(sorted(running)))
                running.discard(number)
                see(
                    desk.end(
                        number, data.draw(st.sampled_from([0, 1, -9, -15])), Fault(2, "x") if how == "fail" else None
                    )
                )
            case "wait":
                see(desk.wait(data.draw(st.integers(1, 100)) * SECOND))
            case "pause":
                desk.now += data.draw(st.integers(1, 100)) * SECOND
                see(desk.look())
            case "signal":
                see(desk.signal())
    if desk.exit_code is None:
        see(desk.signal())
    see(desk.wait(BOUNDS.drain))
    for number in sorted(running):  # each was told to end, and killed if it didn't
        running.discard(number)
        see(desk.end(number))
    assert running == set()
    assert desk.exit_code is not None
