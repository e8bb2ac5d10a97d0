"""Calls in flight that several replicas share: never above the bound at any instant, and all of it used: rule 10."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.lease.slotledger import SlotLedger
from apiflux_grpc.core.lease.slots import even
from apiflux_grpc.core.lease.terms import FAILOVER_LAG, SLOT_LIFE, SLOT_PACE
from apiflux_grpc.core.lease.words import Allotted, Reply
from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from tests.core.lease.fleet import Network
from tests.core.lease.slotfleet import SlotFleet

MANY: Final = 1 << 40
BEGUN: Final = 3 * SECOND  # by then all have been heard


def fleet_of(servers: int, most: int, *, want: int = MANY, timeout: int = SECOND, seed: int = 1) -> SlotFleet:
    fleet = SlotFleet(seed, most, timeout=timeout)
    for number in range(servers):
        fleet.add(want, ppm=(number % 3 - 1) * 500)
    fleet.run(BEGUN)
    return fleet


@pytest.mark.parametrize(("servers", "most"), [(1, 5), (2, 3), (3, 20), (8, 8), (8, 40)])
def test_all_slots_are_used_while_work_waits(servers: int, most: int) -> None:
    """Whatever doesn't divide goes to somebody; and there are never more."""
    fleet = fleet_of(servers, most)
    fleet.run(SECOND)
    assert fleet.use(5 * SECOND) >= 0.97
    fleet.check()


@pytest.mark.parametrize(("servers", "most"), [(8, 1), (8, 3)])
def test_fewer_slots_than_servers_go_round(servers: int, most: int) -> None:
    """Each server has its turn, and little of the time is lost by that."""
    fleet = fleet_of(servers, most)
    fleet.run(2 * SECOND)
    before = [server.done for server in fleet.servers]
    assert fleet.use(5 * servers * SLOT_LIFE) >= 0.85
    done = [server.done - one for server, one in zip(fleet.servers, before, strict=True)]
    assert min(done) >= 0.6 * max(done)
    fleet.check()


def test_one_slot_goes_round_among_calls_of_minutes() -> None:
    """A call may take as long as it likes: its slot lives while its server is heard, and then it is the next one's."""
    fleet = SlotFleet(1, 1, timeout=600 * SECOND)
    fleet.length = (100 * SECOND, 200 * SECOND)
    for _ in range(3):
        fleet.add(MANY)
    fleet.run(BEGUN)
    assert fleet.use(1800 * SECOND) >= 0.97
    assert min(server.done for server in fleet.servers) >= 2
    fleet.check()


def test_the_idle_hold_nothing_and_one_that_is_busy_has_all() -> None:
    """What one has no use for is another's within a second."""
    fleet = fleet_of(4, 12)
    for server in fleet.servers[1:]:
        fleet.demand(server, 0)
    fleet.run(SECOND)
    assert fleet.use(2 * SECOND) >= 0.97
    fleet.check()


def test_what_it_says_that_it_keeps_to_it_keeps_to_at_once() -> None:
    """The store may allot the rest to others before the reply is here."""
    ledger = SlotLedger("key", "a", 4, SECOND)
    ledger.lacks = True
    first = ledger.next_round(0, 4)
    assert first is not None
    ledger.heard(Reply(first.number, "epoch", 0, slots=Allotted(4, 4, scarce=True)), 0)
    ledger.take()
    assert ledger.room(0) == 3
    second = ledger.next_round(SLOT_PACE, 0)
    assert second is not None
    assert second.slots is not None
    assert (second.slots.holds, ledger.room(SLOT_PACE)) == (1, 0)


def test_a_sporadic_call_takes_no_turn_from_the_busy() -> None:
    """While others wait a slot goes back as soon as its call has ended, not when its turn is over."""
    fleet = fleet_of(1, 1)
    rare = fleet.add(0)
    fleet.run(BEGUN)
    used = 0.0
    for _ in range(10):
        fleet.demand(rare, 1)
        used += fleet.use(2 * SECOND) / 10
    assert rare.done >= 9
    assert used >= 0.85
    fleet.check()


def test_a_share_follows_demand_within_a_second() -> None:
    """One that comes gets its even part as the others' calls end."""
    fleet = fleet_of(2, 20, want=0)
    fleet.demand(fleet.servers[0], MANY)
    fleet.run(3 * SECOND)
    fleet.demand(fleet.servers[1], MANY)
    fleet.run(SECOND)
    before = fleet.servers[1].done
    fleet.run(3 * SECOND)
    first = fleet.servers[0].done
    assert fleet.servers[1].done - before >= 0.4 * 20 * 3 * SECOND / (28 * MILLISECOND)
    assert first
    fleet.check()


def test_slots_of_one_that_is_killed_come_back_when_its_calls_must_have_ended() -> None:
    """Its life and the timeout later, not before: they may run on."""
    fleet = fleet_of(2, 4, timeout=5 * SECOND)
    fleet.length = (SECOND, 5 * SECOND)
    fleet.run(10 * SECOND)
    fleet.crash(fleet.servers[0])
    fleet.run(5 * SECOND + SLOT_LIFE + SECOND)
    assert fleet.use(5 * SECOND) >= 0.97
    fleet.check()


def test_one_that_was_stopped_begins_nothing_by_what_it_had() -> None:
    """However long: what others have meanwhile is theirs."""
    fleet = fleet_of(3, 6)
    for length in (500 * MILLISECOND, 1500 * MILLISECOND, 3 * SECOND, 60 * SECOND):
        fleet.stop(fleet.servers[0])
        fleet.run(length)
        fleet.go_on(fleet.servers[0])
        fleet.run(2 * SECOND)
    fleet.check()
    assert fleet.use(2 * SECOND) >= 0.97


def test_what_a_late_reply_allots_lives_from_the_request_on() -> None:
    """Heard 0.8 s late, and then nothing more reaches the store: by its clock the slots end 0.2 s later."""
    fleet = fleet_of(2, 4, timeout=100 * MILLISECOND)
    fleet.length = (100 * MILLISECOND, 100 * MILLISECOND)
    late, other = fleet.servers
    while late.ledger.under_way is None:
        fleet.run(20 * MICROSECOND)
    fleet.stop(late)
    fleet.run(8 * SLOT_LIFE // 10)
    late.cut_off = True
    fleet.go_on(late)
    assert late.flying
    fleet.run(5 * SECOND)
    assert len(other.flying) == fleet.most
    fleet.check()


def test_the_lower_of_two_bounds_holds() -> None:
    """As soon as what ran before has ended; and the higher again when the other has left."""
    fleet = fleet_of(2, 8)
    other = fleet.add(MANY, most=3)
    fleet.run(BEGUN)
    fleet.worst = 0
    fleet.most = 3
    assert fleet.use(3 * SECOND) >= 0.85
    fleet.check()
    assert {server.ledger.bound for server in fleet.servers} == {3}
    fleet.leave(other)
    fleet.most = 8
    fleet.run(2 * SECOND)
    assert fleet.use(4 * SECOND) >= 0.97
    fleet.check()


@pytest.mark.parametrize("all_are_there", [True, False])
def test_a_store_that_forgets_allots_nothing_until_what_nobody_told_of_has_ended(all_are_there: bool) -> None:
    """When all that it knew have told, nobody else's calls are in flight; one missing: its timeout is waited for."""
    fleet = fleet_of(3, 6, timeout=20 * SECOND)
    fleet.length = (10 * SECOND, 20 * SECOND)
    fleet.run(5 * SECOND)
    if not all_are_there:
        fleet.crash(fleet.servers[0])
    fleet.store.flush()
    fleet.length = (5 * MILLISECOND, 50 * MILLISECOND)
    fleet.run(FAILOVER_LAG)
    done = sum(server.done for server in fleet.servers)
    fleet.run(SLOT_LIFE + SECOND)
    went_on = sum(server.done for server in fleet.servers) > done + 50
    assert went_on is all_are_there
    fleet.run(30 * SECOND)
    assert fleet.use(2 * SECOND) >= 0.97
    fleet.check()


@pytest.mark.parametrize("joins", [False, True])
def test_the_calls_of_one_that_is_gone_have_its_own_timeout(joins: bool) -> None:
    """Which may be longer than those of all who are left, and of one that comes when the store has forgotten it."""
    fleet = SlotFleet(1, 4)
    fleet.length = (60 * SECOND, 60 * SECOND)
    slow = fleet.add(MANY, timeout=60 * SECOND)
    other = fleet.add()
    fleet.run(12 * SECOND)
    assert len(slow.flying) == 4
    fleet.length = (5 * MILLISECOND, 50 * MILLISECOND)
    fleet.crash(slow)
    fleet.store.flush()
    for server in (fleet.add() if joins else other, other):
        fleet.demand(server, MANY)
    fleet.run(100 * SECOND)
    assert fleet.use(2 * SECOND) >= 0.97
    fleet.check()


def test_one_that_was_idle_does_not_vouch_for_who_came_since() -> None:
    """It is heard each ten seconds: what began and died meanwhile may have calls in flight when the store forgets."""
    fleet = SlotFleet(1, 4, timeout=60 * SECOND)
    idle = fleet.add()
    fleet.run(SECOND)
    came = fleet.add(MANY)
    fleet.length = (60 * SECOND, 60 * SECOND)
    fleet.run(5 * SECOND)
    assert len(came.flying) == 4
    fleet.length = (5 * MILLISECOND, 50 * MILLISECOND)
    fleet.crash(came)
    fleet.store.flush()
    fleet.demand(idle, MANY)
    fleet.run(100 * SECOND)
    assert fleet.use(2 * SECOND) >= 0.97
    fleet.check()


def test_without_the_store_no_call_begins() -> None:
    """What was allotted ends; and when the store is back, everything is."""
    fleet = fleet_of(2, 4)
    fleet.store.gone = True
    fleet.run(SLOT_LIFE + SECOND)
    assert fleet.use(5 * SECOND) == 0
    fleet.store.gone = False
    fleet.run(SECOND)
    assert fleet.use(2 * SECOND) >= 0.97
    fleet.check()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(-2, 30))
def test_parts_are_even_and_leave_nothing_over(wants: list[int], room: int) -> None:
    """None is larger than is wanted, those that are too small differ by 1 at most, and no slot lies idle."""
    parts = even(wants, room)
    assert all(0 <= part <= want for part, want in zip(parts, wants, strict=True))
    assert sum(parts) == max(0, min(room, sum(wants)))
    short = [part for part, want in zip(parts, wants, strict=True) if part < want]
    assert not short or max(parts) <= min(short) + 1


NETWORKS: Final = (
    Network(),
    Network(lost=0.2),
    Network(late=0.3, longest=300 * MILLISECOND),
    Network(repeated=0.5, late=0.5, longest=20 * SECOND),
    Network((100_000, 60 * MILLISECOND), lost=0.1, repeated=0.8),
)
happenings = st.lists(
    st.tuples(
        st.sampled_from([5 * MILLISECOND, 50 * MILLISECOND, 400 * MILLISECOND, 2 * SECOND]),
        st.sampled_from(
            [
                "join",
                "crash",
                "leave",
                "stop",
                "go on",
                "network",
                "want",
                "idle",
                "flush",
                "fail over",
                "saved",
                "gone",
            ]
        ),
        st.integers(0, 99),
    ),
    max_size=15,
)


@settings(max_examples=8)
@given(st.integers(0, 1 << 20), st.integers(1, 6), st.sampled_from([100 * MILLISECOND, 3 * SECOND]), happenings)
def test_whatever_happens_the_bound_holds(
    seed: int, most: int, timeout: int, happened: list[tuple[int, str, int]]
) -> None:
    """At every instant; and when all is well again, all of it is used."""
    whatever_happens(seed, most, timeout, happened)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=60)
@given(st.integers(0, 1 << 20), st.integers(1, 6), st.sampled_from([100 * MILLISECOND, 3 * SECOND]), happenings)
def test_whatever_happens_the_bound_holds_for_longer(
    seed: int, most: int, timeout: int, happened: list[tuple[int, str, int]]
) -> None:
    """The same of more."""
    whatever_happens(seed, most, timeout, happened)


def whatever_happens(seed: int, most: int, timeout: int, happened: list[tuple[int, str, int]]) -> None:
    fleet = SlotFleet(seed, most, timeout=timeout, store_ppm=(seed % 3 - 1) * 500)
    for number in range(3):
        fleet.add(MANY, ppm=(number - 1) * 500)
    fleet.run(BEGUN)
    saved = fleet.store.saved()
    for pause, what, which in happened:
        living = fleet.living()
        one = living[which % len(living)]
        match what:
            case "join" if len(living) < 6:
                fleet.add(MANY, ppm=(which % 3 - 1) * 500)
            case "crash" if len(living) > 1:
                fleet.crash(one)
            case "leave" if len(living) > 1 and not one.stopped:
                fleet.leave(one)
            case "stop":
                fleet.stop(one)
            case "go on":
                fleet.go_on(one)
            case "network":
                fleet.network = NETWORKS[which % len(NETWORKS)]
            case "want":
                fleet.demand(one, MANY)
            case "idle":
                fleet.demand(one, which % 3)
            case "flush":
                fleet.store.flush()
            case "saved":
                saved = fleet.store.saved()
            case "fail over":
                fleet.store.fail_over(fleet.store.saved() if which % 2 else saved)
            case "gone":
                fleet.store.gone = not fleet.store.gone
        fleet.run(pause)
    fleet.check()
    fleet.store.gone, fleet.network = False, NETWORKS[0]
    for server in fleet.living():
        fleet.go_on(server)
        fleet.demand(server, MANY)
    fleet.run(timeout + FAILOVER_LAG + 30 * SECOND)
    assert fleet.use(10 * SECOND) >= (0.97 if len(fleet.living()) <= most else 0.8)
    fleet.check()
