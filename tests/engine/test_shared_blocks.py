"""What one of several processes was told by the upstream holds for all: waits, guesses, rejections, and who probes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.held import Cause
from apiflux_grpc.core.lease.terms import BEAT, CLAIM
from apiflux_grpc.core.lease.words import Reply, Round
from apiflux_grpc.core.model import Group, Limit
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.testing import loop_clock
from tests.engine.sharing import POLICY, Process, Shared, Store, success

pytestmark = pytest.mark.looptime


class Upstream:
    """Refuses calls while `status` isn't 200, all of them or `most` of them; it knows when each was answered."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.most = 1 << 60
        self.refused: list[float] = []
        self.passed: list[float] = []

    def __call__(self, label: str) -> Answer:
        now = loop_clock() / 1e9
        if self.status == 200 or len(self.refused) >= self.most:
            self.passed.append(now)
            return success(label)
        self.refused.append(now)
        return Answer(self.status, Headers.of(self.headers), b"", loop_clock())

    def refuse(self, status: int, most: int = 1 << 60, **headers: str) -> None:
        self.status, self.most = status, most
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


async def at_work(shared: Shared, count: int, calls: int = 20_000) -> tuple[Upstream, list[Process]]:
    """So many processes that have work for long, one second after their start."""
    upstream = Upstream()
    processes = await shared.start(count)
    for process in processes:
        process.api.says = upstream
        process.submit(calls)
    await asyncio.sleep(1)
    return upstream, processes


def within(instants: Sequence[float], since: float, until: float) -> int:
    return sum(since < at < until for at in instants)


async def test_a_wait_that_one_was_told_all_keep() -> None:
    """From the next round on nobody sends, to its end; then all go on without a probe."""
    shared = Shared(Limit(50, SECOND))
    upstream, _ = await at_work(shared, 4)
    upstream.refuse(429, 1, retry_after="5")
    await asyncio.sleep(9)
    (at,) = upstream.refused
    assert within(upstream.passed, at + 0.1, at + 4.99) == 0
    assert within(upstream.passed, at + 5, at + 5.2) > 10
    await shared.stop()


async def test_who_comes_while_all_wait_hears_it_before_its_first_call() -> None:
    """What was told outlives the process that was told: its store knows it."""
    shared = Shared(Limit(50, SECOND))
    upstream, (first,) = await at_work(shared, 1)
    upstream.refuse(429, 1, retry_after="20")
    await asyncio.sleep(0.5)
    await first.stop()
    (second,) = await shared.start()
    second.api.says = upstream
    reading = second.submit(10)
    await asyncio.sleep(upstream.refused[0] + 19.9 - loop_clock() / 1e9)
    assert not second.api.begun
    state = await second.engine.look()
    assert state is not None
    assert [held.reason for held in state.pools["default"].held_by] == ["another server that shares it was refused"]
    assert await reading == 10
    await second.stop()


async def refusals(count: int, status: int, length: float) -> list[float]:
    """When so many processes were refused, after the first tenth of a second, by an upstream that refuses so long."""
    shared = Shared(Limit(20, SECOND), Limit(10_000, 60 * SECOND))
    shared.pool = replace(shared.pool, patience=600 * SECOND)
    upstream, _ = await at_work(shared, count)
    upstream.refuse(status)
    await asyncio.sleep(length)
    upstream.refuse(200)
    before = len(upstream.passed)
    await asyncio.sleep(length + 5)
    assert len(upstream.passed) - before > 60  # a success ends it for all
    await shared.stop()
    first = upstream.refused[0]
    return [at - first for at in upstream.refused if at > first + 0.1]


MANY: Final = [pytest.param(429, 20, 8, marks=pytest.mark.slow), pytest.param(401, 80, 8, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("status", "length", "count"), [(429, 8, 4), (401, 35, 4), *MANY])
async def test_many_processes_draw_no_more_refusals_than_one(status: int, length: float, count: int) -> None:
    """After the calls that were on their way: one probe at the end of each guess, or of each cool-down, which doubles
    once for all."""
    alone = await refusals(1, status, length)
    together = await refusals(count, status, length)
    assert len(alone) > 1
    assert len(together) == len(alone)
    gaps = [after - before for before, after in pairwise(together)]
    assert all(after > 1.8 * before for before, after in pairwise(gaps))


async def test_a_success_ends_a_guess_for_all() -> None:
    """Within a beat, all of them: each sends again."""
    shared = Shared(Limit(50, SECOND))
    upstream, processes = await at_work(shared, 4)
    upstream.refuse(429, 1)
    await asyncio.sleep(0.2)
    counts = [len(process.api.begun) for process in processes]
    await asyncio.sleep(1 + BEAT / 1e9 + 0.3)
    for process, count in zip(processes, counts, strict=True):
        assert len(process.api.begun) > count + 3
    await shared.stop()


def silence(_: str) -> None:
    """No answer."""


class Line(Store):
    """The way of one process to the store of all: it may be cut."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    async def exchange(self, rounds: Sequence[Round]) -> list[Reply]:
        if self.gone:
            raise ConnectionError("cut")
        return await self._store.exchange(rounds)


async def test_the_claim_of_a_prober_that_died_ends_by_itself() -> None:
    """Another probes in its stead, and not before."""
    shared, upstream = Shared(Limit(50, SECOND)), Upstream()
    lines = []
    for _ in range(3):
        store, shared.store = shared.store, Line(shared.store)
        (process,) = await shared.start()
        lines.append(shared.store)
        shared.store = store
        process.api.says = upstream
        process.submit(20_000)
    await asyncio.sleep(1)
    upstream.refuse(429)
    await asyncio.sleep(0.5)
    first = upstream.refused[0]
    for process in shared.processes:
        process.api.says = silence
    counts = [len(process.api.begun) for process in shared.processes]
    await asyncio.sleep(first + 1.2 - loop_clock() / 1e9)
    new = [len(process.api.begun) - count for process, count in zip(shared.processes, counts, strict=True)]
    assert sorted(new) == [0, 0, 1]
    lines[new.index(1)].gone = True
    died = loop_clock() / 1e9
    upstream.refuse(200)
    for process, count in zip(shared.processes, new, strict=True):
        if not count:
            process.api.says = upstream
    await asyncio.sleep((CLAIM + 2 * BEAT) / 1e9)
    (first_passed,) = [at for at in upstream.passed if at > died][:1]
    assert (CLAIM - BEAT) / 1e9 <= first_passed - died <= (CLAIM + BEAT) / 1e9 + 0.1
    await asyncio.gather(*(process.engine.stop() for process in shared.processes))


async def test_without_their_store_each_process_decides_alone() -> None:
    """Its own leases are still live at the end of a guess: each sends a probe of its own."""
    shared = Shared(Limit(60_000, 500 * SECOND))  # its leases live for 5 s
    shared.pool = replace(shared.pool, max_connections=1)  # so that none has spent its own by then
    upstream, processes = await at_work(shared, 2)
    upstream.refuse(429)
    await asyncio.sleep(0.02)
    shared.store.gone = True
    counts = [len(process.api.begun) for process in processes]
    await asyncio.sleep(2)
    for process, count in zip(processes, counts, strict=True):
        assert len(process.api.begun) > count
    await shared.stop()


async def test_a_process_that_gets_no_lease_leaves_the_probe_to_others() -> None:
    """Its store refuses it, and its calls wait: it couldn't send a probe."""
    shared = Shared(Limit(5, SECOND))
    upstream, (process,) = await at_work(shared, 1, calls=1)
    shared.pool = replace(shared.pool, arrival_jitter=shared.pool.arrival_jitter + MILLISECOND)
    (refused,) = await shared.start()
    refused.submit(100)
    await asyncio.sleep(4)
    upstream.refuse(429, 1)
    ticket = process.engine.submit(BatchSpec("default", "caller", [Call()], POLICY))
    await asyncio.sleep(0.5)
    ticket.cancel()  # nothing waits at the end of the guess but what can't be sent
    await asyncio.sleep(10)
    assert len(upstream.refused) == 1
    reading = process.submit(20)
    await asyncio.sleep(10)
    assert reading.done()
    assert not refused.api.begun
    await shared.stop()


async def test_a_key_that_was_mended_works_at_once_in_who_starts() -> None:
    """Whoever starts finds out for itself whether it's rejected; the others hear that it isn't in the end."""
    shared = Shared(Limit(50, SECOND), Limit(10_000, 60 * SECOND))
    shared.pool = replace(shared.pool, patience=600 * SECOND)
    upstream, (first,) = await at_work(shared, 1)
    upstream.refuse(401)
    await asyncio.sleep(12)  # the second cool-down has begun
    upstream.refuse(200)
    (second,) = await shared.start()
    second.api.says = upstream
    assert await asyncio.wait_for(second.submit(20), 3) == 20
    count = len(first.api.begun)
    await asyncio.sleep(20)
    assert len(first.api.begun) > count + 80
    await shared.stop()


async def test_a_key_that_works_for_one_works_for_all() -> None:
    """An idle process hears it, too: it sends no probe of its own, and its log has both."""
    shared = Shared(Limit(50, SECOND), Limit(100_000, 3600 * SECOND))
    shared.pool = replace(shared.pool, patience=600 * SECOND)
    upstream, _ = await at_work(shared, 1)
    (idle,) = await shared.start()
    await asyncio.sleep(1)
    upstream.refuse(401)
    await asyncio.sleep(3)
    state = await idle.engine.look()
    assert state is not None
    assert [held.cause for held in state.pools["default"].keys[0].held_by] == [Cause.KEY_REJECTED]
    upstream.refuse(200)
    await asyncio.sleep(10)
    state = await idle.engine.look()
    assert state is not None
    assert state.pools["default"].keys[0].held_by == ()
    rejected, accepted = idle.told.events
    assert rejected.startswith("key-0 rejected 9.")  # of ten seconds
    assert accepted == "key-0 accepted"
    await shared.stop()


async def test_a_limit_of_a_group_is_blocked_for_all_its_keys_everywhere() -> None:
    """By the hint that names it; other processes leave all its keys alone."""
    group = Group(("key-0", "key-1"), (Limit(50, SECOND),))
    shared = Shared(Limit(1000, 10 * SECOND), keys=2, groups=[group])
    upstream, _ = await at_work(shared, 3)
    upstream.refuse(429, 1, ratelimit_limit="50", ratelimit_remaining="0", ratelimit_reset="4", retry_after="4")
    await asyncio.sleep(6)
    (at,) = upstream.refused
    assert within(upstream.passed, at + 0.1, at + 3.9) == 0
    assert within(upstream.passed, at + 4, at + 5) > 20
    await shared.stop()
