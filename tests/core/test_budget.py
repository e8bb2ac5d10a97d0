"""What a key may spend: when each slot comes back, and that all limits are taken together or none is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.bucket import FAR, PACER_MARGIN
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.model import Counts, Kind, Limit
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.core.window import Window
from apiflux_grpc.testing.fakes import FakePacer
from tests.core.building import JITTER, KEPT, PER, Gatekeepers, budget_of, frees_at, permit_of, take


def test_what_is_taken_has_no_end() -> None:
    """A permit whose call wasn't sent yet holds its slot for as long as that takes."""
    budget = budget_of(Limit(1, PER))
    take(budget)
    assert budget.next_change() == FAR
    budget.advance(1 << 61)
    assert budget.try_take(1, 1 << 61) == FAR


@pytest.mark.parametrize("sent", [0, 7, 30 * SECOND])
def test_what_is_sent_ends_a_window_after_it_arrived_at_the_latest(sent: int) -> None:
    """A call that was sent and hangs holds its slot until sent + J + per, and then no longer."""
    budget = budget_of(Limit(1, PER))
    end = budget.sent(take(budget), sent)
    assert end == sent + JITTER + KEPT
    assert frees_at(budget) == end


@pytest.mark.parametrize(
    ("answered", "instant"),
    [
        (0, 0),  # at once
        (10 * MILLISECOND, 10 * MILLISECOND),
        (JITTER - 1, JITTER - 1),
        (JITTER, JITTER),
        (JITTER + 1, JITTER),  # it had arrived by then
        (60 * SECOND, JITTER),
    ],
)
def test_the_slot_of_an_answered_call(answered: int, instant: int) -> None:
    """A slot ends at min(answered, sent + J) + per, so an answer later than J changes nothing."""
    sent = 3 * SECOND
    budget = budget_of(Limit(1, PER))
    permit = take(budget)
    budget.sent(permit, sent)
    budget.answered(permit, sent + answered)
    assert [*budget.windows[0].ends()] == [(sent + instant + KEPT, 1)]
    assert frees_at(budget) == sent + instant + KEPT


@pytest.mark.parametrize("looked", [1, 10 * MILLISECOND, JITTER - 1])
def test_a_look_before_j_has_passed_changes_nothing(looked: int) -> None:
    """A call on its way isn't counted as arrived before it must have: its answer still tells when it did."""
    budget = budget_of(Limit(1, PER))
    permit = take(budget)
    budget.sent(permit, 0)
    budget.advance(looked)
    budget.answered(permit, looked)
    assert [*budget.windows[0].ends()] == [(looked + KEPT, 1)]


@pytest.mark.parametrize("apart", [0, 1, PER // 128, PER // 128 + 1])
def test_calls_that_hang_end_with_the_last_that_was_sent_with_them(apart: int) -> None:
    """Those sent within a 128th of the window are one flight, and it ends for all when it may for the last."""
    budget = budget_of(Limit(2, PER))
    for permit, at in ((take(budget), 0), (take(budget), apart)):
        budget.sent(permit, at)
    budget.advance(apart + JITTER)
    together = [(apart + JITTER + KEPT, 2)]
    assert [*budget.windows[0].ends()] == (
        together if apart <= PER // 128 else [(JITTER + KEPT, 1), (apart + JITTER + KEPT, 1)]
    )


def test_an_answer_after_the_slot_came_back_changes_nothing() -> None:
    """A hanging call that answers at last neither frees a slot twice nor takes one again."""
    budget = budget_of(Limit(1, PER))
    hanging = take(budget)
    budget.sent(hanging, 0)
    budget.advance(JITTER + KEPT)
    take(budget, now=JITTER + KEPT)
    assert budget.answered(hanging, 2 * SECOND) == FAR
    assert budget.try_take(1, 2 * SECOND) == FAR
    assert budget.next_change() == FAR


def test_what_was_not_sent_is_given_back_at_once() -> None:
    """A call that certainly didn't reach the upstream costs nothing, in calls and in cost."""
    budget = budget_of(Limit(1, PER), Limit(7, PER, Counts.COST))
    take(budget, 7)
    assert budget.try_take(1, 0) == FAR
    budget.give_back(7)
    assert budget.try_take(7, 0) == 0


def test_calls_sent_together_hang_together_and_leave_one_by_one() -> None:
    """Of calls sent at one instant, the answered ones end by their answers and the others at J."""
    budget = budget_of(Limit(3, PER))
    first, second, third = (take(budget) for _ in range(3))
    for permit in (first, second, third):
        budget.sent(permit, 0)
    budget.answered(first, 20 * MILLISECOND)
    budget.answered(second, 100 * MILLISECOND)
    budget.advance(JITTER)
    ends = [20 * MILLISECOND + KEPT, 100 * MILLISECOND + KEPT, JITTER + KEPT]
    assert [*budget.windows[0].ends()] == [(end, 1) for end in ends]
    assert third.flight is not None
    assert third.flight.gone


def test_without_jitter_a_call_arrives_when_it_is_sent() -> None:
    """J of 0: the answer's time doesn't matter."""
    budget = budget_of(Limit(1, PER), jitter=0)
    permit = take(budget)
    budget.sent(permit, 5)
    budget.answered(permit, 5 + SECOND // 2)
    assert frees_at(budget) == 5 + KEPT


def test_a_key_without_limits_never_waits() -> None:
    """Nothing is counted where nothing limits."""
    budget = budget_of()
    permits = [take(budget) for _ in range(1000)]
    assert budget.rank() == (1.0, FAR)
    assert budget.sent(permits[0], 0) == FAR
    assert budget.answered(permits[0], 1) == FAR
    assert budget.next_change() == FAR


def test_a_bucket_is_not_a_window() -> None:
    """A limit of another kind is refused and not kept as if it were a window."""
    with pytest.raises(ValueError, match="pacer"):
        budget_of(Limit(5, SECOND, kind=Kind.BUCKET))


calls, cost = Counts.CALLS, Counts.COST


@pytest.mark.parametrize("full", range(3))
def test_all_limits_are_taken_or_none(full: int) -> None:
    """Where one limit has no room, no other is charged, whichever it is."""
    limits = [Limit(10, PER), Limit(10, 60 * PER), Limit(10, PER, cost)]
    limits[full] = Limit(2, limits[full].per, limits[full].counts)
    budget = budget_of(*limits)
    take(budget)
    take(budget)
    before = [window.used for window in (*budget.windows, *budget.cost_windows)]
    assert budget.try_take(1, 0) == FAR
    assert [window.used for window in (*budget.windows, *budget.cost_windows)] == before == [2, 2, 2]


def test_a_cost_that_does_not_fit_takes_nothing_and_a_smaller_one_may() -> None:
    """Costs are weighed against what is free, to the last unit."""
    budget = budget_of(Limit(10, PER), Limit(10, PER, cost))
    take(budget, 6)
    assert budget.try_take(5, 0) == FAR
    assert budget.windows[0].used == 1
    assert budget.try_take(4, 0) == 0
    assert budget.rank() == (0.0, 0)


def test_each_limit_ends_by_its_own_length() -> None:
    """One call comes back to the short window first and to the long one later."""
    budget = budget_of(Limit(5, SECOND), Limit(5, 60 * SECOND), Limit(50, 10 * SECOND, cost))
    permit = take(budget, 30)
    budget.sent(permit, 0)
    budget.answered(permit, 0)
    used = []
    for at in (0, 2 * SECOND, 11 * SECOND, 61 * SECOND):
        budget.advance(at)
        used.append([window.used for window in (*budget.windows, *budget.cost_windows)])
    assert used == [[1, 1, 30], [0, 1, 30], [0, 1, 0], [0, 0, 0]]


def test_the_rank_is_of_the_tightest_limit() -> None:
    """Headroom is the least free share and the calls are what fits into every limit, each by itself."""
    budget = budget_of(Limit(10, SECOND), Limit(100, 60 * SECOND), Limit(30, SECOND, cost))
    assert budget.rank() == (1.0, 10)
    take(budget, 3)
    assert budget.rank() == (0.9, 9)
    take(budget, 24)
    assert budget.rank() == (0.1, 3)


def test_pacers_are_made_of_burst_and_rate() -> None:
    """A pacer lets the burst pass and refills a hair faster than its limit, so that the window binds."""
    pacers = Gatekeepers()
    Budget((Limit(100, 10 * SECOND), Limit(600, 60 * SECOND, burst=30)), JITTER, pacers)
    assert [made.burst for made in pacers.made] == [100, 30]
    assert [made.burst / made.seconds for made in pacers.made] == pytest.approx([10 * PACER_MARGIN] * 2)


def test_each_pacer_is_asked_and_charged_in_its_own_kind() -> None:
    """Calls are charged to the pacers of calls, and cost to those of cost."""
    pacers = Gatekeepers()
    budget = Budget((Limit(10, PER), Limit(90, PER, cost)), JITTER, pacers)
    take(budget, 40)
    assert [made.taken for made in pacers.made] == [[1], [40]]


@pytest.mark.parametrize("slow", [0, 1])
def test_a_pacer_that_has_no_room_delays_and_nothing_is_charged(slow: int) -> None:
    """The answer is the instant of the slowest pacer; no window and no other pacer is touched."""
    pacers = Gatekeepers()
    budget = Budget((Limit(10, PER), Limit(90, PER, cost)), JITTER, pacers)
    pacers.made[slow].ready = 5 * MILLISECOND
    pacers.made[1 - slow].ready = 2 * MILLISECOND
    assert budget.try_take(3, 0) == 5 * MILLISECOND
    assert budget.try_take(3, 5 * MILLISECOND - 1) == 5 * MILLISECOND
    assert [made.taken for made in pacers.made] == [[], []]
    assert budget.windows[0].used == budget.cost_windows[0].used == 0
    assert budget.try_take(3, 5 * MILLISECOND) == 0


@pytest.mark.parametrize("counts", [calls, cost])
def test_a_full_window_does_not_ask_its_pacers(counts: Counts) -> None:
    """Where a window is full the pacers are left alone, since nothing can be given back to them."""
    pacers = Gatekeepers()
    budget = Budget((Limit(9, PER), Limit(9, PER, cost), Limit(1, PER, counts)), JITTER, pacers)
    take(budget)
    asked = [len(made.asked) for made in pacers.made]
    assert budget.try_take(1, 0) == FAR
    assert [len(made.asked) for made in pacers.made] == asked
    assert [made.taken for made in pacers.made] == [[1], [1], [1]]


@pytest.mark.parametrize("answered", [10 * MILLISECOND, SECOND // 2, 3 * SECOND])
def test_an_overrun_is_paid_off_by_waiting(answered: int) -> None:
    """Declared 10, really 250 of 100: nothing goes until all of it has ended, and then everything is there again."""
    budget = budget_of(Limit(100, PER, cost))
    permit = take(budget, 10)
    budget.sent(permit, 0)
    budget.advance(answered)
    budget.answered(permit, answered, 250)
    late = answered >= 2 * SECOND  # its slot had come back: the debt is of the overrun alone, from now
    (window,) = budget.cost_windows
    assert window.free == (100 - 240 if late else 100 - 250)
    end = budget.next_change()
    budget.advance(end - 1)
    assert budget.try_take(1, end - 1) == FAR
    budget.advance(end)
    assert (window.free, budget.next_change()) == (100, FAR)


@settings(max_examples=200, print_blob=True)
@given(
    st.lists(
        st.tuples(st.integers(0, SECOND), st.integers(1, 20), st.integers(0, 60), st.integers(0, 2 * SECOND)),
        min_size=1,
        max_size=60,
    )
)
def test_with_overruns_no_call_goes_while_what_is_known_fills_the_window(
    steps: list[tuple[int, int, int, int]],
) -> None:
    """What is known when a call is taken, and the call as declared, never exceed the limit."""
    budget = budget_of(Limit(60, PER, cost))
    now = 0
    known: list[list[int]] = []  # [arrived at the latest, cost as known now]
    answers: list[tuple[int, Permit, int, list[int]]] = []
    for wait, declared, actual, latency in steps:
        now += wait
        while answers and answers[0][0] <= now:
            at, permit, real, entry = answers.pop(0)
            budget.advance(at)
            budget.answered(permit, at, real)
            entry[:] = [min(entry[0], at), real]
        budget.advance(now)
        if budget.try_take(declared, now) == 0:
            assert sum(amount for at, amount in known if at > now - PER) + declared <= 60
            permit = permit_of(budget, declared)
            budget.sent(permit, now)
            known.append([now + JITTER, declared])
            answers.append((now + latency, permit, actual, known[-1]))
            answers.sort(key=lambda one: one[0])


def test_calls_that_take_less_than_they_declare_use_the_window_in_full() -> None:
    """Declared twice what they take, calls are as many as the limit has room for, not half of that."""
    budget = Budget((Limit(100, SECOND, Counts.COST),), 0, FakePacer)
    taken = 0
    for now in range(0, 10 * SECOND, MILLISECOND):
        budget.advance(now)
        if budget.try_take(20, now) == 0:
            permit = permit_of(budget, 20)
            budget.sent(permit, now)
            budget.answered(permit, now, 10)
            taken += 1
    # Ten a second; a window is full when what is declared doesn't fit any more, so one of them may be missing.
    assert 9 * 10 <= taken <= 10 * 10


steps = st.lists(
    st.tuples(st.sampled_from(["take", "send", "answer", "back", "look"]), st.integers(0, 400 * MILLISECOND)),
    max_size=80,
)


@settings(max_examples=200, print_blob=True)
@given(steps, st.sampled_from([0, 1, JITTER]), st.integers(1, 6))
def test_each_slot_is_held_for_exactly_as_long_as_it_must(steps: list[tuple[str, int]], jitter: int, most: int) -> None:
    """Whatever the order, the count is never below the naive one, and above it only by spans and drift."""
    budget = budget_of(Limit(most, PER), jitter=jitter)
    now = 0
    unsent: list[Permit] = []
    open_calls: list[tuple[Permit, int]] = []
    instants: list[int] = []  # of the answered
    for what, wait in steps:
        now += wait
        budget.advance(now)
        if what == "take" and budget.try_take(1, now) == 0:
            unsent.append(permit_of(budget))
        elif what == "send" and unsent:
            budget.sent(unsent[0], now)
            open_calls.append((unsent.pop(0), now))
        elif what == "answer" and open_calls:
            permit, sent = open_calls.pop()
            budget.answered(permit, now)
            instants.append(min(now, sent + jitter))
        elif what == "back" and unsent:
            budget.give_back(unsent.pop().cost)
        known = [*instants, *(sent + jitter for _, sent in open_calls)]
        late = 2 * (PER // 128) + PER // 10_000 + 1
        exact = len(unsent) + sum(at + PER > now for at in known)
        at_most = len(unsent) + sum(at + PER + late > now for at in known)
        budget.advance(now)
        assert exact <= budget.windows[0].used <= at_most


def test_a_cost_that_no_limit_counts_always_fits() -> None:
    """However large it is."""
    assert Budget((Limit(1, SECOND),), 0, None).fits(1 << 63, 0) == 0


def test_a_cut_comes_back_by_the_clock_though_nobody_asked() -> None:
    """A twentieth in each window without another refusal, however long nobody looked."""
    window = Window(100, SECOND)
    window.cut(0, 0)
    window.expire(7 * SECOND)
    assert window.max == 100
