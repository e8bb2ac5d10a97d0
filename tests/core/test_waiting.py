"""What calls wait for in the ordinary course is told with the limit, the keys and the time."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.batch import Batch, FedCall
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Unknown
from apiflux_grpc.core.retries import Retries
from apiflux_grpc.core.units import SECOND
from tests.core.building import KEPT
from tests.core.desk import POOL, Desk, batch_of

TEN = Limit(10, SECOND)


def keys(count: int, *limits: Limit) -> tuple[Key, ...]:
    return tuple(Key(f"key-{place}", "secret", limits) for place in range(count))


def spend(desk: Desk, batch: Batch, status: int = 200) -> None:
    """Submit it, and have all that can go answered at once."""
    desk.submit(batch)
    for permit in desk.assign():
        desk.answer(permit, status)


def told(desk: Desk, batch: Batch) -> Held | None:
    desk.dispatcher.tick(desk.now)
    return batch.waits_for


def test_a_spent_limit_is_told_until_something_of_it_comes_back() -> None:
    """With the number of the keys, and since it was first seen; there is nothing to tell while any has room."""
    desk, batch = Desk(), batch_of(50)
    desk.submit(batch)
    assert told(desk, batch) is None
    for permit in desk.assign():
        desk.answer(permit)
    desk.now = 1
    assert told(desk, batch) == Held(Cause.SPENT, "10/1s of 2 keys", 1, KEPT, ("key-0", "key-1"), 2)
    desk.now = SECOND // 2
    assert told(desk, batch) == Held(Cause.SPENT, "10/1s of 2 keys", 1, KEPT, ("key-0", "key-1"), 2)
    assert batch.held_by == ()
    desk.now = KEPT
    assert told(desk, batch) is None


def test_a_key_with_room_is_enough() -> None:
    """Whatever the others wait for."""
    slow = Key("slow", "secret", (Limit(3, 60 * SECOND),))
    desk, batch = Desk(Pool("pool", (slow, *keys(1, TEN)))), batch_of(50)
    spend(desk, batch)
    assert told(desk, batch) is not None
    desk.now = KEPT
    assert told(desk, batch) is None


def test_who_has_all_calls_in_flight_waits_for_no_limit() -> None:
    """Whatever others wait for."""
    desk, batch, other = Desk(), batch_of(20), batch_of(1, id=2)
    desk.submit(batch)
    desk.assign()
    desk.submit(other)
    assert told(desk, batch) is None
    assert told(desk, other) is not None


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (Pool("pool", keys(1, TEN)), "10/1s of key-0"),
        (Pool("pool", keys(2, TEN, Limit(20, 60 * SECOND))), "10/1s of 2 keys"),
        (Pool("pool", keys(2, TEN, Limit(10, 60 * SECOND))), "10/60s of 2 keys"),
        (Pool("pool", keys(2, Limit(30, SECOND, Counts.COST))), "30 cost/1s of 2 keys"),
        (
            Pool("pool", keys(2, Limit(100, SECOND)), groups=(Group(("key-0", "key-1"), (TEN,)),)),
            "10/1s of 2 keys together",
        ),
        (Pool("pool", (*keys(1, TEN), Key("slow", "secret", (Limit(3, 60 * SECOND),)))), "10/1s of key-0"),
    ],
)
def test_the_limit_that_binds_last_is_told(pool: Pool, words: str) -> None:
    """Of several limits of a key the one that has room last, of several keys the one that has room first."""
    desk, batch = Desk(pool), batch_of(500)
    spend(desk, batch)
    waits_for = told(desk, batch)
    assert waits_for is not None
    assert waits_for.reason == words


def test_a_key_that_more_than_its_limits_holds_back_is_left_out() -> None:
    """Its own reason is told beside; if no other key is left, that alone is."""
    alone, other = Desk(Pool("pool", keys(1, TEN))), batch_of(500)
    spend(alone, other, 401)
    assert told(alone, other) is None
    assert [held.reason for held in other.held_by] == ["rejected with 401"]
    desk, batch = Desk(), batch_of(500)
    desk.submit(batch)
    for permit in desk.assign():
        desk.answer(permit, 401 if permit.key.index else 200)
    waits_for = told(desk, batch)
    assert waits_for is not None
    assert waits_for.reason == "10/1s of key-0"
    assert [held.reason for held in batch.held_by] == ["rejected with 401"]


def test_a_key_with_all_the_calls_in_flight_that_it_may_have_is_left_out() -> None:
    """What it waits for is an answer."""
    key = Key("key-0", "secret", (TEN,), max_in_flight=3)
    desk, batch = Desk(Pool("pool", (key,))), batch_of(50)
    desk.submit(batch)
    desk.assign()
    assert told(desk, batch) is None


def test_calls_that_meet_other_limits_are_told_of_theirs() -> None:
    """Who has calls of both kinds waits for a limit only if both do, and is told the one that has room first."""
    desk = Desk(Pool("pool", keys(1, Limit(5, 2 * SECOND), Limit(3, 60 * SECOND, paths=("/search/",)))))
    searching, both = (
        Batch(id, "caller", len(paths), admitted_at=0, calls=[Call(path=path) for path in paths])
        for id, paths in ((1, ["/search/x"] * 9), (2, ["/search/x", "/other"] * 9))
    )
    desk.submit(searching)
    for permit in desk.assign():
        desk.answer(permit)
    desk.submit(both)
    waits_for = told(desk, searching)
    assert waits_for is not None
    assert waits_for.reason == "3/60s for /search/ of key-0"
    assert both.waits_for is None
    for permit in desk.assign():
        desk.answer(permit)
    waits_for = told(desk, both)
    assert waits_for is not None
    assert waits_for.reason == "5/2s of key-0"


def test_a_limit_of_cost_that_has_room_for_less_is_told() -> None:
    """By what the next call of that class costs, whoever's turn it is."""
    limits = (Limit(100, 10 * SECOND, Counts.COST), Limit(50, 60 * SECOND, Counts.COST, paths=("/search/",)))
    desk = Desk(Pool("pool", keys(1, *limits)))
    searching, other = (
        Batch(id, f"caller-{id}", 9, admitted_at=0, calls=[Call(path=path)] * 9, costs=[30] * 9)
        for id, path in ((1, "/search/x"), (2, "/other"))
    )
    desk.submit(searching)
    spend(desk, other)
    waits_for = told(desk, searching)
    assert waits_for is not None
    assert waits_for.reason == "50 cost/60s for /search/ of key-0"


def test_the_time_of_the_next_attempt_is_told_if_nothing_else_is_left() -> None:
    """Not while a call is in flight, and not if the upstream itself asked for the wait."""
    policy = RetryPolicy(initial_backoff=4 * SECOND)
    desk, batch = Desk(POOL), batch_of(2, policy=policy)
    desk.submit(batch)
    first, second = desk.assign()
    desk.end(first, Unknown("cut"), draw=0.5)
    assert told(desk, batch) is None
    desk.end(second, Unknown("cut"), draw=0.75)
    waits_for = told(desk, batch)
    assert waits_for == Held(Cause.BACKOFF, "the next attempt of 2 calls", 0, 2 * SECOND)


def test_calls_that_wait_for_their_next_attempt_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches have only such calls; each is told its own first."""
    desk = Desk(POOL)
    batches = [batch_of(2, policy=RetryPolicy(initial_backoff=place * SECOND), id=place) for place in range(1, 6)]
    for batch in batches:
        desk.submit(batch)
        for permit in desk.assign():
            desk.end(permit, Unknown("cut"), draw=0.5)
    looks: list[Retries] = []
    each = Retries.first_of_each

    def look(retries: Retries) -> dict[int, int]:
        looks.append(retries)
        return each(retries)

    monkeypatch.setattr(Retries, "first_of_each", look)
    assert [held and held.until for held in (told(desk, batch) for batch in batches)] == [
        place * SECOND // 2 for place in range(1, 6)
    ]
    assert len(looks) == len(batches)  # a tick each


def test_a_stream_without_calls_waits_for_nothing() -> None:
    """Those that are still expected can't be told what holds them."""
    desk, stream = Desk(), Batch(1, "caller", 0, admitted_at=0, fed=True, expected=500)
    spend(desk, batch_of(20, id=2))
    desk.submit(stream)
    assert told(desk, stream) is None
    desk.dispatcher.feed(stream, [FedCall(0, Call(), 1)], (), 0)
    assert told(desk, stream) is not None
