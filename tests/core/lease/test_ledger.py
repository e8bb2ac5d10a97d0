"""What one replica may spend, and what it tells of it."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.terms import BEAT, at_least, at_most, life_of
from apiflux_grpc.core.lease.words import NOTHING, Amounts, Cap, Group, Held, Reply
from apiflux_grpc.core.units import MILLISECOND, SECOND

MINUTE: Final = 60 * SECOND
J: Final = 250 * MILLISECOND
LIFE: Final = 600 * MILLISECOND


def lent(granted: int, *, asked: int = 0, heard: int = MILLISECOND, again: int = BEAT) -> Ledger:
    """A ledger that was granted so many calls."""
    ledger = Ledger("key", "a", [Cap(MINUTE, 10)], J)
    assert ledger.next_round(asked, granted) is not None
    ledger.heard(Reply(1, "epoch", 5 * MINUTE, Amounts(granted), again), heard)
    return ledger


@pytest.mark.parametrize(("per", "life"), [(SECOND, 50), (MINUTE, 600), (3600 * SECOND, 5000)])
def test_a_lease_lives_for_a_hundredth_of_the_shortest_window(per: int, life: int) -> None:
    """50 ms at the least, 5 s at the most."""
    assert life_of(per) == life * MILLISECOND


def test_a_budget_without_limits_is_refused() -> None:
    """Nothing of it needs to be shared."""
    with pytest.raises(ValueError, match="without limits"):
        Ledger("key", "a", [], J)


@pytest.mark.parametrize("resent", [False, True])
def test_a_lease_lives_from_before_its_first_request(resent: bool) -> None:
    """However late its reply comes, and however often it was asked for."""
    ledger = Ledger("key", "a", [Cap(MINUTE, 10)], J)
    assert ledger.next_round(0, 5) is not None
    if resent:
        ledger.again(LIFE // 2)
    ledger.heard(Reply(1, "epoch", 0, Amounts(5)), LIFE - 2 * MILLISECOND)
    assert ledger.fits(0, LIFE - 2 * MILLISECOND) == 0
    assert ledger.room(LIFE - 2 * MILLISECOND) == Amounts(5)
    assert ledger.fits(0, at_least(LIFE)) == FAR
    with pytest.raises(IndexError, match="no lease has room"):
        ledger.take()


def test_what_was_not_sent_of_a_lease_is_returned_when_it_ends() -> None:
    """Without what has a permit: that may go out yet, or be given back."""
    ledger = lent(5)
    taken = [ledger.take() for _ in range(3)]
    ledger.sent(taken[0], 0, MILLISECOND)
    ledger.give_back(taken[1], 0, 2 * MILLISECOND)
    round = ledger.next_round(BEAT, 0)
    assert round is not None
    landed = Group(1, 0, at_least(BEAT - MILLISECOND - at_most(J)))
    assert round.held == (Held(1, Amounts(1), Amounts(3), (landed,)),)
    assert round.floor == 5 * MINUTE + at_least(BEAT - MILLISECOND)


def test_a_call_lands_with_its_answer_or_when_its_j_is_past() -> None:
    """Once, whatever comes first."""
    ledger = lent(2)
    flying = [ledger.sent(ledger.take(), 0, at * MILLISECOND) for at in (2, 3)]
    ledger.answered(flying[0], 0, 10 * MILLISECOND)
    ledger.room(J)
    assert ledger.leases[0].left == Amounts(1)
    ledger.room(J + 10 * MILLISECOND)
    ledger.answered(flying[1], 0, J + 11 * MILLISECOND)
    round = ledger.next_round(BEAT, 0)
    assert round is not None
    (held,) = round.held
    assert (held.landed, held.returned) == (Amounts(2), NOTHING)
    assert held.groups == (Group(2, 0, at_least(BEAT - 3 * MILLISECOND - at_most(J))),)  # as old as the newest


def test_what_lands_while_a_round_is_under_way_is_told_by_the_next() -> None:
    """Nothing is acknowledged that wasn't told."""
    ledger = lent(2, again=0)
    flying = [ledger.sent(ledger.take(), 0, MILLISECOND) for _ in range(2)]
    ledger.answered(flying[0], 0, 2 * MILLISECOND)
    first = ledger.next_round(J // 2, 5)
    assert first is not None
    assert first.held[0].landed == Amounts(1)
    ledger.answered(flying[1], 0, J // 2 + 1)
    again = ledger.again(J // 2 + 2)
    assert again.held == first.held
    ledger.heard(Reply(2, "epoch", 6 * MINUTE), BEAT + 2)
    second = ledger.next_round(2 * BEAT + 3, 0)
    assert second is not None
    told = sum(group.calls for held in (*first.held, *second.held) for group in held.groups)
    assert told == 2
    ledger.heard(Reply(3, "epoch", 6 * MINUTE), 2 * BEAT + 4)
    assert ledger.leases == []


def test_a_reply_to_an_earlier_round_changes_nothing() -> None:
    """Its lease is another's by now, or was told already."""
    ledger = lent(2)
    assert ledger.next_round(BEAT, 5) is not None
    ledger.heard(Reply(1, "epoch", 0, Amounts(2)), BEAT + 1)
    assert ledger.under_way is not None
    assert len(ledger.leases) == 1


def test_what_goes_out_after_the_end_of_its_lease_is_a_debt() -> None:
    """A process that was stopped between its look at the clock and the write; it is told as landed all the same."""
    ledger = lent(1)
    one = ledger.take()
    ledger.sent(one, 0, one.until)
    assert ledger.debt == 1
    round = ledger.next_round(2 * BEAT, 0)
    assert round is not None
    assert round.held[0].landed == Amounts(1)


def test_a_debt_is_told_again_when_the_store_has_forgotten() -> None:
    """What a budget is frozen for is what was sent in time. Rules 6 and 8."""
    ledger = lent(2)
    late, given_up = ledger.take(), ledger.take()
    ledger.sent(late, 0, 3 * BEAT)
    ledger.room(4 * BEAT)
    assert ledger.next_round(4 * BEAT, 0) is not None
    ledger.heard(Reply(2, "another", MINUTE, opens=MINUTE), 4 * BEAT)
    ledger.give_back(given_up, 0, 4 * BEAT)
    round = ledger.next_round(5 * BEAT, 0)
    assert round is not None
    assert [(held.landed, held.late) for held in round.held] == [(Amounts(1), Amounts(1))]
    assert [group.calls for held in round.held for group in held.groups] == [1]
    ledger.heard(Reply(3, "another", MINUTE), 5 * BEAT)
    ledger.room(6 * BEAT)
    assert ledger.next_round(7 * BEAT, 0) is not None
    ledger.heard(Reply(4, "another", MINUTE), 7 * BEAT)
    assert ledger.leases == []


def test_leases_of_an_epoch_that_is_over_are_not_taken_any_more() -> None:
    """The store doesn't know them, and another may be granted what they are of."""
    ledger = lent(5)
    assert ledger.next_round(200 * MILLISECOND, 9) is None  # asking again is not worth it yet
    ledger = lent(5, again=0)
    now = 200 * MILLISECOND
    assert ledger.next_round(now, 9) is not None
    assert ledger.room(now) == Amounts(5)
    ledger.heard(Reply(2, "another", 0, NOTHING, 0, MINUTE), now)
    assert ledger.room(now) == NOTHING
    assert ledger.opens_at == now + MINUTE


def test_one_slow_reply_makes_nobody_slow() -> None:
    """A round trip is the shortest of the last four, and not known before; one that was asked again says nothing."""
    ledger = lent(1, heard=400 * MILLISECOND)
    trips = []
    for number in range(2, 7):
        now = number * 2 * BEAT
        round = ledger.next_round(now, 1)
        assert round is not None
        trips.append(round.round_trip)
        ledger.heard(Reply(number, "epoch", 0), now + 3 * MILLISECOND)
    assert trips == [0, 0, 0, 3 * MILLISECOND, 3 * MILLISECOND]
