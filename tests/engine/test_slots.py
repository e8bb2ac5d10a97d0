"""Engines that share a bound on calls in flight through a store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.messages import BatchSpec
from tests.engine.sharing import POLICY, Process, Shared

pytestmark = pytest.mark.looptime


def in_flight(processes: list[Process]) -> int:
    return sum(len(process.api.open) for process in processes)


async def watched(processes: list[Process], seconds: float) -> list[int]:
    """How many calls were in flight, each 2 ms."""
    seen = []
    for _ in range(int(seconds * 500)):
        await asyncio.sleep(0.002)
        seen.append(in_flight(processes))
    return seen


@pytest.mark.parametrize("limits", [(), (Limit(100_000, SECOND),)])
async def test_processes_have_together_as_many_calls_in_flight_as_a_key_may(limits: tuple[Limit, ...]) -> None:
    """Never more, and nearly always as many while work waits, with limits beside it or without any: rule 10."""
    shared = Shared(*limits, max_in_flight=6, latency=0.05)
    processes = await shared.start(4)
    for process in processes:
        process.submit(20_000)
    await asyncio.sleep(4)
    seen = await watched(processes, 3)
    assert max(seen) == 6
    assert sum(seen) >= 0.9 * 6 * len(seen)
    await shared.stop()


@pytest.mark.slow
async def test_one_slot_goes_round() -> None:
    """Eight processes, of which each gets it in turn; and it is used nearly all the time."""
    shared = Shared(max_in_flight=1, latency=0.02)
    processes = await shared.start(8)
    for process in processes:
        process.submit(20_000)
    await asyncio.sleep(4)
    before = shared.arrived()
    seen = await watched(processes, 24)
    done = shared.arrived() - before
    assert max(seen) == 1
    assert done >= 0.8 * 24 / 0.02
    await shared.stop()


async def test_one_that_is_busy_alone_has_all() -> None:
    """Who is idle holds nothing; and its first call needn't wait for long."""
    shared = Shared(max_in_flight=10, latency=0.05)
    processes = await shared.start(3)
    await asyncio.sleep(3)
    processes[0].submit(20_000)
    await asyncio.sleep(0.5)
    assert min(await watched(processes, 1)) >= 8
    task = processes[1].submit(1)
    await asyncio.sleep(1)
    assert task.done()
    await shared.stop()


async def test_a_key_that_had_no_slot_is_tried_again_though_nothing_waits_for_it_meanwhile() -> None:
    """The call that found none is cancelled; the next asks at once, and not with the next sign of life."""
    shared = Shared(max_in_flight=1, latency=1)
    one, other = await shared.start(2)
    await asyncio.sleep(3)
    other.submit(3)
    await asyncio.sleep(0.5)
    ticket = one.engine.submit(BatchSpec("default", "caller", [Call()], POLICY))
    await asyncio.sleep(0.02)
    ticket.cancel()
    await asyncio.sleep(4)
    task = one.submit(1)
    await asyncio.sleep(2)
    assert task.done()
    await shared.stop()


async def test_what_others_have_in_flight_is_told() -> None:
    """GetInfo says so of the key and of the pool, and a lower bound of another server; to one alone nothing is said."""
    shared = Shared(max_in_flight=4, latency=0.05)
    one, other = await shared.start(2)
    one.submit(20_000)
    await asyncio.sleep(3)
    snapshot = await one.engine.look()
    assert snapshot is not None
    assert snapshot.pools["default"].held_by == ()
    other.submit(20_000)
    await asyncio.sleep(2)
    snapshot = await one.engine.look()
    assert snapshot is not None
    words = "other servers have 2 of 4 calls in flight"
    assert [held.reason for held in snapshot.pools["default"].held_by] == [words]
    assert [held.reason for held in snapshot.pools["default"].keys[0].held_by] == [words]
    key = replace(shared.pool.keys[0], max_in_flight=2)
    shared.pool = replace(shared.pool, keys=(key,))
    await shared.start(1)
    await asyncio.sleep(3)
    snapshot = await one.engine.look()
    assert snapshot is not None
    lower = "another server that shares it has 2 calls in flight, and this one 4: the lower holds for both"
    assert lower in [held.reason for held in snapshot.pools["default"].keys[0].held_by]
    await shared.stop()
