"""The scheduler's single decisions, as tables: which key, which call, and when to ask again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from apiflux_grpc.core.batch import Again
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import COST, KEPT, MINUTE, answer, batch_of, block, labels, pool_of, working


def test_the_key_with_the_larger_free_share_goes_first() -> None:
    """Headroom is a share: a small fast limit isn't left idle beside a big slow one."""
    scheduler = working(pool_of((Limit(10, SECOND),), (Limit(1000, MINUTE),)), batch_of(1010))
    permits, wake_at = scheduler.assign(0)
    shares = Counter[str]()
    for place, label in enumerate(labels(permits[:101]), 1):
        shares[label] += 1
        assert abs(shares["key-0"] - place / 101) <= 1
    assert Counter(labels(permits)) == {"key-0": 10, "key-1": 1000}
    assert wake_at is None  # nothing was sent, so nothing comes back by itself


def test_the_tightest_limit_speaks_for_its_key() -> None:
    """A key with one nearly full limit stands behind one that is half free in all of them."""
    pool = pool_of((Limit(100, SECOND), Limit(4, MINUTE)), (Limit(8, SECOND),))
    scheduler = working(pool, batch_of(12))
    permits, _ = scheduler.assign(0)
    assert Counter(labels(permits)) == {"key-0": 4, "key-1": 8}
    assert Counter(labels(permits[:6])) == {"key-0": 2, "key-1": 4}


def test_of_equal_shares_the_key_with_more_free_calls_goes_first() -> None:
    """Ties: more free calls, then fewer in flight, then the order of the keys."""
    pool = pool_of((Limit(2, SECOND),), (Limit(4, SECOND),), (), (), most=None)
    scheduler = working(pool, batch_of(5))
    assert labels(scheduler.assign(0)[0]) == ["key-2", "key-3", "key-2", "key-3", "key-2"]
    scheduler = working(pool_of((Limit(2, SECOND),), (Limit(4, SECOND),), (Limit(4, SECOND),)), batch_of(3))
    assert labels(scheduler.assign(0)[0]) == ["key-1", "key-2", "key-0"]


def test_a_key_is_used_again_as_soon_as_it_has_more_room() -> None:
    """Slots that come back count at once in the order of the keys."""
    scheduler = working(pool_of((Limit(4, SECOND),), (Limit(4, MINUTE),)), batch_of(9))
    permits, _ = scheduler.assign(0, 4)
    for permit in permits:
        answer(scheduler, permit, 0)
    assert Counter(labels(scheduler.assign(KEPT, 2)[0])) == {"key-0": 2}


def test_a_cost_that_does_not_fit_the_best_key_goes_to_the_next() -> None:
    """The best key keeps its place for the calls that fit it."""
    pool = pool_of((Limit(10, SECOND, COST),), (Limit(100, SECOND, COST),))
    scheduler = working(pool, batch_of(4, costs=[60, 20, 5, 5]))
    permits, _ = scheduler.assign(0)
    assert labels(permits) == ["key-1", "key-1", "key-0", "key-0"]


def test_a_key_whose_pacer_delays_a_large_cost_still_pays_for_a_small_one() -> None:
    """A pacer's wait is that of one cost: a smaller call, whose turn it is now, doesn't wait for it."""
    pool = pool_of((Limit(100, SECOND, COST),), (Limit(1, SECOND),))
    scheduler = Scheduler(pool, FakePacer)
    scheduler.add(batch_of(1, costs=[90]))
    (refused,), _ = scheduler.assign(0)
    scheduler.settle(refused, 0, None)  # its slot is given back; the pacer keeps what it counted
    scheduler.add(batch_of(2, id=2, costs=[50, 5]))
    assert labels(scheduler.assign(0)[0]) == ["key-1", "key-0"]


def test_a_key_never_has_more_in_flight_than_it_may() -> None:
    """max_in_flight bounds a key, and a settled call makes room at once."""
    scheduler = working(pool_of((Limit(100, SECOND),), most=2), batch_of(5))
    permits, wake_at = scheduler.assign(0)
    assert len(permits) == 2
    assert wake_at is None
    answer(scheduler, permits[0], 10)
    assert len(scheduler.assign(10)[0]) == 1
    assert scheduler.keys[0].in_flight == 2


def test_a_pool_never_has_more_connections_than_it_may() -> None:
    """max_connections bounds the whole pool; no time frees one, so there is nothing to wake up for."""
    scheduler = working(pool_of((Limit(9, SECOND),), (Limit(9, SECOND),), max_connections=3), batch_of(9))
    permits, wake_at = scheduler.assign(0)
    assert (len(permits), wake_at) == (3, None)
    scheduler.sent(permits[0], 0)
    assert scheduler.assign(2 * SECOND) == ([], None)
    scheduler.settle(permits[0], 2 * SECOND, 2 * SECOND)
    assert len(scheduler.assign(2 * SECOND)[0]) == 1


def test_a_blocked_key_waits_alone() -> None:
    """A block concerns one key, and ends by itself at the instant that was said."""
    scheduler = working(pool_of((Limit(5, SECOND),), (Limit(5, SECOND),)), batch_of(6))
    block(scheduler, scheduler.keys[0], 7 * SECOND)
    permits, wake_at = scheduler.assign(0)
    assert labels(permits) == ["key-1"] * 5
    assert wake_at == 7 * SECOND
    assert len(scheduler.assign(7 * SECOND - 1)[0]) == 0
    assert labels(scheduler.assign(7 * SECOND)[0]) == ["key-0"]


def test_a_block_is_never_shortened() -> None:
    """The latest instant that was said holds, whatever comes back or is given back meanwhile."""
    scheduler = working(pool_of((Limit(2, SECOND),)), batch_of(3))
    (first, second), _ = scheduler.assign(0)
    block(scheduler, scheduler.keys[0], 9 * SECOND)
    block(scheduler, scheduler.keys[0], 2 * SECOND)
    answer(scheduler, first, 1)
    scheduler.settle(second, 1, None)
    for now in (1, SECOND, 2 * SECOND, 9 * SECOND - 1):
        assert scheduler.assign(now)[0] == []
    assert len(scheduler.assign(9 * SECOND)[0]) == 1


def test_at_most_so_many_at_once() -> None:
    """`most` cuts a pass short, and the next one is due at once."""
    scheduler = working(pool_of((Limit(9, SECOND),)), batch_of(5))
    assert [(len(permits), wake_at) for permits, wake_at in (scheduler.assign(3, 2) for _ in range(3))] == [
        (2, 3),
        (2, 3),
        (1, None),
    ]


@pytest.mark.parametrize("jitter", [0, 1, 250 * MILLISECOND])
@pytest.mark.parametrize("answered", [None, 0, 100 * MILLISECOND, 400 * MILLISECOND])
def test_wake_at_is_exact(jitter: int, answered: int | None) -> None:
    """At wake_at there is a permit, and one ns before there is none; the instant is min(answer, sent + J)."""
    scheduler = working(pool_of((Limit(1, SECOND),), jitter=jitter), batch_of(2))
    (permit,), _ = scheduler.assign(0)
    scheduler.sent(permit, 5)
    now = 5
    if answered is not None:
        now += answered
        scheduler.settle(permit, now, now)
    _, wake_at = scheduler.assign(now)
    assert wake_at == 5 + min(jitter, jitter if answered is None else answered) + KEPT
    assert scheduler.assign(wake_at - 1) == ([], wake_at)
    assert len(scheduler.assign(wake_at)[0]) == 1


def test_each_slot_that_comes_back_wakes_exactly() -> None:
    """The second wake-up, which follows from the first, is as exact."""
    scheduler = working(pool_of((Limit(2, SECOND),)), batch_of(4))
    (first, second), _ = scheduler.assign(0)
    answer(scheduler, first, 0)
    answer(scheduler, second, SECOND // 10)
    assert scheduler.assign(SECOND // 10) == ([], KEPT)
    permits, wake_at = scheduler.assign(KEPT)
    assert (len(permits), wake_at) == (1, SECOND // 10 + KEPT)
    assert len(scheduler.assign(SECOND // 10 + KEPT)[0]) == 1


def test_nobody_waits_so_there_is_nothing_to_wake_up_for() -> None:
    """Slots on their way back wake nobody while no call waits, and are there when one comes."""
    scheduler = working(pool_of((Limit(1, SECOND),)), batch_of(1))
    (permit,), _ = scheduler.assign(0)
    answer(scheduler, permit, 0)
    assert scheduler.assign(1) == ([], None)
    scheduler.add(batch_of(1, id=2))
    assert scheduler.assign(1) == ([], KEPT)
    assert len(scheduler.assign(KEPT)[0]) == 1


def test_a_pacer_is_asked_again_when_it_said() -> None:
    """A burst of one spaces the calls, and the instants are the pacer's."""
    scheduler = Scheduler(pool_of((Limit(10, SECOND, burst=1),)), FakePacer)
    scheduler.add(batch_of(3))
    now, instants = 0, []
    while scheduler.waiting:
        permits, wake_at = scheduler.assign(now)
        instants += [now] * len(permits)
        now = wake_at or now
    assert instants[0] == 0
    gaps = [later - earlier for earlier, later in pairwise(instants)]
    assert gaps == pytest.approx([SECOND / 10 / 1.001] * 2, rel=1e-6)


def test_a_call_that_was_not_sent_is_given_back() -> None:
    """What certainly didn't reach the upstream costs nothing."""
    scheduler = working(pool_of((Limit(1, SECOND),)), batch_of(2))
    (permit,), _ = scheduler.assign(0)
    scheduler.settle(permit, 1, None)
    assert len(scheduler.assign(1)[0]) == 1


def test_a_hanging_call_gives_its_slot_back_by_itself() -> None:
    """The slot of a call that never answers is used again while it still hangs, and its end changes nothing."""
    scheduler = working(pool_of((Limit(1, SECOND),), jitter=100 * MILLISECOND), batch_of(3))
    (hanging,), _ = scheduler.assign(0)
    scheduler.sent(hanging, 0)
    back = 100 * MILLISECOND + KEPT
    (second,), _ = scheduler.assign(back)
    assert scheduler.in_flight == 2
    scheduler.settle(hanging, back + 1, None)
    scheduler.sent(second, back + 1)
    assert scheduler.assign(back + 1) == ([], back + 1 + back)


def test_a_retry_waits_for_its_time_and_no_longer() -> None:
    """A call comes again when it is due, with its number and its first waiting time; others go on meanwhile."""
    batch = batch_of(2)
    scheduler = working(pool_of((Limit(9, SECOND),)), batch)
    (permit,), _ = scheduler.assign(40, 1)
    answer(scheduler, permit, 50)
    scheduler.retry(batch, Again(0, 2, permit.queue_time), 700)
    assert scheduler.waiting == batch.waiting == 2
    permits, wake_at = scheduler.assign(60)
    assert [(one.place, one.number) for one in permits] == [(1, 1)]
    assert wake_at == 700
    assert scheduler.assign(699) == ([], 700)
    (again,), wake_at = scheduler.assign(700)
    assert (again.place, again.number, again.queue_time) == (0, 2, 40)
    assert (wake_at, scheduler.waiting) == (None, 0)


def test_due_retries_go_before_first_attempts() -> None:
    """Within a batch what was begun is finished first, with its own cost, in the order of falling due."""
    batch = batch_of(5, costs=[1, 2, 3, 4, 5])
    scheduler = working(pool_of((Limit(90, SECOND, COST),)), batch)
    for permit in scheduler.assign(0, 3)[0]:
        answer(scheduler, permit, 0)
    scheduler.retry(batch, Again(0, 2, 0), 9)
    scheduler.retry(batch, Again(2, 2, 0), 8)
    permits, _ = scheduler.assign(10)
    assert [(one.place, one.number, one.cost) for one in permits] == [(2, 2, 3), (0, 2, 1), (3, 1, 4), (4, 1, 5)]


def test_nothing_of_a_dropped_batch_is_assigned() -> None:
    """Drop hands back the retries that waited, due or not, once, and the others go on."""
    dropped, other = batch_of(10), batch_of(3, id=2)
    scheduler = working(pool_of((Limit(90, SECOND),)), dropped)
    for permit in scheduler.assign(0, 3)[0]:
        answer(scheduler, permit, 0)
    scheduler.retry(dropped, Again(0, 2, 0), 10)
    scheduler.retry(dropped, Again(1, 2, 0), 500)
    scheduler.retry(dropped, Again(2, 2, 0), 600)
    scheduler.add(other)
    scheduler.advance(10)
    waiting, unstarted = scheduler.drop(dropped)
    assert sorted(again.place for again in waiting) == [0, 1, 2]
    assert [*unstarted] == [*range(dropped.total)][-7:]
    assert [[*one] for one in scheduler.drop(dropped)] == [[], []]
    assert (dropped.waiting, scheduler.waiting) == (0, 3)
    scheduler.over(dropped)
    permits, wake_at = scheduler.assign(10)
    assert [permit.batch for permit in permits] == [other] * 3
    assert wake_at is None
    assert scheduler.assign(1000) == ([], None)


def test_a_call_in_flight_outlives_the_drop_of_its_batch() -> None:
    """What went out counts until it is settled and for its window after that."""
    batch = batch_of(2)
    scheduler = working(pool_of((Limit(1, SECOND),)), batch, batch_of(1, id=2))
    (permit,), _ = scheduler.assign(0)
    assert permit.batch is batch
    scheduler.sent(permit, 0)
    scheduler.drop(batch)
    assert (scheduler.in_flight, scheduler.waiting) == (1, 1)
    scheduler.settle(permit, 5, None)
    scheduler.over(batch)
    assert scheduler.assign(5) == ([], KEPT)
    assert len(scheduler.assign(KEPT)[0]) == 1


def test_a_small_batch_does_not_wait_for_a_large_one() -> None:
    """A 10-call batch behind a 2,000-call one gets every second permit."""
    scheduler = working(pool_of((Limit(20, SECOND),)), batch_of(2000), batch_of(10, id=2))
    permits, _ = scheduler.assign(0)
    assert sum(permit.batch.id == 2 for permit in permits) == 10


@pytest.mark.parametrize(("cheap", "dear"), [(1, 1), (1, 10), (5, 50)])
def test_turns_are_weighed_by_the_dominant_share(cheap: int, dear: int) -> None:
    """Where cost is what limits, callers share cost; where calls are, they share calls."""
    by_cost = pool_of((Limit(10_000, SECOND), Limit(1000, SECOND, COST)))
    scheduler = working(by_cost, batch_of(900, costs=[cheap] * 900), batch_of(900, id=2, costs=[dear] * 900))
    spent = Counter[int]()
    for permit in scheduler.assign(0)[0]:
        spent[permit.batch.id] += permit.cost
    assert abs(spent[1] - spent[2]) <= cheap + dear
    by_calls = pool_of((Limit(100, SECOND), Limit(1_000_000, SECOND, COST)))
    scheduler = working(by_calls, batch_of(900, costs=[cheap] * 900), batch_of(900, id=2, costs=[dear] * 900))
    assert Counter(permit.batch.id for permit in scheduler.assign(0)[0]) == {1: 50, 2: 50}


def test_stale_entries_do_not_pile_up() -> None:
    """The heap of keys stays in proportion to the keys, and still knows the best of them."""
    scheduler = Scheduler(pool_of(*[(Limit(50, SECOND),)] * 10), None)
    scheduler.add(batch_of(100_000))
    for now in range(2000):
        (permit,), _ = scheduler.assign(now, 1)
        scheduler.settle(permit, now, None)
        block(scheduler, scheduler.keys[now % 10], now + 1, now)
    assert len(scheduler.keyring._ready[0].heap) <= 2 * 10 + 64 + 1
    permits, _ = scheduler.assign(5000)
    assert Counter(labels(permits)) == {f"key-{place}": 50 for place in range(10)}


def test_no_timer_per_call() -> None:
    """Ten thousand calls on their way leave a handful of wake-ups behind, not one each."""
    scheduler = working(pool_of((Limit(10_000, SECOND),), jitter=MILLISECOND), batch_of(20_000))
    permits, _ = scheduler.assign(0)
    for place, permit in enumerate(permits):
        scheduler.sent(permit, place)
    for place, permit in enumerate(permits):
        scheduler.settle(permit, 20_000 + place, 20_000 + place)
    assert len(scheduler.keyring._alarms) <= 4


def test_a_pool_is_usable_while_a_breaker_is_closed() -> None:
    """A key that is blocked or spent may be used later; one that is rejected may never."""
    scheduler = working(pool_of((Limit(1, SECOND),), (Limit(1, SECOND),)), batch_of(9))
    block(scheduler, scheduler.keys[0], MINUTE)
    scheduler.assign(0)
    assert scheduler.usable()
    for key in scheduler.keys:
        assert scheduler.usable()
        for _ in range(3):
            key.breaker.failed(0, key.breaker.began(0))
        scheduler.judged(key, 0)
    assert not scheduler.usable()


def test_a_pool_whose_upstream_fails_is_not_usable() -> None:
    """However well its keys are."""
    scheduler = working(pool_of((Limit(9, SECOND),)), batch_of(9))
    for _ in range(20):
        scheduler.breaker.failed(0, scheduler.breaker.began(0))
    assert not scheduler.usable()
    assert scheduler.assign(0) == ([], SECOND)
    assert len(scheduler.assign(SECOND)[0]) == 1  # the probe
