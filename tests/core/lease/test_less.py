"""What facts take away of a limit, and what a member is told that all have of it."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.lease.less import CUT, OTHERS, fact_name
from apiflux_grpc.core.lease.words import CALLS, COST, Amounts, Cap, Fact, Group, Held, Use
from apiflux_grpc.core.units import SECOND
from tests.core.lease.test_facts import Store

WINDOW: Final = Cap(SECOND, 100)
BUCKET: Final = Cap(SECOND, 100, CALLS, 20)


def granted(store: Store, name: str, cap: Cap = WINDOW, want: int = 1000) -> int:
    """What this member is granted, of all that it could want."""
    reply = store.says(name, caps=(cap,), want=Amounts(want, want * cap.counts), least=cap.counts)
    return reply.granted[cap.counts]


def tell(store: Store, of: str, cap: Cap, amount: int, left: int) -> None:
    store.says("teller", caps=(cap,), facts=(Fact(fact_name(of, cap), amount, left),))


@pytest.mark.parametrize("cap", [WINDOW, WINDOW._replace(counts=COST)])
def test_what_strangers_take_of_a_window_is_not_granted_until_it_ends(cap: Cap) -> None:
    """It is nobody's in the fleet, however many ask; all of a limit taken by strangers is nothing to grant, no more."""
    store = Store()
    tell(store, OTHERS, cap, 60, SECOND // 2)
    assert granted(store, "a", cap, 30) + granted(store, "b", cap) == 40
    tell(store, OTHERS, cap, 300, SECOND)
    assert granted(store, "c", cap) == 0
    store.now += SECOND
    assert granted(store, "d", cap) == 60


def test_a_cut_comes_back_in_steps_by_its_end() -> None:
    """A twentieth with each length of the limit, and no more was ever cut than it says."""
    for ends_in, most in ((10, 70), (6, 70), (5, 75), (1, 95)):
        store = Store()
        tell(store, CUT, WINDOW, 30, ends_in * SECOND)
        assert granted(store, "a") == most


def test_cuts_and_strangers_lower_a_limit_together() -> None:
    """What is left of a cut limit is shared with strangers too."""
    store = Store()
    tell(store, CUT, WINDOW, 30, 6 * SECOND)
    tell(store, OTHERS, WINDOW, 50, SECOND)
    assert granted(store, "a") == 20


def test_strangers_fill_a_bucket_once_however_many_tell_of_them() -> None:
    """What its end tells is how full it is of theirs: who tells the same again adds nothing. It holds its depth."""
    store = Store()
    granted(store, "a", BUCKET, 0)
    for _ in range(3):
        tell(store, OTHERS, BUCKET, 15, 15 * SECOND // 100)
    assert granted(store, "a", BUCKET) == 5
    tell(store, OTHERS, BUCKET, 1000, 1000 * SECOND)
    level = store.entries["key"].levels[SECOND, CALLS]
    assert level.filled == BUCKET.depth * SECOND // 1000


def test_a_cut_bucket_leaks_slower() -> None:
    """As much as its rate was cut by."""
    store = Store()
    assert granted(store, "a", BUCKET) == 20
    lease = Held(1, Amounts(20), Amounts(), (Group(20, 0, 0),))
    store.says("a", caps=(BUCKET,), held=(lease,))
    tell(store, CUT, BUCKET, 50, 100 * SECOND)
    store.now += SECOND // 10
    store.says("a", caps=(BUCKET,), held=(lease,))
    assert granted(store, "b", BUCKET) == 4  # clocks differ, so one less than half of what flows in


def test_who_asks_is_told_what_all_have() -> None:
    """What has landed, what of it may have ended, and what others may still send; what was refused to them."""
    store = Store()
    store.says("a", caps=(WINDOW,), want=Amounts(30))
    store.says("b", caps=(WINDOW,), want=Amounts(20))
    landed = Held(1, Amounts(12), Amounts(), (Group(4, 0, SECOND - 1000), Group(8, 0, 1000)))
    told = store.says("a", caps=(WINDOW,), held=(landed,), refused=(3,))
    assert told.use == (Use(12, 0, 20),)
    store.now += 500
    (use,) = store.says("b", caps=(WINDOW,), held=(Held(1, Amounts(), Amounts()),), refused=(1,)).use
    assert use == Use(12, 0, 18, 3)
    store.now += 500
    assert store.says("b", caps=(WINDOW,), held=(Held(1, Amounts(), Amounts()),), refused=(1,)).use[0].ending == 4
    assert store.says("c", caps=(WINDOW,)).use == ()


def test_what_was_refused_ends_with_its_window() -> None:
    """Though who told of it isn't heard any more."""
    store = Store()
    store.says("a", caps=(WINDOW,), want=Amounts(30), refused=(3,))
    assert store.says("b", caps=(WINDOW,), refused=(0,)).use[0].refused == 3
    store.now += SECOND
    assert store.says("b", caps=(WINDOW,), refused=(0,)).use[0].refused == 0


def test_a_bucket_tells_how_full_it_is_with_all_leases() -> None:
    """Rounded up: what is unexplained by that is others' for certain."""
    store = Store()
    store.says("a", caps=(BUCKET,), want=Amounts(5))
    assert store.says("b", caps=(BUCKET,), refused=(0,)).use == (Use(5),)
