"""When batches will be done whose calls meet different limits."""

from __future__ import annotations

from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import Final

import pytest

from apiflux_grpc.core.batch import Batch, FedCall
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.classes import Classes
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import SECOND
from tests.core.desk import Desk
from tests.core.refusing import LATENCY, Arrival, ok
from tests.core.refusing import pool_of as pool_with

SEARCH: Final = ("/search/",)
WIDE: Final = Limit(100, SECOND)
TEN: Final = Limit(10, SECOND, paths=SEARCH)
WALL: Final = datetime(2026, 1, 1, tzinfo=UTC)


def pool_grouped() -> Pool:
    keys = tuple(Key(f"key-{place}", "secret", (WIDE,)) for place in range(3))
    return Pool("pool", keys, 0, groups=(Group(("key-0", "key-1", "key-2"), (TEN,)),))


def batch_to(id: int, /, **calls: int) -> Batch:
    """A batch of a caller of its own: so many calls of each path."""
    made = [Call(path=f"/{path}/x") for path, count in calls.items() for _ in range(count)]
    return Batch(id, f"caller-{id}", len(made), admitted_at=0, calls=made)


def run(pool: Pool, batches: list[Batch], at: int) -> tuple[dict[int, int | None], int | None, dict[int, int]]:
    """What is told at an instant of each batch and of all, and when they were done then: ns from that instant."""
    dispatcher = Dispatcher(pool, None)
    for batch in batches:
        dispatcher.submit(batch, 0)
    told: dict[int, int | None] = {}
    ends: dict[int, int] = {}
    drain: int | None = None
    flying: list[tuple[int, int, Permit]] = []
    now = count = 0
    while any(not batch.finished for batch in batches):
        permits, wake_at = dispatcher.assign(now, FAR)
        for permit in permits:
            dispatcher.sent(permit, now)
            count += 1
            heappush(flying, (now + LATENCY, count, permit))
        if now == at:
            dispatcher.tick(now)
            told = {batch.id: batch.eta for batch in batches if not batch.finished}
            drain = dispatcher.info(now).drain_time
        soon = FAR if wake_at is None or wake_at <= now else wake_at
        now = min(at if now < at else FAR, soon, flying[0][0] if flying else FAR)
        while flying and flying[0][0] <= now:
            _, _, permit = heappop(flying)
            dispatcher.settle(permit, ok(Arrival(0, "", now - LATENCY)), now, WALL, 0.5)
            if permit.batch.finished:
                ends[permit.batch.id] = now - at
    return told, drain, ends


@pytest.mark.parametrize("at", [0, SECOND, 5 * SECOND])
@pytest.mark.parametrize(
    ("pool", "batches"),
    [
        # The searches of a batch take longest, or all else.
        (pool_with(1, WIDE, TEN), [{"search": 200, "other": 300}]),
        (pool_with(1, WIDE, TEN), [{"search": 20, "other": 3000}]),
        (pool_with(3, WIDE, TEN), [{"search": 600, "other": 30}]),
        (pool_with(1, WIDE, TEN), [{"search": 100}, {"search": 200, "other": 50}]),
        # Keys that share the limit of searches.
        (pool_grouped(), [{"search": 200, "other": 50}]),
        # A path within another meets both limits.
        (
            pool_with(1, WIDE, Limit(20, SECOND, paths=("/v1/",)), Limit(10, SECOND, paths=("/v1/chat/",))),
            [{"v1/chat": 100, "v1/list": 300}],
        ),
    ],
)
def test_an_eta_is_that_of_the_calls_that_take_longest(pool: Pool, batches: list[dict[str, int]], at: int) -> None:
    """Of each batch and of all, within 10 %, whichever limits bind."""
    told, drain, ends = run(pool, [batch_to(id, **calls) for id, calls in enumerate(batches, 1)], at)
    for id, eta in told.items():
        assert eta == pytest.approx(ends[id], rel=0.1, abs=SECOND // 2), id
    assert drain == pytest.approx(max(ends.values()), rel=0.1, abs=SECOND // 2)


@pytest.mark.parametrize("pool", [pool_with(2, WIDE), pool_with(1, WIDE, TEN)], ids=["plain", "with paths"])
def test_calls_that_are_expected_count_as_those_that_came(pool: Pool) -> None:
    """A stream that says how many it will have is told when all are done, as if it had come whole; and no longer than
    it is still fed."""
    etas: list[int] = []
    for fed in (500, 50):
        desk = Desk(pool)
        stream = Batch(1, "a", 0, admitted_at=0, fed=True, expected=500)
        desk.submit(stream)
        desk.dispatcher.tick(0)
        if etas:  # of the paths of calls nothing is known yet
            assert stream.eta == (pytest.approx(etas[0], rel=0.01) if len(pool.keys) == 2 else None)
        desk.dispatcher.feed(stream, [FedCall(index, Call(path="/search/x"), 1) for index in range(fed)], (), 0)
        desk.dispatcher.tick(0)
        assert stream.eta is not None
        etas.append(stream.eta)
        assert stream.to_come == 500 - fed
    assert etas[1] == pytest.approx(etas[0], rel=0.01)
    desk.dispatcher.end(stream)
    desk.now = 2 * SECOND
    desk.dispatcher.tick(desk.now)
    assert stream.to_come == 0
    assert stream.eta is not None
    assert stream.eta < etas[0] / 5


def test_calls_in_flight_are_done_when_they_end() -> None:
    """They wait for no limit, however long it is spent; and until one has ended nobody knows how long they take."""
    desk = Desk(pool_with(1, Limit(10, 60 * SECOND)))
    batch = batch_to(1, other=10)
    desk.submit(batch)
    permits = desk.assign()
    desk.dispatcher.tick(desk.now)
    assert batch.eta is None
    desk.now = 8 * SECOND
    desk.answer(permits[0])
    desk.dispatcher.tick(desk.now)
    assert batch.waiting == 0
    assert batch.eta == 8 * SECOND


def test_what_one_batch_expects_delays_no_other_beyond_its_share() -> None:
    """However many calls a caller says that it will have: others of the pool get their half at once."""
    desk = Desk(pool_with(1, WIDE))
    stream, other = Batch(1, "a", 0, admitted_at=0, fed=True, expected=10**12), batch_to(2, other=300)
    desk.submit(stream)
    desk.submit(other)
    desk.dispatcher.tick(0)
    assert other.eta == pytest.approx(5 * SECOND, rel=0.1)  # 600 calls at 100 a second, the first at once


@pytest.mark.parametrize(
    ("limits", "batches", "rates"),
    [
        ([Limit(100, SECOND)], [("a", 1.0)], [200.0]),
        ([Limit(100, SECOND), Limit(600, 60 * SECOND)], [("a", 1.0)], [20.0]),
        ([Limit(100, SECOND)], [("a", 1.0), ("b", 3.0)], [100.0, 100.0]),
        ([Limit(100, SECOND)], [("a", 1.0), ("a", 3.0)], [50.0, 150.0]),
        ([Limit(100, SECOND, Counts.COST)], [("a", 1.0)], [200.0]),
        ([], [("a", 1.0)], [None]),
    ],
)
def test_a_rate_is_what_the_limits_allow_by_the_batchs_share(
    limits: list[Limit], batches: list[tuple[str, float]], rates: list[float | None]
) -> None:
    """In the long run, with two keys; whoever has no call left has no share, and without limits there is no rate."""
    desk = Desk(Pool("pool", tuple(Key(label, "secret", tuple(limits)) for label in ("a", "b"))))
    made = [Batch(id, who, 1000, admitted_at=0, weight=weight) for id, (who, weight) in enumerate(batches)]
    for batch in [*made, Batch(99, "done", 0, admitted_at=0, fed=True)]:
        desk.submit(batch)
    for _ in range(3):  # whatever was sent of late
        desk.dispatcher.tick(desk.now)
        assert [batch.rate for batch in made] == [
            rate if rate is None else pytest.approx(rate, rel=0.01) for rate in rates
        ]
        desk.assign()
        desk.now += 100 * SECOND // 1000


def test_a_stream_whose_calls_are_all_in_flight_has_its_rate() -> None:
    """More are expected, and they will go at that pace."""
    desk = Desk(pool_with(1, WIDE))
    stream = Batch(1, "a", 0, admitted_at=0, fed=True, expected=500)
    desk.submit(stream)
    desk.dispatcher.feed(stream, [FedCall(0, Call(), 1)], (), 0)
    desk.assign()
    desk.dispatcher.tick(0)
    assert stream.waiting == 0
    assert stream.rate == pytest.approx(100, rel=0.01)


def test_a_rate_is_that_of_the_limits_that_calls_meet() -> None:
    """Whoever makes other calls shares the rest of the pool; of a batch that meets both limits it isn't known."""
    desk = Desk(pool_with(1, WIDE, TEN))
    searching, again, other, both = (
        batch_to(1, search=100),
        batch_to(2, search=100),
        batch_to(3, other=100),
        batch_to(4, search=10, other=10),
    )
    for batch in (searching, again, other):
        desk.submit(batch)
    desk.dispatcher.tick(0)
    assert searching.rate == again.rate == pytest.approx(5, rel=0.01)
    assert other.rate == pytest.approx(90, rel=0.01)
    desk.submit(both)
    desk.dispatcher.tick(0)
    assert searching.rate == again.rate == pytest.approx(5, rel=0.01)
    assert other.rate == pytest.approx(45, rel=0.01)
    assert both.rate is None


def test_what_a_batch_cannot_use_of_its_share_goes_to_its_own_caller_first() -> None:
    """As the turns do."""
    desk = Desk(pool_with(1, WIDE, TEN))
    searching, sibling, other = batch_to(1, search=100), batch_to(2, other=100), batch_to(3, other=100)
    sibling.caller = searching.caller
    for batch in (searching, sibling, other):
        desk.submit(batch)
    desk.dispatcher.tick(0)
    assert [batch.rate for batch in (searching, sibling, other)] == [
        pytest.approx(rate, rel=0.01) for rate in (10, 40, 50)
    ]


def test_a_rate_counts_how_long_calls_take() -> None:
    """If no more are in flight at once than a key may have: two of a second each are two a second."""
    key = Key("a", "secret", (Limit(1000, SECOND),), max_in_flight=2)
    desk = Desk(Pool("pool", (key,)))
    batch = batch_to(1, other=1000)
    desk.submit(batch)
    for _ in range(60):
        permits = desk.assign()
        desk.now += SECOND
        for permit in permits:
            desk.answer(permit)
    desk.dispatcher.tick(desk.now)
    assert batch.rate == pytest.approx(2.0, rel=0.1)


def test_who_makes_other_calls_waits_for_no_searches() -> None:
    """Not a tenth as long as the searches take; at most as long as if both shared the whole pool."""
    batches = [batch_to(1, search=600), batch_to(2, other=300)]
    told, _, ends = run(pool_with(1, WIDE, TEN), batches, 0)
    assert told[2] is not None
    assert ends[2] <= told[2] <= 2 * ends[2] + SECOND


def test_what_holds_searches_back_is_in_the_eta_of_those_who_search() -> None:
    """A block of their limit alone; other batches are done meanwhile, and a deadline of theirs is."""
    desk = Desk(pool_with(1, WIDE, TEN))
    searching, other = batch_to(1, search=12), batch_to(2, other=200)
    desk.submit(searching)
    first, *_ = desk.assign()
    desk.answer(first, 429, retry_after="600", ratelimit_limit="10", ratelimit_remaining="0")
    desk.submit(other)
    desk.dispatcher.tick(desk.now)
    assert searching.eta is not None
    assert other.eta is not None
    assert searching.eta > 600 * SECOND
    assert other.eta < 10 * SECOND
    assert desk.dispatcher.info(desk.now).drain_time == searching.eta
    for calls, feasible in ({"search": 1}, False), ({"other": 1}, True):
        late = batch_to(3, **calls)
        late.deadline = 60 * SECOND
        desk.submit(late)
        assert (late.ending is None) == feasible


def test_a_class_has_those_within_it() -> None:
    """A class's calls meet its limits, and so do those of every class that meets more."""
    classes = Classes([WIDE, TEN, Limit(9, SECOND, paths=("/v1/",)), Limit(9, SECOND, paths=("/v1/chat/",))])
    numbers = {path: classes.of(path) for path in ("/", "/search/x", "/v1/x", "/v1/chat/x")}
    assert {path: {*classes.within(number)} for path, number in numbers.items()} == {
        "/": {*range(4)},
        "/search/x": {numbers["/search/x"]},
        "/v1/x": {numbers["/v1/x"], numbers["/v1/chat/x"]},
        "/v1/chat/x": {numbers["/v1/chat/x"]},
    }
