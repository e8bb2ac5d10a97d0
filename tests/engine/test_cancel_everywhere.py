"""Cancellation at every await: whoever waits on the engine may be cancelled at any of its suspensions.

Rule: a task is run again and again, and cancelled at its first suspension, then at its second, until it gets to its
end. Whatever it was doing, afterwards the counts are zero, the other batch is complete and nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.engine.ports import Attempt
from apiflux_grpc.engine.ticket import Ticket
from apiflux_grpc.testing import FakePacer, FakeUpstream, SilentObserver, loop_clock

pytestmark = pytest.mark.looptime

MOST: Final = 400  # suspensions of the longest scenario
POLICY: Final = RetryPolicy(max_attempts=3, initial_backoff=SECOND // 10, max_backoff=SECOND // 10)
LIMITS: Final = (Limit(4, SECOND), Limit(40, SECOND, Counts.COST))


class Cancelled(Awaitable[Any]):
    """Runs a coroutine and cancels its task at the suspension of that number; `reached`: it came to it."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int) -> None:
        self._work = work
        self._number = number
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        inner = self._work.__await__()
        count = 0
        error: BaseException | None = None
        while True:
            try:
                waits_for = next(inner) if error is None else inner.throw(error)
            except StopIteration as stop:
                return stop.value
            count += 1
            if count == self._number:
                self.reached = True
                task.cancel()
            error = None
            try:
                yield waits_for
            except BaseException as caught:
                error = caught


class Flaky(FakeUpstream):
    """Some attempts hang for a while, are refused, or draw a 429; the others are answered soon."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self._count = 0

    def begin(self, attempt: Attempt) -> None:
        super().begin(attempt)
        self._count += 1
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, self._go, attempt)
        status = 429 if self._count % 7 == 3 else 503 if self._count % 7 == 5 else 200
        loop.call_later(0.6 if self._count % 5 == 0 else 0.05, self._end_with, attempt, status)

    def _go(self, attempt: Attempt) -> None:
        if attempt in self.open and attempt not in self._sent:
            self.send(attempt)

    def _end_with(self, attempt: Attempt, status: int) -> None:
        if attempt in self.open:
            self.answer(attempt, status, {"retry-after": "1"} if status == 429 else {})


class Crashes(SilentObserver):
    def __init__(self) -> None:
        self.all: list[BaseException] = []

    def crashed(self, error: BaseException, error_id: str) -> None:
        self.all.append(error)


class Bench:
    """An engine on the test's loop, with two keys that share limits."""

    def __init__(self) -> None:
        self.before = asyncio.all_tasks()
        self.upstream = Flaky(loop_clock)
        self.observer = Crashes()
        keys = tuple(Key(f"key-{place}", "secret", LIMITS, 3) for place in range(2))
        group = Group(("key-0", "key-1"), (Limit(6, SECOND),))
        pool = Pool("default", keys, SECOND // 10, groups=(group,))
        self.engine = Engine([PoolParts(pool, lambda: self.upstream, FakePacer)], self.observer, clock=loop_clock)

    def submit(self, calls: int, ordered: bool = False) -> Ticket:
        costs = [1 + place % 9 for place in range(calls)]
        spec = BatchSpec("default", "caller", [Call()] * calls, POLICY, size=calls, costs=costs, ordered=ordered)
        return self.engine.submit(spec)

    async def serve(self, calls: int, ordered: bool = False) -> int:
        """What a handler does: submit, read, write, give credit; and cancel however it ends."""
        ticket = self.submit(calls, ordered)
        seen: set[int] = set()
        try:
            while True:
                message = await ticket.next(5)
                assert seen.isdisjoint(result.index for result in message.items)
                seen.update(result.index for result in message.items)
                await asyncio.sleep(0.01)  # the write
                ticket.credit(len(message.items), message.size)
                if message.over is not None:
                    return len(seen)
        finally:
            ticket.cancel()

    async def end(self) -> None:
        """Stop, and see that nothing is left."""
        assert await self.engine.wait_idle(60)
        state = await self.engine.look()
        assert state is not None
        (pool,) = state.pools.values()
        assert (state.batches, pool.waiting, pool.in_flight) == (0, 0, 0)
        assert [key.in_flight for key in pool.keys] == [0, 0]
        await self.engine.stop()
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        admission = self.engine.admission
        assert (admission.batches, admission.calls, admission.size) == (0, 0, 0)
        assert self.upstream.open == []
        assert self.upstream.closed
        assert self.observer.all == []
        assert self.engine.down.is_set()


async def cancelled_at(number: int, work: Coroutine[Any, Any, Any]) -> bool:
    """False: it came to its end before that suspension."""
    steps = Cancelled(work, number)

    async def run() -> None:
        await steps

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert not steps.reached or task.cancelled() or task.exception() is None
    if not steps.reached:
        task.result()
    return steps.reached


async def at_every_suspension(scenario: Callable[[int], Awaitable[bool]], least: int) -> None:
    """Run the scenario with 1, 2, 3 ... until the task gets through."""
    before = asyncio.all_tasks()
    for number in range(1, MOST):
        if not await scenario(number):
            assert number > least, f"only {number - 1} suspensions"
            break
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
    else:
        pytest.fail(f"more than {MOST} suspensions")


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_reader(ordered: bool) -> None:
    """The other batch is complete, whenever this one goes away."""

    async def scenario(number: int) -> bool:
        bench = Bench()
        await bench.engine.start(own_thread=False)
        other = asyncio.create_task(bench.serve(12))
        reached = await cancelled_at(number, bench.serve(15, ordered))
        assert await other == 12
        await bench.end()
        return reached

    await at_every_suspension(scenario, 10)


async def test_waiting_until_it_is_idle() -> None:
    """The batches go on and are complete."""

    async def scenario(number: int) -> bool:
        bench = Bench()
        await bench.engine.start(own_thread=False)
        both = [asyncio.create_task(bench.serve(calls)) for calls in (5, 8)]
        await asyncio.sleep(0)
        reached = await cancelled_at(number, bench.engine.wait_idle(60))
        assert await asyncio.gather(*both) == [5, 8]
        await bench.end()
        return reached

    await at_every_suspension(scenario, 1)


async def test_looking_at_it() -> None:
    """Whoever looks next sees it all the same."""

    async def scenario(number: int) -> bool:
        bench = Bench()
        await bench.engine.start(own_thread=False)
        other = asyncio.create_task(bench.serve(5))
        reached = await cancelled_at(number, bench.engine.look())
        assert await bench.engine.look() is not None
        assert await other == 5
        await bench.end()
        return reached

    await at_every_suspension(scenario, 1)


async def test_draining() -> None:
    """A shutdown that is broken off leaves a drain that goes on; every call has its one result."""

    async def scenario(number: int) -> bool:
        bench = Bench()
        await bench.engine.start(own_thread=False)
        both = [asyncio.create_task(bench.serve(calls)) for calls in (30, 8)]
        await asyncio.sleep(0.3)

        async def shut_down() -> None:
            bench.engine.drain(15 * SECOND)
            await bench.engine.wait_idle(15)
            await bench.engine.stop()

        reached = await cancelled_at(number, shut_down())
        assert await asyncio.gather(*both) == [30, 8]
        await bench.engine.stop()
        bench.nothing_is_left()
        return reached

    await at_every_suspension(scenario, 2)


async def test_stopping() -> None:
    """A second stop ends what the first one left; open streams have ended."""

    async def scenario(number: int) -> bool:
        bench = Bench()
        await bench.engine.start(own_thread=False)
        both = [asyncio.create_task(bench.serve(calls)) for calls in (30, 8)]
        await asyncio.sleep(0.3)
        reached = await cancelled_at(number, bench.engine.stop())
        await bench.engine.stop()
        await asyncio.gather(*both, return_exceptions=True)
        bench.nothing_is_left()
        return reached

    await at_every_suspension(scenario, 2)


async def test_starting() -> None:
    """What was started half is ended by stop."""

    async def scenario(number: int) -> bool:
        bench = Bench()
        reached = await cancelled_at(number, bench.engine.start(own_thread=False))
        await bench.engine.stop()
        await bench.engine.down.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        bench.nothing_is_left()
        return reached

    await at_every_suspension(scenario, 1)
