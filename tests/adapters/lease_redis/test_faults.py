"""What a Redis may do: it is killed, hangs, forgets, is slow, or the way to it breaks. Whatever it is, the store says
so in a bounded time, nothing is served twice, and it goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from apiflux_grpc.core.lease.words import Amounts, Asked, Round
from apiflux_grpc.core.units import SECOND
from tests.adapters.lease_redis.proxy import Proxy
from tests.adapters.lease_redis.rounds import FIRST, answered, next_of, one, store_at
from tests.adapters.lease_redis.servers import RedisServer
from tests.adapters.sender.waiting import until


def calls(server: RedisServer) -> int:
    """How often it has run a script."""
    told: Any = server.client.info("commandstats")
    return int(told["cmdstat_evalsha"]["calls"])


def expiries(server: RedisServer) -> dict[bytes, int]:
    """In how many ms each of its keys goes away; -1: never."""
    client: Any = server.client
    return {key: client.pttl(key) for key in client.scan_iter("*")}


Begin = Callable[..., RedisServer]


async def test_a_server_that_is_killed_is_gone_until_it_is_back(begin: Begin) -> None:
    """Table: Redis down. It is said, and then its first answer is to the next who asks; it has forgotten, so the
    budget is frozen (rule 8)."""
    server = begin()
    async with store_at(server.url) as store:
        reply = await one(store, FIRST)
        assert reply.granted == Amounts(1)
        server.kill()
        after = next_of(FIRST, reply)
        for _ in range(3):
            with pytest.raises(ConnectionError, match="is gone"):
                await store.exchange([after])
        server.start()
        again = await one(store, after)
        assert (again.granted, again.epoch != reply.epoch) == (Amounts(), True)
        assert again.opens > 60e9


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_hangs_is_gone_until_it_goes_on(begin: Begin) -> None:
    """Rule 2: what it was asked while it hung is served then, and whoever asks again gets that grant, not another."""
    server = begin()
    async with store_at(server.url) as store:
        reply = await answered(store, FIRST)
        server.stop()
        after = next_of(FIRST, reply, want=Amounts(4))
        with pytest.raises(ConnectionError):
            await store.exchange([after])
        server.go_on()
        assert (await answered(store, after)).granted == Amounts(4)
        other = await answered(store, FIRST._replace(incarnation="b", want=Amounts(10)))
        assert other.granted == Amounts(6)


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_is_busy_for_too_long_is_gone(begin: Begin) -> None:
    """DEBUG SLEEP: the same as if it hung."""
    server = begin()
    async with store_at(server.url) as store:
        reply = await answered(store, FIRST)
        is_gone = False
        while not is_gone:  # a machine that stands still for a moment asks when it is over
            asleep = asyncio.create_task(asyncio.to_thread(server.sleep, 0.5))
            while not (asleep.done() or is_gone):
                try:
                    await store.exchange([next_of(FIRST, reply)])
                except ConnectionError:
                    is_gone = True
            await asleep
        assert (await answered(store, next_of(FIRST, reply))).epoch == reply.epoch


async def test_a_flush_is_noticed(server: RedisServer) -> None:
    """Rule 8: the run of the server is the same, but the epoch is another, and the budget is frozen."""
    async with store_at(server.url) as store:
        reply = await one(store, FIRST)
        server.flush()
        again = await one(store, next_of(FIRST, reply))
        assert (again.epoch != reply.epoch, again.granted) == (True, Amounts())
        assert again.opens > 75e9, "T + L + J + failover_lag"


async def test_nothing_that_is_kept_expires(server: RedisServer) -> None:
    """Rule 8: an entry that went away by itself would be taken for one that never was. Nor of calls in flight, of who
    has left, of a flushed and a thawed budget."""
    async with store_at(server.url) as store:
        await store.check()
        reply = await one(store, FIRST)
        slots = FIRST._replace(budget="key#in-flight", caps=(), jitter=0, life=SECOND, slots=Asked(6, SECOND, 0, 9))
        await one(store, slots)
        await one(store, next_of(FIRST, reply, leaves=True))
        before = expiries(server)
        server.flush()
        await store.check()
        await one(store, next_of(FIRST, reply))
        await one(store, Round("key", "who thaws", 1, (), 0, 0, leaves=True, thaw=True))
        after = expiries(server)
    assert before.keys() == {b"apiflux:layout", b"apiflux:budget:key", b"apiflux:budget:key#in-flight"}
    assert after.keys() == {b"apiflux:layout", b"apiflux:budget:key"}
    assert {*before.values(), *after.values()} == {-1}


async def test_a_restart_is_noticed_though_nothing_was_lost(begin: Begin) -> None:
    """Rule 8: the script reads the run of the server itself."""
    server = begin()
    async with store_at(server.url) as store:
        reply = await one(store, FIRST)
        kept = server.client.dump("apiflux:budget:key")
        assert kept is not None
        server.restart()
        server.client.restore("apiflux:budget:key", 0, kept)
        again = await answered(store, next_of(FIRST, reply))
        assert (again.epoch != reply.epoch, again.granted) == (True, Amounts())


async def test_a_script_that_the_server_has_forgotten_is_told_again(server: RedisServer) -> None:
    """All rounds of an exchange are served, and each once."""
    async with store_at(server.url) as store:
        rounds = [FIRST._replace(budget=name, want=Amounts(2)) for name in ("x", "y", "z")]
        await store.exchange(rounds)
        server.client.script_flush()
        replies = await store.exchange([round._replace(incarnation="b", want=Amounts(20)) for round in rounds])
        assert [reply.granted for reply in replies if reply is not None] == [Amounts(8)] * 3


async def test_a_slow_way_is_waited_for(server: RedisServer) -> None:
    """As long as it is within the bound."""
    async with Proxy(server.port) as proxy, store_at(proxy.url) as store:
        proxy.delay = 0.02
        assert (await one(store, FIRST)).granted == Amounts(1)


@pytest.mark.usefixtures("hasty")
async def test_a_reply_that_is_lost_is_told_again(server: RedisServer) -> None:
    """Table: reply lost. The way is half open, then cut: asked again under the same number it's the same grant."""
    async with Proxy(server.port) as proxy, store_at(proxy.url) as store:
        reply = await answered(store, FIRST)
        after = next_of(FIRST, reply, want=Amounts(3))
        proxy.deaf = True
        with pytest.raises(ConnectionError):
            await store.exchange([after])
        proxy.deaf = False
        proxy.cut()
        assert (await answered(store, after)).granted == Amounts(3)
        other = await answered(store, FIRST._replace(incarnation="b", want=Amounts(10)))
        assert other.granted == Amounts(7)


@pytest.mark.usefixtures("hasty")
async def test_a_way_that_is_half_open_is_left(server: RedisServer) -> None:
    """Nothing is heard, and nobody says so: the bound ends it, and the next exchange goes another way."""
    async with Proxy(server.port) as proxy, store_at(proxy.url) as store:
        await answered(store, FIRST)
        proxy.silent = True
        with pytest.raises(ConnectionError):
            await store.exchange([FIRST._replace(incarnation="b")])
        proxy.silent = False
        before = proxy.taken
        assert (await answered(store, FIRST._replace(incarnation="b"))).granted == Amounts(1)
        assert proxy.taken > before


async def test_nothing_is_sent_twice(server: RedisServer) -> None:
    """Rule 3: redis-py's own retries are off, so a cut while a reply is awaited is told at once."""
    async with Proxy(server.port) as proxy, store_at(proxy.url) as store:
        reply = await one(store, FIRST)
        before = calls(server)
        proxy.deaf = True
        asked = asyncio.create_task(store.exchange([next_of(FIRST, reply)]))
        await until(lambda: calls(server) > before)
        proxy.deaf = False
        proxy.cut()
        with pytest.raises(ConnectionError):
            await asked
        assert calls(server) == before + 1


async def test_what_was_sent_is_never_cancelled(server: RedisServer) -> None:
    """Rule 3: whoever asked may be cancelled; the command is answered, and its connection is used again."""
    async with Proxy(server.port) as proxy, store_at(proxy.url) as store:
        reply = await one(store, FIRST)
        proxy.delay = 0.05
        proxy.passed.clear()
        after = next_of(FIRST, reply, want=Amounts(3))
        asked = asyncio.create_task(store.exchange([after]))
        await proxy.passed.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await one(store, after)).granted == Amounts(3)
        assert proxy.ended == 0


async def test_a_server_without_memory_serves_nothing(begin: Begin) -> None:
    """A write that is refused has changed nothing, and is said with the server's own words."""
    server = begin("--maxmemory", "100mb")
    async with store_at(server.url) as store:
        reply = await one(store, FIRST)
        server.client.config_set("maxmemory", 1)
        with pytest.raises(ConnectionError, match="maxmemory"):
            await store.exchange([next_of(FIRST, reply)])
        server.client.config_set("maxmemory", 0)
        assert (await one(store, next_of(FIRST, reply))).epoch == reply.epoch
