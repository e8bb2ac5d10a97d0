"""Limits of cost: what calls cost is leased with them, corrected when it is known, and waited for together."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.lent import Flying, Lent
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.terms import BEAT, at_least, at_most
from apiflux_grpc.core.lease.words import COST, NOTHING, Amounts, Cap, Group, Held, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.lease.fleet import Calls, Fleet

MINUTE: Final = 60 * SECOND
J: Final = 250 * MILLISECOND
LIFE: Final = 600 * MILLISECOND
CAPS: Final = (Cap(MINUTE, 10), Cap(MINUTE, 100, COST))
FIRST: Final = Round("key", "a", 1, CAPS, LIFE, J, trust=True)
START: Final = 1_000_000 * SECOND


def lent(granted: Amounts) -> Ledger:
    """A ledger that was granted so much, a ms after its start."""
    ledger = Ledger("key", "a", CAPS, J)
    assert ledger.next_round(0, *granted) is not None
    ledger.heard(Reply(1, "epoch", 5 * MINUTE, granted), MILLISECOND)
    return ledger


def told(ledger: Ledger, now: int) -> Held:
    """What its next round says of its first lease."""
    round = ledger.next_round(now, 0)
    assert round is not None
    ledger.heard(Reply(round.number, "epoch", 5 * MINUTE), now)
    return round.held[0]


# -- the replica's side --------------------------------------------------------------------------


def test_a_call_fits_into_one_lease_by_its_cost() -> None:
    """Where no limit counts cost, by the calls alone."""
    ledger = lent(Amounts(5, 30))
    assert [ledger.fits(cost, MILLISECOND) for cost in (30, 31)] == [0, FAR]
    ledger.take(30)
    assert (ledger.fits(1, MILLISECOND), ledger.fits(0, MILLISECOND)) == (FAR, 0)
    plain = Ledger("key", "a", [Cap(MINUTE, 10)], J)
    round = plain.next_round(0, 5, 500)
    assert round is not None
    assert (round.want, round.least) == (Amounts(5), 0)
    plain.heard(Reply(1, "epoch", 5 * MINUTE, Amounts(5)), MILLISECOND)
    plain.sent(plain.take(100), 100, MILLISECOND)
    assert plain.room(MILLISECOND) == Amounts(4)


def test_what_is_too_little_for_a_call_goes_back_with_the_request() -> None:
    """Else several replicas could each hold a part of what one of them needs."""
    ledger = lent(Amounts(5, 30))
    assert ledger.fits(31, LIFE // 2) == FAR
    round = ledger.next_round(LIFE // 2, 2, 40)
    assert round is not None
    assert (round.want, round.least) == (Amounts(2, 40), 31)
    assert round.held == (Held(1, NOTHING, Amounts(5, 30)),)


def test_the_cost_of_a_call_stays_leased_until_it_is_known() -> None:
    """Then it lands as old as its call, and what it cost less is returned, however long the lease has ended."""
    ledger = lent(Amounts(2, 50))
    flying = ledger.sent(ledger.take(40), 40, 2 * MILLISECOND)
    held = told(ledger, 2 * BEAT)
    assert (held.landed, held.returned) == (Amounts(1, 0), Amounts(1, 10))
    ledger.answered(flying, 40, 20 * SECOND, 15)
    landed = Group(0, 15, at_least(20 * SECOND - 2 * MILLISECOND - at_most(J)))
    assert told(ledger, 20 * SECOND) == Held(1, Amounts(1, 15), Amounts(1, 35), (landed,))
    assert ledger.leases == []


def test_what_a_call_costs_less_may_be_taken_while_its_lease_lives() -> None:
    """By another call."""
    ledger = lent(Amounts(2, 50))
    flying = ledger.sent(ledger.take(40), 40, 2 * MILLISECOND)
    ledger.answered(flying, 40, 100 * MILLISECOND, 15)
    assert ledger.room(100 * MILLISECOND) == Amounts(1, 35)


def test_what_a_call_costs_more_lands_when_it_is_known() -> None:
    """It isn't of what was granted, and the call itself may be too old to count."""
    ledger = lent(Amounts(2, 50))
    flying = ledger.sent(ledger.take(40), 40, 2 * MILLISECOND)
    told(ledger, BEAT)
    ledger.answered(flying, 40, 20 * SECOND, 55)
    call = Group(0, 40, at_least(20 * SECOND - 2 * MILLISECOND - at_most(J)))
    held = told(ledger, 20 * SECOND)
    assert held == Held(1, Amounts(1, 55), Amounts(1, 10), (call, Group(0, 15, 0)), over=15)


def test_a_cost_that_is_corrected_upwards_counts_though_its_lease_is_over() -> None:
    """It is told of once more."""
    ledger = lent(Amounts(1, 40))
    flying = ledger.sent(ledger.take(40), 40, 2 * MILLISECOND)
    late = 3 * MINUTE
    assert told(ledger, late).landed == Amounts(1, 40)  # nothing can be lowered any more
    assert ledger.leases == []
    ledger.answered(flying, 40, late, 55)
    assert told(ledger, late + BEAT) == Held(1, Amounts(1, 95), NOTHING, (Group(0, 55, at_least(BEAT)),), 55)


@pytest.mark.parametrize("late", [False, True])
def test_a_call_without_an_answer_costs_what_it_was_charged(late: bool) -> None:
    """From when its J is past, whenever that is known."""
    ledger = lent(Amounts(1, 40))
    flying = ledger.sent(ledger.take(40), 40, 2 * MILLISECOND)
    if late:
        ledger.room(BEAT)
    ledger.unanswered(flying, 40)
    held = told(ledger, 2 * BEAT)
    assert held.landed == Amounts(1, 40)
    assert {group.age for group in held.groups} == {at_least(2 * BEAT - 2 * MILLISECOND - at_most(J))}
    assert ledger.leases == []


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("tswauglw"), st.integers(0, 30), st.integers(0, SECOND)), max_size=40))
def test_all_of_a_lease_is_in_one_place(steps: list[tuple[str, int, int]]) -> None:
    """Room, taken, flying, landed or returned: whatever happens, in whatever order."""
    lease = Lent(1, Amounts(8, 100), FAR, by_cost=True)
    taken: list[int] = []
    flying: list[tuple[Flying, int]] = []
    now = over = 0
    for what, amount, pause in steps:
        now += pause
        match what:
            case "t" if lease.fits(amount):
                lease.take(amount)
                taken.append(amount)
            case "s" if taken:
                cost = taken.pop()
                flying.append((lease.sent(cost, now, SECOND // 128), cost))
            case "a" if flying:
                one, cost = flying.pop(amount % len(flying))
                over += lease.answered(one, cost, now, amount, J, SECOND // 128)
            case "u" if flying:
                lease.unanswered(*flying.pop(amount % len(flying)), J, SECOND // 128)
            case "g" if taken:
                lease.give_back(taken.pop())
            case "w":
                lease.withdraw()
            case _:
                lease.land(now, J, 2 * SECOND, SECOND // 128)
        held = lease.told(now)
        lease.acknowledged()
        unsettled = sum(one.cost for one in (*lease.flying, *lease.unsettled))
        assert (
            lease.calls
            + len(taken)
            + sum(one.calls for one in lease.flying)
            + held.landed.calls
            + (held.returned.calls)
            == lease.granted.calls
        )
        assert lease.cost + sum(taken) + unsettled + held.landed.cost + held.returned.cost == 100 + over
        assert held.over == over
    lease.withdraw()
    for one, cost in flying:
        lease.unanswered(one, cost, J, 1)
    for cost in taken:
        lease.give_back(cost)
    lease.withdraw()
    lease.land(now + 3 * SECOND, J, 2 * SECOND, 1)
    assert lease.left == NOTHING


# -- the store's side ----------------------------------------------------------------------------


class Store:
    """A steady store whose clock the test sets."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.at = START

    def says(self, round: Round, **other: Any) -> Reply:
        return serve(self.entries, round._replace(**other), self.at, "run", steady=True)

    def after(self, reply: Reply, who: str = "a", **other: Any) -> Round:
        return FIRST._replace(
            incarnation=who, number=reply.number + 1, epoch=reply.epoch, told=reply.now, floor=-1, **other
        )

    @property
    def used(self) -> Amounts:
        entry = self.entries["key"]
        log = entry.logs[MINUTE]
        leased = entry.leased(log, entry.last)
        return Amounts(log.calls + leased.calls, log.cost + leased.cost)


def test_what_a_call_costs_more_takes_nothing_from_what_is_on_its_way() -> None:
    """What one call cost more counts beside the lease, whose rest another call may still take."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(2, 80))
    held = Held(1, Amounts(1, 55), NOTHING, (Group(1, 55, 0),), over=15)
    for _ in range(2):
        reply = store.says(store.after(reply, held=(held,)))
        assert store.used == Amounts(2, 95)
    held = held._replace(landed=Amounts(2, 95), groups=(Group(1, 55, 5), Group(1, 40, 0)))
    store.says(store.after(reply, held=(held,)))
    assert store.used == Amounts(2, 95)


def test_a_correction_upwards_counts_though_the_store_has_forgotten_the_lease() -> None:
    """From when it is told."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(1, 40))
    reply = store.says(store.after(reply))
    assert store.used == NOTHING
    store.says(store.after(reply, held=(Held(1, Amounts(1, 55), NOTHING, (Group(0, 15, 0),), over=15),)))
    assert store.used == Amounts(0, 15)


def test_calls_and_cost_are_granted_to_match() -> None:
    """One without the other would lie idle in one place, and be missing in another."""
    store = Store()
    assert store.says(FIRST, want=Amounts(10, 200), least=20).granted == Amounts(5, 100)
    assert store.says(FIRST, budget="other", want=Amounts(40, 80), least=2).granted == Amounts(10, 20)


def test_small_calls_leave_what_a_dear_one_waits_for() -> None:
    """Its turn comes when enough has come back together: what is there until then isn't enough for both."""
    store = Store()
    assert store.says(FIRST, want=Amounts(1, 60), least=60).granted == Amounts(1, 60)
    assert store.says(FIRST, incarnation="dear", want=Amounts(1, 50), least=50).granted == NOTHING
    assert store.says(FIRST, incarnation="small", want=Amounts(5, 40), least=1).granted == NOTHING


def test_a_call_that_costs_more_than_its_share_gets_it_in_its_turn() -> None:
    """What comes back is kept for it until there is enough; the rest is the others'."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(1, 100))
    landed = (Group(0, 30, 0), Group(0, 30, -20 * SECOND), Group(1, 40, -40 * SECOND))
    reply = store.says(store.after(reply, held=(Held(1, Amounts(1, 100), NOTHING, landed),)))
    dear = store.says(FIRST, incarnation="dear", want=Amounts(1, 50), least=50)
    cheap = store.says(FIRST, incarnation="cheap", want=Amounts(5, 50), least=10)
    assert (dear.granted, cheap.granted) == (NOTHING, NOTHING)
    for second, cheap_gets in ((1, 0), (21, 10)):
        store.at = START + at_most(MINUTE) + second * SECOND
        # Both as late as a turn allows, the cheap one first.
        for member in store.entries["key"].members.values():
            member.due = store.at - 1 if second == 21 else store.at + 1
        cheap = store.says(store.after(cheap, "cheap", want=Amounts(5, 50), least=10))
        assert cheap.granted.cost == cheap_gets
    assert store.says(store.after(dear, "dear", want=Amounts(1, 50), least=50)).granted == Amounts(1, 50)


def test_a_call_that_never_fits_holds_up_nobody() -> None:
    """Another server's limit of the same length is lower than what it costs."""
    store = Store()
    store.says(FIRST, incarnation="low", caps=(Cap(MINUTE, 20, COST),))
    reply = store.says(FIRST, want=Amounts(1, 50), least=50)
    assert (reply.granted, reply.again) == (NOTHING, BEAT)
    assert store.says(FIRST, incarnation="b", want=Amounts(2, 20), least=10).granted == Amounts(2, 20)


# -- together ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "cost"),
    [
        ([Cap(MINUTE, 6000, COST)], (1, 20)),
        ([Cap(SECOND, 300, COST)], (1, 10)),
        ([Cap(MINUTE, 6000, COST), Cap(MINUTE, 300)], (1, 20)),
        ([Cap(SECOND, 100), Cap(10 * SECOND, 5000, COST)], (1, 20)),
    ],
)
def test_all_of_the_tightest_limit_is_used_while_work_waits(caps: list[Cap], cost: tuple[int, int]) -> None:
    """Whatever it counts: at least 97 % of what N, T, J and L allow, and never more than N."""
    fleet = Fleet(1)
    fleet.promise(caps)
    fleet.calls.cost = cost
    for number in range(4):
        fleet.add(caps, jitter=J, want=1 << 40, ppm=(number % 3 - 1) * 500)
    longest = max(cap.per for cap in caps)
    fleet.run(2 * longest + 2 * SECOND)
    before = len(fleet.arrivals["key"])
    fleet.run(4 * longest)
    sent = (len(fleet.arrivals["key"]) - before, sum(fleet.taken["key"][before:]))
    life = fleet.replicas[0].ledgers["key"].life
    uses = [sent[cap.counts] * (cap.per + J + life) / (4 * longest * cap.max) for cap in caps]
    assert max(uses) >= 0.97
    fleet.check()


def test_what_calls_cost_less_than_they_said_is_used_too() -> None:
    """As soon as it is known: of calls that cost a tenth a fleet makes nearly ten times as many."""
    cap = Cap(20 * SECOND, 1000, COST)
    fleet = Fleet(1)
    fleet.promise([cap])
    fleet.calls = Calls(cost=(20, 20), part=(0.1, 0.1))
    for _ in range(3):
        fleet.add([cap], jitter=J, want=1 << 40)
    fleet.run(82 * SECOND)
    assert len(fleet.arrivals["key"]) >= 0.9 * 10 * 4 * 1000 // 20
    fleet.check()


def test_a_dear_call_is_not_starved_by_cheap_ones() -> None:
    """And what it waits for is no more than it needs."""
    cap = Cap(5 * SECOND, 100, COST)
    fleet = Fleet(1)
    fleet.promise([cap])
    dear = fleet.add([cap], jitter=J)
    for _ in range(3):
        fleet.add([cap], jitter=J, want=1 << 40)
    fleet.run(20 * SECOND)
    for _ in range(20):
        dear.costs["key"] = 60
        before = dear.done
        fleet.demand(dear, 1)
        fleet.run(12 * SECOND)
        assert dear.done == before + 1
    life = dear.ledgers["key"].life
    assert sum(fleet.taken["key"]) >= 0.9 * (fleet.now - 2 * SECOND) * cap.max / (cap.per + J + life)
    fleet.check()
