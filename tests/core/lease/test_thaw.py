"""A frozen budget is opened by hand, by a visitor that changes nothing else."""

from __future__ import annotations

from copy import deepcopy
from typing import Final

import pytest

from apiflux_grpc.core.lease.codec import plain
from apiflux_grpc.core.lease.words import CALLS, Amounts, Cap, Group, Held, Memory, Reply, Round
from apiflux_grpc.core.units import SECOND
from tests.core.lease.test_serve import FIRST, Store

DAY: Final = 86_400 * SECOND
VISITOR: Final = Round("key", "visitor", 1, (), 0, 0, leaves=True, thaw=True)
WINDOW: Final = Cap(DAY, 10)


def frozen(store: Store, *caps: Cap) -> Reply:
    """A store that doesn't know what was spent hears this replica, which has spent of it before."""
    reply = store.says(FIRST, caps=caps, trust=False, epoch="before", want=Amounts(3))
    assert (reply.granted.calls, reply.opens > 0) == (0, True)
    return reply


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize("caps", [(WINDOW,), (WINDOW, Cap(60 * SECOND, 5)), (Cap(SECOND, 9, CALLS, 4),)])
def test_a_thawed_budget_grants_at_once(caps: tuple[Cap, ...], steady: bool) -> None:
    """With the next round of whoever waits; the visitor is told for how long it would have been frozen."""
    store = Store(steady=steady)
    reply = frozen(store, *caps)
    assert store.says(VISITOR).opens == reply.opens
    reply = store.says(store.after(reply, caps=caps, want=Amounts(3)))
    assert (reply.granted.calls, reply.opens, reply.roster) == (3, 0, frozenset("a"))
    assert store.says(VISITOR, incarnation="next").opens == 0


def test_what_the_store_was_told_since_counts_on() -> None:
    """Calls of before that the replica remembers, in a window and in a bucket."""
    store = Store()
    caps = (WINDOW, Cap(SECOND, 1, CALLS, 9))
    memory = Memory((Group(4, 0, 0),), Amounts(), frozenset("ab"))
    reply = store.says(FIRST, caps=caps, epoch="before", memory=memory)
    assert reply.opens > DAY, "b hasn't told yet"
    reply = store.says(store.after(reply, caps=caps, held=(Held(1, Amounts(2), Amounts(), (Group(2, 0, 0),)),)))
    assert store.says(VISITOR).opens > DAY
    entry = store.entries["key"]
    assert [entry.free(cap, entry.last) for cap in caps] == [4, 7]


@pytest.mark.parametrize("trust", [True, False])
def test_one_that_is_not_frozen_is_as_it_was(trust: bool) -> None:
    """Be it trusted from the start, or open since its replicas have told all that they remember."""
    store = Store(steady=False)
    reply = store.says(FIRST, caps=(WINDOW,), trust=trust, memory=Memory((), Amounts(2), frozenset("a")))
    store.at += 20 * SECOND
    reply = store.says(store.after(reply, caps=(WINDOW,), want=Amounts(1)))
    assert reply.granted.calls == 1
    before = plain(deepcopy(store.entries["key"]))
    thawed = store.says(VISITOR)
    assert (thawed.opens, thawed.epoch) == (0, reply.epoch)
    assert plain(store.entries["key"]) == before


def test_a_visitor_changes_nothing_but_what_is_frozen() -> None:
    """Its other life and jitter refuse nobody, it is in no roster, and no time is confirmed by it."""
    store = Store()
    reply = frozen(store, WINDOW)
    before = plain(deepcopy(store.entries["key"]))
    store.at += SECOND
    assert store.says(VISITOR, life=7, jitter=7).refusal == ""
    after = plain(store.entries["key"])
    differ = [number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert differ == [8], "the logs alone"
    assert store.says(store.after(reply, caps=(WINDOW,))).refusal == ""


def test_what_a_store_does_not_know_stays_unknown() -> None:
    """No entry is made: the first replica finds an empty store. One of another run is lost, as for replicas."""
    store = Store()
    assert store.says(VISITOR).epoch == ""
    assert store.entries == {}
    reply = frozen(store, WINDOW)
    store.run_id = "another"
    assert store.says(VISITOR).epoch == ""
    assert store.says(store.after(reply, caps=(WINDOW,), want=Amounts(1))).opens > DAY
