"""The contract of a lease store: rounds are served once and whole, in their order, by one protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from apiflux_grpc.adapters.lease_redis.store import RedisLeaseStore
from apiflux_grpc.adapters.lease_sqlite import SqliteLeaseStore
from apiflux_grpc.core.lease.words import NOTHING, Allotted, Amounts, Asked, Cap, Fact, Held, Reply, Round
from apiflux_grpc.core.redis_url import parse_redis_url
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.ports import LeaseStore
from apiflux_grpc.testing import FakeLeaseStore
from tests.adapters.lease_redis.rounds import without_probation
from tests.adapters.lease_redis.servers import RedisServer, found, program

FIRST: Final = Round("key", "a", 1, (Cap(60 * SECOND, 10),), 600 * MILLISECOND, 250 * MILLISECOND, trust=True)


Make = Callable[[], LeaseStore]


def fake(_: Path) -> LeaseStore:
    return FakeLeaseStore(lambda: SECOND, steady=True)


def sqlite(directory: Path) -> LeaseStore:
    return SqliteLeaseStore(directory / "budgets.sqlite3", lambda: SECOND, lambda: 0, "boot")


@pytest.fixture(scope="session")
def url_of() -> Iterator[Callable[[str], str]]:
    """Where the Redis runs that was found under this name."""
    with ExitStack() as servers:
        yield cache(lambda name: servers.enter_context(RedisServer(found().get(name) or program())).url)


@pytest.fixture(params=[fake, sqlite, *(found() or ["redis"])], ids=lambda made: getattr(made, "__name__", made))
async def make(
    request: pytest.FixtureRequest, tmp_path: Path, url_of: Callable[[str], str]
) -> AsyncIterator[Callable[[], LeaseStore]]:
    """Makes a store, which is closed in the end: twice, as pools that share it do."""
    made: list[LeaseStore] = []

    def make() -> LeaseStore:
        if isinstance(request.param, str):
            url = url_of(request.param)
            with Redis.from_url(url) as redis:
                redis.flushall()
            made.append(RedisLeaseStore(parse_redis_url(url), without_probation()))
        else:
            made.append(request.param(tmp_path))
        return made[-1]

    yield make
    for store in made * 2:
        await store.close()


async def one(store: LeaseStore, round: Round) -> Reply:
    (reply,) = await store.exchange([round])
    assert reply is not None
    return reply


async def test_rounds_of_several_budgets_are_answered_in_their_order(make: Make) -> None:
    """Each budget has its own state; no rounds, no replies."""
    store = make()
    rounds = [FIRST._replace(budget=name, want=Amounts(want)) for name, want in (("x", 3), ("y", 20), ("z", 0))]
    replies = await store.exchange(rounds)
    assert [reply.granted.calls for reply in replies if reply is not None] == [3, 10, 0]
    assert list(await store.exchange([])) == []


async def test_a_round_is_served_once(make: Make) -> None:
    """Asked again it gets the same reply, word for word, and another's is its own."""
    store = make()
    reply = await one(store, FIRST._replace(want=Amounts(4)))
    assert await one(store, FIRST._replace(want=Amounts(4))) == reply
    assert (await one(store, FIRST._replace(incarnation="b", want=Amounts(9)))).granted.calls == 6


async def test_what_one_returns_another_gets(make: Make) -> None:
    """A lease that isn't listed comes back at once."""
    store = make()
    reply = await one(store, FIRST._replace(want=Amounts(10)))
    assert (await one(store, FIRST._replace(incarnation="b", want=Amounts(1)))).granted.calls == 0
    after = FIRST._replace(number=2, epoch=reply.epoch, told=reply.now, floor=reply.now)
    await one(store, after._replace(held=(Held(1, NOTHING, Amounts(9)),)))
    after = after._replace(incarnation="b", want=Amounts(9))
    assert (await one(store, after)).granted.calls == 9


async def test_what_one_tells_all_hear(make: Make) -> None:
    """Each with its reply, as long as it lives; of one name what ends later holds, and of equal ends the larger."""
    store = make()
    told = (Fact("x", 3, 60 * SECOND), Fact("z", 0, 70 * SECOND))
    await one(store, FIRST._replace(facts=told))
    more = (Fact("x", 9, 50 * SECOND), Fact("y", 10**12, 366 * 24 * 3600 * SECOND), Fact("z", 2, 90 * SECOND))
    reply = await one(store, FIRST._replace(incarnation="b", facts=more))
    heard = {fact.name: fact for fact in reply.facts}
    assert {name: fact.amount for name, fact in heard.items()} == {"x": 3, "y": 10**12, "z": 2}
    assert 50 * SECOND < heard["x"].left <= 60 * SECOND
    assert heard["y"] in more


async def test_a_claim_is_one_replicas_until_it_stops_listing_it(make: Make) -> None:
    """The first that asks has it, and hears so each time; then the next."""
    store = make()
    first = await one(store, FIRST._replace(claims=("p",)))
    second = await one(store, FIRST._replace(incarnation="b", claims=("p", "q")))
    assert (first.claims, second.claims) == (("p",), ("q",))
    again = FIRST._replace(number=2, epoch=first.epoch, told=first.now, floor=first.now)
    assert (await one(store, again._replace(claims=("p",)))).claims == ("p",)
    assert (await one(store, again._replace(number=3))).claims == ()
    assert set((await one(store, again._replace(incarnation="b", claims=("p", "q")))).claims) == {"p", "q"}


async def test_a_store_that_is_gone_says_so() -> None:
    """By an error of its own kind, and what was known stays known."""
    store = FakeLeaseStore(lambda: SECOND, steady=True)
    await one(store, FIRST._replace(want=Amounts(10)))
    store.gone = True
    with pytest.raises(ConnectionError):
        await store.exchange([FIRST])
    store.gone = False
    assert (await one(store, FIRST._replace(incarnation="b", want=Amounts(1)))).granted.calls == 0


async def test_calls_in_flight_are_allotted_and_come_back_when_it_is_said(make: Make) -> None:
    """Never more than the lower bound in all; and who is told of less has it charged until it keeps to that."""
    store = make()
    first = FIRST._replace(budget="key#in-flight", caps=(), jitter=0, life=SECOND, slots=Asked(6, 30 * SECOND, 0, 9))
    reply = await one(store, first)
    assert reply.slots == Allotted(6, 6, scarce=False, timeout=30 * SECOND)
    assert await one(store, first) == reply
    other = first._replace(incarnation="b", slots=Asked(4, 30 * SECOND, 0, 2))
    told = await one(store, other)
    assert told.slots == Allotted(0, 4, scarce=True, timeout=30 * SECOND)
    terms: dict[str, Any] = {"epoch": reply.epoch, "told": reply.now, "floor": reply.now}
    less = await one(store, first._replace(number=2, slots=Asked(6, 30 * SECOND, 6, 9), **terms))
    assert less.slots == Allotted(2, 4, scarce=True, timeout=30 * SECOND)
    await one(store, first._replace(number=3, slots=Asked(6, 30 * SECOND, 2, 9), **terms))
    assert (await one(store, other._replace(number=2, **terms))).slots == Allotted(
        2, 4, scarce=True, timeout=30 * SECOND
    )


async def test_a_frozen_budget_is_opened_by_hand(make: Make) -> None:
    """Whoever waits is granted with its next round; an unknown budget stays unknown, and the next finds it empty."""
    store = make()
    visitor = Round("key", "visitor", 1, (), 0, 0, leaves=True, thaw=True)
    unknown = visitor._replace(budget="unknown")
    reply = await one(store, FIRST._replace(trust=False))
    assert reply.opens >= 60 * SECOND
    thawed, missing = await store.exchange([visitor, unknown])
    assert thawed is not None
    assert missing is not None
    assert (thawed.epoch, thawed.opens >= 60 * SECOND, missing.epoch) == (reply.epoch, True, "")
    after = FIRST._replace(number=2, epoch=reply.epoch, told=reply.now, floor=reply.now, want=Amounts(4))
    reply = await one(store, after)
    assert (reply.granted.calls, reply.roster) == (4, frozenset("a"))
    assert (await one(store, FIRST._replace(budget="unknown", want=Amounts(4)))).granted.calls == 4
