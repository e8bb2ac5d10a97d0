"""Engines that share their budgets through a store: what they reach together, and what a call meets on its way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from random import Random

import pytest

from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.core.lease.words import Reply, Round
from apiflux_grpc.core.model import Counts, Group, Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.engine.sharing import J, Process, Shared

pytestmark = pytest.mark.looptime

LIFE = 50 * MILLISECOND


@pytest.mark.parametrize("count", [1, 4])
async def test_processes_share_a_limit_and_use_all_of_it(count: int) -> None:
    """Never over N in any window, and 97 % of N/(T+J+L) while work waits: rules 5 and 6."""
    shared = Shared(Limit(100, SECOND), keys=2)
    for process in await shared.start(count):
        process.submit(20_000)
    await asyncio.sleep(2.5)
    before = shared.arrived()
    await asyncio.sleep(3)
    shared.check()
    assert shared.arrived() - before >= 0.97 * 2 * 100 * 3 * SECOND / (SECOND + J + LIFE)
    await shared.stop()


async def test_a_limit_of_a_group_is_shared_beside_those_of_its_keys() -> None:
    """A call takes a lease of its key's budget and one of its group's, or none."""
    group = Group(("key-0", "key-1"), (Limit(30, SECOND),))
    shared = Shared(Limit(20, SECOND), keys=2, groups=[group])
    for process in await shared.start(2):
        process.submit(1000)
    await asyncio.sleep(5)
    shared.check()
    both = [at for arrivals in shared.arrivals.values() for at in arrivals]
    assert len(both) >= 0.97 * 30 * 5 * SECOND // (SECOND + J + LIFE)
    shared.arrivals = {"both": both}
    shared.limits = group.limits
    shared.check()
    await shared.stop()


@pytest.mark.parametrize("count", [1, 2])
async def test_leases_of_a_key_and_its_group_meet_however_slow_the_store(count: int) -> None:
    """A disk that takes longer to sync than a ledger waits between two rounds: one isn't returned for the other."""
    group = Group(("key-0", "key-1"), (Limit(30, SECOND),))
    shared = Shared(Limit(20, SECOND), keys=2, groups=[group])
    shared.store.is_near, shared.store.least_life, shared.store.delay = True, 400 * MILLISECOND, 0.02
    for process in await shared.start(count):
        process.submit(1000)
    await asyncio.sleep(5)
    shared.check()
    assert shared.arrived() >= 0.97 * 30 * 5 * SECOND // (SECOND + J + 400 * MILLISECOND)
    await shared.stop()


async def test_a_limit_of_cost_is_shared_and_a_dear_call_gets_its_turn() -> None:
    """Calls of different costs: all of the limit is used, and one that costs half of it isn't starved by small ones."""
    shared = Shared(Limit(1000, SECOND, Counts.COST), Limit(100, SECOND))
    luck = Random(1)
    processes = await shared.start(2)
    for process in processes:
        process.submit(1000, [luck.randint(5, 25) for _ in range(1000)])
    await asyncio.sleep(1.5)
    dear = processes[0].submit(1, [500])
    await asyncio.sleep(4)
    assert dear.done()
    before = sum(cost for _, cost in shared.arrivals["key-0"])
    await asyncio.sleep(2.5)
    shared.check()
    spent = sum(cost for _, cost in shared.arrivals["key-0"]) - before
    assert spent >= 0.97 * 1000 * 2 * SECOND / (SECOND + J + LIFE)
    await shared.stop()


async def test_one_call_is_asked_for_with_one_key() -> None:
    """Of a hundred idle keys one borrows, and a call waits for a round trip and no longer."""
    shared = Shared(Limit(100, SECOND), keys=100)
    (process,) = await shared.start()
    await asyncio.sleep(0.5)
    before = shared.store.rounds
    reading = process.submit(1)
    await asyncio.sleep(0.001 + shared.store.delay + shared.latency + 0.001)
    assert shared.store.rounds - before == 1
    assert shared.arrived() == 1
    assert await reading == 1
    await shared.stop()


async def test_an_orderly_end_returns_what_was_leased() -> None:
    """Only what was sent, and may still arrive, stays leased to it."""
    shared = Shared(Limit(100, 60 * SECOND), latency=5, max_in_flight=10)
    (process,) = await shared.start()
    await asyncio.sleep(0.1)
    process.submit(60)
    await asyncio.sleep(0.01)
    assert leased(shared) == 60
    await process.stop()
    assert leased(shared) == 10
    assert shared.store.closed


def leased(shared: Shared) -> int:
    """Calls that may still be sent or arrive, by the store."""
    members = [member for entry in shared.store.entries.values() for member in entry.members.values()]
    return sum(lease.calls for member in members for lease in member.leases.values())


async def test_a_call_is_not_written_after_its_lease_has_ended() -> None:
    """It goes back and takes another lease; that was no attempt, and nothing of it arrived: rule 6."""
    shared = Shared(Limit(100, SECOND))
    (process,) = await shared.start()
    process.api.write = 0.051
    reading = process.submit(1)
    await asyncio.sleep(0.04)
    process.api.write = 0.001
    assert await reading == 1
    assert len(process.api.begun) == 2
    assert shared.arrived() == 1
    await shared.stop()


@pytest.mark.parametrize("counts", Counts)
async def test_a_burst_that_was_too_slow_for_its_lease_goes_as_one_all_the_same(counts: Counts) -> None:
    """What wasn't sent is given back to the pacers too: else its rest would go at the rate of the window."""
    shared = Shared(Limit(100, 10 * SECOND, counts))
    shared.make_pacer = AiolimiterPacer
    (process,) = await shared.start()
    process.api.write = 0.2
    reading = process.submit(100)
    await asyncio.sleep(0.1)
    assert len(process.api.begun) == 100
    process.api.write = 0.001
    await asyncio.sleep(1)
    assert shared.arrived() == 100
    assert await reading == 100
    await shared.stop()


async def test_a_forecast_counts_what_others_have_of_a_limit() -> None:
    """Of two that want all of it each is told the time of its share; alone it has all."""
    shared = Shared(Limit(100, SECOND))
    processes = await shared.start(2)
    for process in processes:
        process.submit(2000)
    await asyncio.sleep(4)
    rates = [await rate_of(process) for process in processes]
    assert sum(rates) == pytest.approx(100, rel=0.2)
    assert max(rates) <= 75
    await processes[1].stop()
    await asyncio.sleep(3)
    assert await rate_of(processes[0]) == pytest.approx(100, rel=0.1)
    await processes[0].stop()


async def rate_of(process: Process) -> float:
    """Calls a second, by how long all that waits will take."""
    state = await process.engine.look()
    assert state is not None
    pool = state.pools["default"]
    assert pool.drain_time is not None
    return pool.waiting / pool.drain_time * SECOND


async def test_what_comes_back_at_one_instant_is_shared() -> None:
    """Whoever sent nothing of late doesn't wait for those who did: rule 5's fair shares."""
    shared = Shared(Limit(100, SECOND))
    processes = await shared.start(2)
    for process in processes:
        process.submit(2000)
    await asyncio.sleep(8.5)
    counts = [len(process.api.begun) for process in processes]
    assert min(counts) >= 0.4 * max(counts)
    shared.check()
    await shared.stop()


async def test_no_two_processes_are_one_incarnation() -> None:
    """Rule 2: 128 random bits, drawn when the engine begins and not when it's made: what two of one origin inherit
    would be the same, and each would take the other's leases for its own."""
    shared = Shared(Limit(100, SECOND), keys=2)
    seen: set[str] = set()
    exchange = shared.store.exchange

    async def exchanged(rounds: Sequence[Round]) -> list[Reply]:
        seen.update(round.incarnation for round in rounds)
        return await exchange(rounds)

    shared.store.exchange = exchanged  # type: ignore[method-assign]
    first, second = await shared.start(2)
    assert [await one for one in (first.submit(20), second.submit(20))] == [20, 20]
    drawn = {re.sub(r"-\d+$", "", one) for one in seen}
    assert len(drawn) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in drawn)
    await shared.stop()
