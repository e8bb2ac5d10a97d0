"""What becomes of calls, events and health while the store of budgets fails them: rule 11, and the freeze of rule 8."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from apiflux_grpc.core.held import Cause
from apiflux_grpc.core.info import PoolSnapshot
from apiflux_grpc.core.lease.terms import FAILOVER_LAG
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.store_health import SILENCE
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.engine.sharing import J, Process, Shared, Store

pytestmark = pytest.mark.looptime

LIFE = 50 * MILLISECOND


async def pool_of(process: Process) -> PoolSnapshot:
    state = await process.engine.look()
    assert state is not None
    return state.pools["default"]


async def test_without_its_store_live_leases_are_spent_and_then_calls_wait() -> None:
    """Nothing goes after the last lease has ended; with the store back all goes on by itself."""
    shared = Shared(Limit(100, SECOND))
    (process,) = await shared.start()
    reading = process.submit(500)
    await asyncio.sleep(1.5)
    shared.store.gone = True
    await asyncio.sleep(LIFE / 1e9 + 0.02)
    before = shared.arrived()
    await asyncio.sleep(5)
    assert shared.arrived() == before
    shared.store.gone = False
    assert await reading == 500
    shared.check()
    silent, back = process.told.events
    assert silent == "store silent: the store is gone"
    assert 4 <= float(back.removeprefix("store back after ")) <= 6
    await shared.stop()


async def test_a_store_that_is_gone_is_asked_again_ever_more_rarely() -> None:
    """No storm: after its first seconds about once a second and pool, however many keys and calls wait."""
    shared = Shared(Limit(100, SECOND), keys=20)
    (process,) = await shared.start()
    process.submit(1000)
    await asyncio.sleep(0.5)
    shared.store.gone = True
    await asyncio.sleep(5)
    before = shared.store.asked
    await asyncio.sleep(20)
    assert 20 <= shared.store.asked - before <= 40
    await shared.stop()


async def test_a_pool_whose_store_is_silent_for_long_is_not_healthy_and_recovers() -> None:
    """The engine stays healthy; why calls wait is told with since when, and no time is promised."""
    shared = Shared(Limit(100, SECOND))
    (process,) = await shared.start()
    process.submit(10_000)
    await asyncio.sleep(1)
    shared.store.gone = True
    await asyncio.sleep(SILENCE / 1e9 - 1)
    pool = await pool_of(process)
    assert process.pools == {}
    assert (pool.held_by[0].cause, pool.held_by[0].until, pool.drain_time) == (Cause.STORE, None, None)
    assert pool.held_by[0].reason == "waiting for leases: the store of budgets doesn't answer (the store is gone)"
    await asyncio.sleep(4)
    assert process.pools == {"default": False}
    assert process.engine.healthy
    shared.store.gone = False
    await asyncio.sleep(3)
    assert process.pools == {"default": True}
    pool = await pool_of(process)
    assert pool.held_by == ()
    assert pool.store is not None
    assert pool.store.silent_for is None
    await shared.stop()


async def test_a_flush_freezes_its_keys_and_says_until_when() -> None:
    """What was spent is not known any more: nothing goes until all of it must have ended, by rule 8."""
    shared = Shared(Limit(100, SECOND))
    shared.store = Store(steady=False)
    (process,) = await shared.start()
    process.submit(10_000)
    await asyncio.sleep(4)
    assert shared.arrived() > 0
    shared.store.flush()
    await asyncio.sleep(1.1)  # it's heard once a second at least
    before = shared.arrived()
    frozen = SECOND + LIFE + J + FAILOVER_LAG
    pool = await pool_of(process)
    (held,) = pool.held_by
    assert (held.cause, held.keys, held.count) == (Cause.STORE, ("key-0",), 1)
    assert held.until == pytest.approx(held.since + frozen, rel=0.01)
    assert pool.keys[0].held_by == (replace(held, keys=(), count=0),)
    await asyncio.sleep(frozen / 1e9 - 1.3)
    assert shared.arrived() == before
    await asyncio.sleep(3)
    assert shared.arrived() >= before + 200
    shared.check()
    (event,) = process.told.events
    assert event.startswith("1 frozen 16.")
    await shared.stop()


async def test_a_process_that_is_refused_says_why() -> None:
    """Another arrival_jitter than the others': it is lent nothing, in the words of the store, and isn't healthy."""
    shared = Shared(Limit(100, SECOND))
    await shared.start()
    await asyncio.sleep(0.5)
    shared.pool = replace(shared.pool, arrival_jitter=3 * J)
    (other,) = await shared.start()
    reading = other.submit(10)
    await asyncio.sleep(1.5)
    assert shared.arrived() == 0
    why = "arrival_jitter is 60 ms here, and 20 ms for others: make them the same"
    assert other.told.events == [f"1 refused: key-0: {why}"]
    pool = await pool_of(other)
    assert pool.keys[0].held_by[0].reason == f"the store of budgets lends nothing here: {why}"
    assert pool.drain_time is None
    assert other.pools == {"default": False}
    await shared.processes[0].stop()
    assert await reading == 10
    assert other.told.events[1].startswith("1 granted again after ")
    await asyncio.sleep(1)
    assert other.pools == {"default": True}
    await other.stop()


async def test_a_store_that_is_too_far_lends_nothing_says_why_and_goes_on_when_it_is_nearer() -> None:
    """Rule 5: of a round trip above a quarter of what a lease lives nothing could be used well."""
    shared = Shared(Limit(100, SECOND))
    shared.store = Store(0.02, steady=False)
    (process,) = await shared.start()
    reading = process.submit(300)
    await asyncio.sleep(5)
    before = shared.arrived()
    why = "the store answers in 20 ms, more than a quarter of the 50 ms that a lease lives: make leases longer"
    (event,) = process.told.events
    assert why in event
    assert why in (await pool_of(process)).keys[0].held_by[0].reason
    assert process.pools == {"default": False}
    await asyncio.sleep(2)
    assert shared.arrived() == before
    shared.store.delay = 0.01
    assert await reading == 300
    shared.check()
    await shared.stop()


async def test_a_pool_of_which_one_key_is_refused_is_healthy() -> None:
    """Its calls go with the others."""
    shared = Shared(Limit(100, SECOND), keys=2)
    first, other = shared.pool.keys
    shared.pool = replace(shared.pool, keys=(first, replace(other, limits=())))
    await shared.start()
    shared.pool = replace(shared.pool, arrival_jitter=3 * J)
    (refused,) = await shared.start()
    assert await refused.submit(300) == 300
    await asyncio.sleep(2)
    assert refused.told.events
    assert refused.pools == {}
    await shared.stop()


async def test_what_was_sent_after_its_lease_had_ended_is_told() -> None:
    """A process that was stopped between its look at the clock and the write: it can't be prevented, and is counted."""
    shared = Shared(Limit(100, SECOND))
    (process,) = await shared.start()
    process.api.write, process.api.was_stopped = 0.06, True
    assert await process.submit(2) == 2
    assert process.told.events == ["key-0 sent 2 late"]
    pool = await pool_of(process)
    assert pool.store is not None
    assert pool.store.sent_late == 2
    await shared.stop()


async def test_without_its_store_an_end_is_bounded() -> None:
    """An engine whose store hangs is down all the same."""
    shared = Shared(Limit(100, SECOND))
    (process,) = await shared.start()
    process.submit(10)
    await asyncio.sleep(0.5)
    shared.store.delay = 3600
    before = asyncio.get_running_loop().time()
    await shared.stop()
    assert asyncio.get_running_loop().time() - before <= 3


async def test_of_two_limits_for_a_key_the_lower_holds_and_both_are_named() -> None:
    """In the log of the server with the higher one, and in what GetInfo tells of its key: rule 1."""
    shared = Shared(Limit(100, SECOND))
    await shared.start()
    await asyncio.sleep(0.5)
    keys = (replace(shared.pool.keys[0], limits=(Limit(200, SECOND),)),)
    shared.pool = replace(shared.pool, keys=keys)
    (other,) = await shared.start()
    other.submit(1000)
    await asyncio.sleep(3.5)
    shared.check()
    assert shared.arrived() >= 250
    why = "another server that shares it has 100 calls per 1s, and this one 200 calls per 1s: the lower holds for both"
    assert other.told.events == [f"key-0 lower: {why}"]
    (held,) = (await pool_of(other)).keys[0].held_by
    assert (held.cause, held.reason) == (Cause.LOWER_LIMIT, why)
    await shared.stop()
