"""Limits that change while a fleet is at work: no window is over those that hold, and nothing is lost but time.

Who changes is told by the rounds alone, so a change holds for all as soon as the store has heard of it, and what was
leased by then has arrived.
"""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.terms import BEAT, FAILOVER_LAG, LAPSE
from apiflux_grpc.core.lease.words import CALLS, COST, Cap
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.lease.fleet import Calls, Fleet
from tests.core.lease.judge import worst_window

J: Final = 50 * MILLISECOND
LATE: Final = 2 * J + 100 * MILLISECOND  # by then what was leased before a change has arrived
TEN: Final = Cap(SECOND, 10)
TWENTY: Final = Cap(SECOND, 20)


def fleet_of(replicas: int, *caps: Cap, want: int = 10_000, trust: bool = True, steady: bool = False) -> Fleet:
    fleet = Fleet(1, steady=steady)
    for number in range(replicas):
        fleet.add(caps, jitter=J, want=want, ppm=(number % 3 - 1) * 500, trust=trust)
    return fleet


def rate(fleet: Fleet, seconds: int, key: str = "key") -> float:
    """Arrivals a second from now on."""
    before = len(fleet.arrivals.get(key, ()))
    fleet.run(seconds * SECOND)
    return (len(fleet.arrivals.get(key, ())) - before) / seconds


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize(("before", "after"), [(TEN, TWENTY), (TWENTY, TEN), (TWENTY, Cap(SECOND, 1))])
def test_all_change_and_the_new_limit_is_used(before: Cap, after: Cap, replicas: int) -> None:
    """Up or down: from then on as much as it allows, and never more, whatever went before."""
    fleet = fleet_of(replicas, before)
    fleet.run(5 * SECOND + 370 * MILLISECOND)
    for replica in fleet.replicas:
        fleet.change(replica, [after])
    fleet.run(LATE)
    since = fleet.now
    assert rate(fleet, 5) >= 0.97 * after.max / (1 + (J + 50 * MILLISECOND) / SECOND) - after.max / 10
    assert worst_window(fleet.arrivals["key"], SECOND, since, 1 << 62, counts_all=True) <= after.max
    assert worst_window(fleet.arrivals["key"], SECOND, -1, 1 << 62) <= max(before.max, after.max)
    fleet.check()


def test_one_that_has_less_is_followed_by_all_and_one_that_has_more_by_none() -> None:
    """The lower of like limits holds: a raise waits for the last of them."""
    fleet = fleet_of(3, TEN)
    fleet.run(5 * SECOND)
    fleet.change(fleet.replicas[0], [Cap(SECOND, 4)])
    fleet.run(2 * SECOND)
    assert rate(fleet, 5) <= 4
    assert [one.cap for one in fleet.replicas[1].ledgers["key"].lower] == [Cap(SECOND, 4)]
    for replica in fleet.replicas[1:]:
        fleet.change(replica, [TWENTY])
        fleet.run(2 * SECOND)
        assert rate(fleet, 5) <= 4
    fleet.change(fleet.replicas[0], [TWENTY])
    fleet.run(2 * SECOND)
    assert rate(fleet, 5) >= 16
    fleet.check()


@pytest.mark.parametrize("is_heard_before", [True, False])
def test_who_was_silent_for_a_lapse_has_its_change_hold_at_once(is_heard_before: bool) -> None:
    """Its limit would have held until its length after the lapse, had it left; but it says itself what holds."""
    low, high = Cap(5 * SECOND, 5), Cap(5 * SECOND, 50)
    fleet = fleet_of(1, high)
    idle = fleet.add([low], jitter=J, ppm=-500)
    fleet.run(15 * SECOND)  # it is heard once in a lapse by its own clock, which is slow
    idle.cut_off = not is_heard_before
    fleet.run(6 * SECOND)
    assert any(one.until < fleet.now < one.until + low.per for one in fleet.promises if one.caps == (low,))
    held = fleet.store.entries["key"].members[idle.ledgers["key"].incarnation]
    assert (held.seen + LAPSE > fleet.store.entries["key"].last) == is_heard_before
    fleet.change(idle, [high])
    idle.cut_off = False
    fleet.run(LATE)
    assert fleet.store.entries["key"].caps(fleet.store.entries["key"].last) == {high.like: high}
    assert rate(fleet, 2) >= 15
    fleet.check()


def test_what_is_leased_when_a_limit_is_lowered_goes_back() -> None:
    """A replica that has leased all of ten sends none of it once it has less: others have used what it may now."""
    fleet = fleet_of(1, TEN, want=0)
    fleet.run(3 * SECOND)
    fleet.calls = Calls(write=(0, 0), answer=(SECOND, SECOND))
    (replica,) = fleet.replicas
    ledger = replica.ledgers["key"]
    round = ledger.next_round(replica.clock(fleet.now), 10)
    assert round is not None
    ledger.heard(fleet.store.serve(round), replica.clock(fleet.now))
    assert ledger.room(replica.clock(fleet.now)).calls == 10
    fleet.change(replica, [Cap(SECOND, 3)])
    assert not any(ledger.room(replica.clock(fleet.now)))
    fleet.demand(replica, 100)
    assert rate(fleet, 2) <= 3


def test_a_reply_that_was_asked_for_with_the_old_limits_grants_nothing() -> None:
    """It was on its way when they changed: what it brings goes back, and is asked for by the new ones."""
    fleet = fleet_of(1, TEN, want=0)
    fleet.run(3 * SECOND)
    (replica,) = fleet.replicas
    ledger, now = replica.ledgers["key"], replica.clock(fleet.now)
    round = ledger.next_round(now, 10)
    assert round is not None
    reply = fleet.store.serve(round)
    assert reply.granted.calls == 10
    ledger.change([Cap(SECOND, 3)], now)
    ledger.heard(reply, now)
    assert not any(ledger.room(now))
    following = ledger.next_round(now + ledger.life, 10)
    assert following is not None
    assert following.caps == (Cap(SECOND, 3),)
    assert following.held[0].returned.calls == 10


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([TEN], [Cap(2 * SECOND, 12)]),
        ([Cap(5 * SECOND, 30)], [TEN]),
        ([TEN], [TEN, Cap(5 * SECOND, 20)]),
        ([TEN, Cap(5 * SECOND, 20)], [TEN]),
        ([TEN], [Cap(SECOND, 10, CALLS, 5)]),
        ([Cap(SECOND, 10, CALLS, 5)], [TEN]),
        ([Cap(SECOND, 10, CALLS, 9)], [Cap(SECOND, 4, CALLS, 3)]),
        ([Cap(SECOND, 4, CALLS, 3)], [Cap(SECOND, 10, CALLS, 9)]),
        ([TEN], [TEN, Cap(SECOND, 30, COST)]),
        ([TEN, Cap(SECOND, 30, COST)], [Cap(SECOND, 20, COST)]),
        ([Cap(SECOND, 30, COST)], [TEN]),
    ],
)
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_change_to_other_limits_keeps_both(before: list[Cap], after: list[Cap], all_of_them: bool) -> None:
    """The old ones hold until their length after the change, the new ones from then on, of calls and of cost, windows
    and buckets; and all goes on."""
    fleet = fleet_of(3, *before)
    fleet.calls = Calls(cost=(1, 4), part=(0.3, 1))
    fleet.run(6 * SECOND)
    for replica in fleet.replicas if all_of_them else fleet.replicas[:1]:
        fleet.change(replica, after)
        fleet.run(150 * MILLISECOND)
    fleet.run(7 * SECOND)
    assert rate(fleet, 6) >= 2
    if all_of_them:
        assert all(replica.done for replica in fleet.replicas)
    fleet.check()


@pytest.mark.parametrize("forgets", [True, False])
def test_a_change_while_the_store_is_gone_is_told_when_it_is_back(forgets: bool) -> None:
    """Silent for longer than it is remembered: nothing is granted meanwhile, nothing freezes but by a flush."""
    fleet = fleet_of(2, TEN)
    fleet.run(5 * SECOND)
    away = fleet.replicas[0]
    away.cut_off = True
    fleet.run(SECOND)
    fleet.change(away, [Cap(2 * SECOND, 10)])
    fleet.run(2 * LAPSE + 5 * SECOND)
    if forgets:
        fleet.crash(fleet.replicas[1])
        fleet.store.flush()
        fleet.lost()
    away.cut_off = False
    fleet.run(5 * SECOND + (FAILOVER_LAG if forgets else 0))
    assert rate(fleet, 5) >= 4
    fleet.check()


@pytest.mark.parametrize("late", [True, False])
def test_what_calls_of_before_a_change_do_later_is_told_after_it(late: bool) -> None:
    """One is written after its lease has ended, or costs more than was known: both count, though another has left."""
    fleet = fleet_of(1, Cap(5 * SECOND, 40, COST), steady=True, want=0)
    fleet.run(3 * SECOND)
    (replica,) = fleet.replicas
    ledger = replica.ledgers["key"]

    def exchange() -> None:
        fleet.now += 2 * BEAT
        round = ledger.next_round(replica.clock(fleet.now), 1, 10)
        assert round is not None
        ledger.heard(fleet.store.serve(round), replica.clock(fleet.now))
        if ledger.forgotten:
            ledger.begin("another")

    exchange()
    assert ledger.fits(10, replica.clock(fleet.now)) == 0
    lent = ledger.take(10)
    flying = None if late else ledger.sent(lent, 10, replica.clock(fleet.now))
    ledger.change([Cap(60 * SECOND, 40, COST)], replica.clock(fleet.now))
    for _ in range(2):  # it leaves, and begins
        exchange()
    before = fleet.store.entries["key"].logs[60 * SECOND].used.cost
    if flying is None:
        flying = ledger.sent(lent, 10, replica.clock(fleet.now))
        assert ledger.debt == 1
    ledger.answered(flying, 10, replica.clock(fleet.now), 10 if late else 25)
    for _ in range(2):
        exchange()
    assert fleet.store.entries["key"].logs[60 * SECOND].used.cost - before == (10 if late else 15)


def test_what_was_spent_before_a_longer_window_came_is_not_vouched_for() -> None:
    """A replica that has had it for a minute doesn't know what it spent in eleven: if the store forgets, all of that
    is waited for."""
    long = Cap(660 * SECOND, 60)
    fleet = fleet_of(1, Cap(60 * SECOND, 30))
    fleet.run(30 * SECOND)
    assert len(fleet.arrivals["key"]) == 30
    fleet.change(fleet.replicas[0], [long])
    fleet.run(90 * SECOND)
    fleet.store.flush()
    fleet.lost()
    fleet.run(500 * SECOND)
    assert len(fleet.arrivals["key"]) == 30
    fleet.run(300 * SECOND)
    assert len(fleet.arrivals["key"]) == 90
    assert worst_window(fleet.arrivals["key"], long.per, -1, 1 << 62) <= 60


def test_an_empty_store_is_not_trusted_after_a_change() -> None:
    """It is another that begins, and it has spent."""
    ledger = Ledger("key", "one", [TEN], J, trust=True)
    store = Fleet(1, steady=True).store
    round = ledger.next_round(0, 5)
    assert round is not None
    ledger.heard(store.serve(round), 0)
    ledger.change([Cap(2 * SECOND, 10)], 1)
    for number in (1, 2):
        round = ledger.next_round(number * BEAT, 5)
        assert round is not None
        assert (round.leaves, round.trust) == (number == 1, False)
        ledger.heard(store.serve(round), number * BEAT)
        if ledger.forgotten:
            ledger.begin("another")


def test_no_limits_are_no_change() -> None:
    """Whoever has none needs no leases, and leaves."""
    with pytest.raises(ValueError, match="without limits"):
        Ledger("key", "one", [TEN], J).change([], 0)


def test_who_changes_to_leases_of_another_life_waits_for_the_others() -> None:
    """A lease's life follows from the shortest limit, and must be the same for all: until the last has changed, those
    that have are lent nothing, and say why; nobody is over a limit meanwhile."""
    before, after = Cap(60 * SECOND, 60), Cap(SECOND, 12)
    fleet = fleet_of(3, before)
    fleet.run(10 * SECOND)
    for replica in fleet.replicas[:2]:
        fleet.change(replica, [after])
    fleet.run(5 * SECOND)
    done = [replica.done for replica in fleet.replicas]
    assert "leases live 50 ms here, and 600 ms for others" in fleet.replicas[0].ledgers["key"].refusal
    fleet.run(70 * SECOND)
    more = [replica.done - so_far for replica, so_far in zip(fleet.replicas, done, strict=True)]
    assert more[:2] == [0, 0]
    assert more[2] > 0
    fleet.change(fleet.replicas[2], [after])
    fleet.run(70 * SECOND)  # by then the old limit has ended
    assert fleet.replicas[0].ledgers["key"].refusal == ""
    assert rate(fleet, 10) >= 9
    fleet.check()
