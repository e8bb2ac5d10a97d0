"""Buckets that many share: what arrives never overfills the upstream's, and what flows in is used."""

from __future__ import annotations

from typing import Any, Final

import pytest

from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.serve import serve
from apiflux_grpc.core.lease.terms import FAILOVER_LAG, at_most
from apiflux_grpc.core.lease.words import CALLS, COST, NOTHING, Amounts, Cap, Group, Held, Reply, Round
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.lease.fleet import Calls, Fleet

J: Final = 250 * MILLISECOND
LIFE: Final = 50 * MILLISECOND
CAP: Final = Cap(SECOND, 10, CALLS, 20)
FIRST: Final = Round("key", "a", 1, (CAP,), LIFE, 0, trust=True)
ALL: Final = Amounts(100)
START: Final = 1_000_000 * SECOND


class Store:
    """A steady store whose clock the test sets."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.at = START

    def says(self, round: Round, *, steady: bool = True, **other: Any) -> Reply:
        return serve(self.entries, round._replace(**other), self.at, "run", steady=steady)

    def after(self, reply: Reply, **other: Any) -> Round:
        return FIRST._replace(number=reply.number + 1, epoch=reply.epoch, told=reply.now, floor=-1, **other)

    def free(self, who: str, **other: Any) -> int:
        """What another is granted now."""
        return self.says(FIRST, incarnation=who, want=ALL, **other).granted.calls


def landed(calls: int) -> Held:
    """All of the first lease, just now."""
    return Held(1, Amounts(calls), NOTHING, (Group(calls, 0, 0),))


@pytest.mark.parametrize(("after", "free"), [(500, 4), (501, 5), (10_000, 20)])  # 500 ms: no clock is that exact
def test_what_is_leased_leaks_only_from_when_it_is_told_to_have_arrived(after: int, free: int) -> None:
    """Until then all of it may still come at once, into a bucket of that depth."""
    store = Store()
    reply = store.says(FIRST, life=SECOND, want=ALL)
    assert reply.granted == Amounts(20)
    store.at += 900 * MILLISECOND
    store.says(store.after(reply, life=SECOND, held=(landed(20),)))
    store.at += after * MILLISECOND
    assert store.free("b", life=SECOND) == free


def test_what_comes_back_unsent_comes_back_whole() -> None:
    """It never arrived; what did arrive fills the bucket."""
    store = Store()
    reply = store.says(FIRST, want=ALL)
    held = Held(1, Amounts(11), Amounts(9), (Group(11, 0, 0),))
    store.says(store.after(reply, held=(held,)))
    assert store.free("b") == 9


def test_a_lease_that_is_not_listed_comes_back_too() -> None:
    """Nobody will spend it."""
    store = Store()
    reply = store.says(FIRST, want=ALL)
    store.says(store.after(reply))
    assert store.free("b") == 20


def test_a_newcomer_s_other_bucket_is_unknown_and_fills_with_what_was_leased_before() -> None:
    """A server that begins with other limits than those before it."""
    store = Store()
    store.says(FIRST, want=ALL)
    other = Cap(2 * SECOND, 10, CALLS, 20)
    reply = store.says(FIRST, incarnation="b", caps=(other,))
    assert reply.opens == at_most(LIFE)
    assert [lower.cap for lower in reply.lower] == [CAP]


def test_what_nobody_tells_of_fills_the_bucket_when_it_must_have_arrived() -> None:
    """Once, whether it is told of afterwards or not."""
    store = Store()
    reply = store.says(FIRST, want=ALL)
    store.at += LIFE + MILLISECOND
    assert store.free("b") == 0
    store.at += SECOND
    assert store.free("c") == 9
    store.says(store.after(reply, held=(landed(20),)))
    assert store.free("d") == 0
    store.at += SECOND
    assert store.free("e") == 10


@pytest.mark.parametrize(("is_known", "free"), [(True, 14), (False, 17)])
def test_what_is_sent_after_its_lease_has_ended_fills_the_bucket_again(is_known: bool, free: int) -> None:
    """It arrives when the bucket has long been granted to others; whether or not the store still knows the lease."""
    store = Store()
    reply = store.says(FIRST, want=Amounts(3))
    held = landed(3)
    if is_known:
        store.at += SECOND
        held = held._replace(late=Amounts(3))
    else:
        reply = store.says(store.after(reply))
    store.says(store.after(reply, held=(held,)))
    assert store.free("b") == free


def test_a_bucket_of_cost_is_filled_by_what_a_call_costs_more() -> None:
    """Nobody was granted that."""
    caps = (Cap(SECOND, 100, COST, 200),)
    store = Store()
    reply = store.says(FIRST, caps=caps, want=Amounts(1, 100), least=100)
    more = Held(1, Amounts(1, 150), NOTHING, (Group(1, 150, 0),), over=50)
    store.says(store.after(reply, caps=caps, held=(more,)))
    granted = store.says(FIRST, caps=caps, incarnation="b", want=Amounts(100, 200), least=2).granted
    assert granted.cost == 50


def test_a_bucket_that_nothing_is_known_of_is_full() -> None:
    """When a limit is new here what others have on its way comes first, and when a store has forgotten its lag too."""
    store = Store()
    store.says(FIRST, caps=(Cap(SECOND, 10),))
    new = store.says(FIRST, incarnation="b", want=ALL, caps=(CAP,))
    assert (new.granted, new.opens) == (NOTHING, at_most(LIFE))
    assert Store().says(FIRST, steady=False, trust=False).opens == at_most(LIFE + FAILOVER_LAG)


def test_of_like_buckets_the_lower_rate_and_the_lower_depth_hold() -> None:
    """Whichever side has them."""
    store = Store()
    store.says(FIRST, incarnation="slow", caps=(CAP._replace(max=5),))
    store.says(FIRST, incarnation="shallow", caps=(CAP._replace(depth=10),))
    assert store.free("b") == 10


def test_several_limits_of_an_empty_store_open_at_once() -> None:
    """None of them is heir to another: nothing was spent of any."""
    caps = (CAP, Cap(SECOND, 20), Cap(60 * SECOND, 100))
    assert Store().says(FIRST, caps=caps, want=ALL).granted == Amounts(20)


def test_a_lease_lives_for_a_hundredth_of_the_time_in_which_a_bucket_runs_empty() -> None:
    """What is leased leaks nothing, so it must be spent soon."""
    assert Ledger("key", "a", [Cap(60 * SECOND, 600, CALLS, 20)], J).life == LIFE
    assert Ledger("key", "a", [Cap(60 * SECOND, 600, CALLS, 600)], J).life == 600 * MILLISECOND


ONE_DEEP: Final = Cap(SECOND, 10, CALLS, 1)


@pytest.mark.parametrize(
    ("replicas", "cap", "cost", "use"),
    [
        (1, CAP, (1, 1), 0.97),
        (6, CAP, (1, 1), 0.97),
        (1, ONE_DEEP, (1, 1), 0.8),
        pytest.param(6, ONE_DEEP, (1, 1), 0.8, marks=pytest.mark.slow),
        (1, Cap(60 * SECOND, 600, CALLS, 5), (1, 1), 0.97),
        (6, Cap(60 * SECOND, 600, CALLS, 5), (1, 1), 0.97),
        (1, Cap(SECOND, 100, COST, 200), (1, 20), 0.97),
        (6, Cap(SECOND, 100, COST, 200), (1, 20), 0.97),
    ],
)
def test_all_that_flows_in_is_used_and_nothing_overflows(
    replicas: int, cap: Cap, cost: tuple[int, int], use: float
) -> None:
    """However short the bucket is beside J and L; of a bucket of one call each waits for the last to be told."""
    fleet = Fleet(1)
    fleet.promise([cap])
    fleet.calls = Calls(cost=cost)
    for number in range(replicas):
        fleet.add([cap], jitter=J, want=1 << 40, ppm=(number % 3 - 1) * 500)
    fleet.run(6 * SECOND)
    before = len(fleet.arrivals["key"])
    fleet.run(20 * SECOND)
    sent = (len(fleet.arrivals["key"]) - before, sum(fleet.taken["key"][before:]))[cap.counts]
    assert sent >= use * 20 * SECOND * cap.max / cap.per
    fleet.check()
