"""What a fleet reaches together, and what it does when the store fails it."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.lease.terms import FAILOVER_LAG
from apiflux_grpc.core.lease.words import Cap
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.lease.fleet import Calls, Fleet

J: Final = 250 * MILLISECOND
MINUTE: Final = 60 * SECOND
LENGTH: Final = 11 * 60 * SECOND  # of a window that is too long to be waited for


def fleet_of(replicas: int, cap: Cap, *, want: int, seed: int = 1, store_ppm: int = 0) -> Fleet:
    fleet = Fleet(seed, store_ppm=store_ppm)
    fleet.promise([cap])
    for number in range(replicas):
        fleet.add([cap], jitter=J, want=want, ppm=(number % 3 - 1) * 500)
    return fleet


@pytest.mark.parametrize(("replicas", "most", "per"), [(1, 10, 1), (8, 3, 1), (8, 100, 1), (4, 1000, 60), (8, 60, 60)])
def test_all_of_a_limit_is_used_while_work_waits(replicas: int, most: int, per: int) -> None:
    """Whatever the number of replicas: at least 97 % of what N, T, J and L allow, and never more than N."""
    cap = Cap(per * SECOND, most)
    fleet = fleet_of(replicas, cap, want=10_000)
    fleet.run(2 * cap.per + 2 * SECOND)
    before = len(fleet.arrivals["key"])
    fleet.run(4 * cap.per)
    life = fleet.replicas[0].ledgers["key"].life
    assert len(fleet.arrivals["key"]) - before >= 0.97 * 4 * cap.per * most / (cap.per + J + life)
    fleet.check()


@pytest.mark.parametrize("answered", [True, False])
def test_no_window_is_over_its_limit_where_clocks_differ_most(answered: bool) -> None:
    """The store's fast and the replica's slow, both as much as clocks may be; calls arrive at once or at J."""
    fleet = Fleet(1, store_ppm=500)
    fleet.promise([Cap(MINUTE, 5)])
    fleet.calls = Calls((0, 0), (0, 0) if answered else (J, J), (0, 0), 0 if answered else 1)
    fleet.network.delay = (1, 1)
    fleet.add([Cap(MINUTE, 5)], jitter=J, want=10_000, ppm=-500)
    fleet.run(10 * MINUTE)
    fleet.check()


def test_replicas_that_want_the_same_get_the_same() -> None:
    """Eight of them on three calls a second: each has its turn."""
    fleet = fleet_of(8, Cap(SECOND, 3), want=10_000)
    fleet.run(90 * SECOND)
    done = [replica.done for replica in fleet.replicas]
    assert min(done) >= 0.8 * max(done)


def test_one_that_is_busy_alone_has_all() -> None:
    """Those with nothing to do hold nothing, and are asked for nothing."""
    fleet = fleet_of(4, Cap(SECOND, 40), want=0)
    fleet.run(3 * SECOND)
    fleet.demand(fleet.replicas[0], 10_000)
    fleet.run(10 * SECOND)
    assert fleet.replicas[0].done >= 0.97 * 40 * 10 * SECOND // (SECOND + J)


def test_a_share_follows_demand_within_a_second() -> None:
    """Another that begins to want gets its even share of what comes back from then on."""
    fleet = fleet_of(2, Cap(SECOND, 40), want=0)
    fleet.demand(fleet.replicas[0], 10_000)
    fleet.run(10 * SECOND)
    fleet.demand(fleet.replicas[1], 10_000)
    fleet.run(2 * SECOND)
    before = fleet.replicas[1].done
    fleet.run(10 * SECOND)
    assert fleet.replicas[1].done - before >= 0.45 * 40 * 10 * SECOND // (SECOND + J)


def test_without_the_store_leases_are_spent_and_then_calls_wait() -> None:
    """Never more than was leased; and when the store is back, so is everything, by itself."""
    fleet = fleet_of(2, Cap(10 * SECOND, 100), want=1000)
    fleet.run(30 * SECOND)
    fleet.store.gone = True
    fleet.run(SECOND)
    before = len(fleet.arrivals["key"])
    fleet.run(60 * SECOND)
    assert len(fleet.arrivals["key"]) == before
    fleet.store.gone = False
    fleet.run(30 * SECOND)
    assert len(fleet.arrivals["key"]) >= before + 200
    fleet.check()


@pytest.mark.parametrize("what", ["flush", "restart", "behind"])
def test_a_store_that_forgets_freezes_until_all_has_ended(what: str) -> None:
    """In the midst of a window that is half spent: what it knows, or doesn't, is of no consequence."""
    fleet = Fleet(1)
    cap = Cap(20 * SECOND, 40)
    fleet.promise([cap])
    for _ in range(3):
        fleet.add([cap], jitter=J)
    fleet.run(5 * SECOND)
    saved = fleet.store.saved()
    fleet.demand(fleet.replicas[0], 25)
    fleet.run(2 * SECOND)
    assert len(fleet.arrivals["key"]) == 25
    if what == "flush":
        fleet.store.flush()
    else:
        fleet.store.fail_over(saved if what == "behind" else fleet.store.saved())
    # Those who had nothing to tell are the first to ask.
    for replica in reversed(fleet.replicas):
        fleet.demand(replica, 1000)
    fleet.run(90 * SECOND)
    assert len(fleet.arrivals["key"]) > 65
    fleet.check()


# -- long windows --------------------------------------------------------------------------------


def long_fleet() -> Fleet:
    """Three replicas of which all have spent of 60 calls in eleven minutes."""
    fleet = fleet_of(3, Cap(LENGTH, 60), want=10)
    fleet.run(20 * SECOND)
    assert len(fleet.arrivals["key"]) == 30
    return fleet


def test_a_long_window_opens_by_what_the_replicas_remember() -> None:
    """When all that may have spent of it have told what, and the store can forget no more: not eleven minutes later."""
    fleet = long_fleet()
    fleet.store.flush()
    for replica in fleet.replicas:
        fleet.demand(replica, 1000)
    fleet.run(FAILOVER_LAG)
    assert len(fleet.arrivals["key"]) == 30
    fleet.run(20 * SECOND)
    assert len(fleet.arrivals["key"]) == 60
    fleet.run(LENGTH)
    fleet.check()


def test_calls_on_their_way_are_remembered_too() -> None:
    """Leased before the store forgot, and sent after: they count."""
    fleet = fleet_of(2, Cap(LENGTH, 60), want=0)
    fleet.run(5 * SECOND)
    fleet.calls = Calls(write=(SECOND, 4 * SECOND), arrive=(0, J), answer=(SECOND, SECOND))
    fleet.demand(fleet.replicas[0], 30)
    fleet.run(10 * MILLISECOND)
    fleet.store.flush()
    for replica in fleet.replicas:
        fleet.demand(replica, 1000)
    fleet.run(2 * LENGTH)
    fleet.check()


@pytest.mark.parametrize("crashed", [True, False])
def test_a_long_window_waits_for_its_length_if_one_is_missing(crashed: bool) -> None:
    """What it spent nobody knows."""
    fleet = long_fleet()
    missing = fleet.replicas[0]
    fleet.crash(missing) if crashed else fleet.leave(missing)
    fleet.run(SECOND)
    fleet.store.flush()
    for replica in fleet.living():
        fleet.demand(replica, 1000)
    fleet.run(LENGTH)
    assert len(fleet.arrivals["key"]) == 30
    fleet.run(60 * SECOND)
    assert len(fleet.arrivals["key"]) > 30
    fleet.check()


def test_an_idle_replica_knows_who_may_have_spent_of_a_long_window() -> None:
    """It vouches for all when the store has forgotten: one that came, spent and died meanwhile is missing. Rule 9."""
    fleet = Fleet(1)
    cap = Cap(700 * SECOND, 20)
    fleet.promise([cap])
    idle = fleet.add([cap], jitter=0)
    fleet.run(31 * SECOND)
    spends = fleet.add([cap], jitter=0, want=20)
    fleet.run(4 * SECOND)
    fleet.crash(spends)
    fleet.store.flush()
    fleet.lost()
    fleet.demand(idle, 20)
    fleet.run(60 * SECOND)
    fleet.check()
    assert len(fleet.arrivals["key"]) == 20
