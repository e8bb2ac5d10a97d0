"""Engines that share budgets through one store, on one loop on virtual time, and a judge of what arrives.

Rule: the judge knows nothing of leases: it has the instants at which calls of each key arrived, and the limits.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Answer, Cause, NotSent
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.testing import FakeLeaseStore, FakeUpstream, loop_clock
from tests.engine.told import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.lease.words import Reply, Round
    from apiflux_grpc.engine.ports import Attempt
    from apiflux_grpc.engine.ticket import Ticket

J: Final = 20 * MILLISECOND
POLICY: Final = RetryPolicy(max_attempts=3, initial_backoff=SECOND, max_backoff=SECOND)


class Store(FakeLeaseStore):
    """A store at the end of a network: a reply takes `delay` seconds there and back. `exchanges` counts them."""

    def __init__(self, delay: float = 0.0004, *, steady: bool = True) -> None:
        super().__init__(loop_clock, steady=steady)
        self.delay = delay
        self.exchanges = 0
        self.asked = 0  # exchanges, those that found it gone included
        self.closed = False

    async def exchange(self, rounds: Sequence[Round]) -> list[Reply]:
        self.asked += 1
        await asyncio.sleep(self.delay / 2)
        replies = await super().exchange(rounds)
        self.exchanges += 1
        await asyncio.sleep(self.delay / 2)
        return replies

    async def close(self) -> None:
        self.closed = True


class Api(FakeUpstream):
    """Writes each call after `write` seconds, unless its lease has ended by then, and answers it in `latency`.

    `says` tells what to a call with a key; None: nothing, ever.
    """

    def __init__(self, arrivals: dict[str, list[tuple[int, int]]], luck: Random, latency: float) -> None:
        super().__init__(loop_clock)
        self.write = 0.001
        self.was_stopped = False  # between its look at the clock and the write
        self.latency = latency
        self.says: Callable[[str], Answer | None] = success
        self._arrivals = arrivals
        self._luck = luck

    def begin(self, attempt: Attempt) -> None:
        super().begin(attempt)
        asyncio.get_running_loop().call_later(self.write, self._write, attempt)

    def _write(self, attempt: Attempt) -> None:
        if attempt not in self.open:
            return
        if attempt.send_by is not None and loop_clock() > attempt.send_by and not self.was_stopped:
            self.fail(attempt, NotSent(Cause.LATE, "its lease ended"))
            return
        self.send(attempt)
        late = self._luck.uniform(0, min(J / 1e9, self.latency))
        loop = asyncio.get_running_loop()
        loop.call_later(late, self._arrive, attempt.key.label, attempt.permit.cost)
        loop.call_later(self.latency, self._answer, attempt)

    def _arrive(self, label: str, cost: int) -> None:
        self._arrivals.setdefault(label, []).append((loop_clock(), cost))

    def _answer(self, attempt: Attempt) -> None:
        if attempt in self.open and (answer := self.says(attempt.key.label)) is not None:
            self._end(attempt, answer)


def success(_: str) -> Answer:
    """What an upstream says of a call with any key."""
    return Answer(200, Headers.of({}), b"", loop_clock())


class Process:
    """One process with its engine."""

    def __init__(
        self, pool: Pool, store: FakeLeaseStore | None, api: Api, make_pacer: PacerFactory | None = None
    ) -> None:
        self.api = api
        self.told = Told()
        self._readers: list[asyncio.Task[int]] = []
        self.pools: dict[str, bool] = {}  # those whose health was told, and how they are
        parts = PoolParts(pool, lambda: self.api, make_pacer, Random(1).random, store)
        self.engine = Engine([parts], self.told, clock=loop_clock, on_pool=self.pools.__setitem__)

    def submit(self, calls: int, costs: Sequence[int] | None = None, policy: RetryPolicy = POLICY) -> asyncio.Task[int]:
        """A batch, and a reader that takes all its results; the task returns how many succeeded."""
        spec = BatchSpec(self.engine.default_pool, "caller", [Call()] * calls, policy, costs=costs)
        task = asyncio.get_running_loop().create_task(read(self.engine.submit(spec)))
        self._readers.append(task)
        return task

    async def stop(self) -> None:
        await self.engine.stop()
        await asyncio.gather(*self._readers, return_exceptions=True)
        assert self.told.crashes == []


class Shared:
    """Several processes on the same keys."""

    def __init__(
        self, *limits: Limit, keys: int = 1, groups: Sequence[Group] = (), latency: float = 0.01, max_in_flight: int = 0
    ) -> None:
        self.limits = limits
        most = max_in_flight or None
        self.pool = Pool(
            "default",
            tuple(Key(f"key-{number}", "secret", limits, most) for number in range(keys)),
            arrival_jitter=J,
            groups=tuple(groups),
        )
        self.store = Store()
        self.arrivals: dict[str, list[tuple[int, int]]] = {}
        self.latency = latency
        self.processes: list[Process] = []

    make_pacer: PacerFactory | None = None

    def make_api(self) -> Api:
        return Api(self.arrivals, Random(len(self.arrivals)), self.latency)

    async def start(self, count: int = 1) -> list[Process]:
        new = [Process(self.pool, self.store, self.make_api(), self.make_pacer) for _ in range(count)]
        for process in new:
            await process.engine.start(own_thread=False)
        self.processes += new
        return new

    async def stop(self) -> None:
        for process in self.processes:
            await process.stop()

    def arrived(self) -> int:
        return sum(map(len, self.arrivals.values()))

    def check(self) -> None:
        """No window of any key over its limit, ever."""
        for limit in self.limits:
            for label, arrivals in self.arrivals.items():
                worst = worst_window(arrivals, limit.per, by_cost=limit.counts is Counts.COST)
                assert worst <= limit.max, f"{label}: {worst} in a window of {limit}"


async def read(ticket: Ticket) -> int:
    """How many of its calls succeeded."""
    while True:
        message = await ticket.next(1000)
        ticket.credit(len(message.items), message.size)
        if message.over is not None:
            return message.over.tally.succeeded


def worst_window(arrivals: Sequence[tuple[int, int]], per: int, *, by_cost: bool = False) -> int:
    """The most that arrived in any half-open window, of (instant, cost)."""
    ordered = sorted(arrivals)
    worst = within = first = 0
    for at, cost in ordered:
        within += cost if by_cost else 1
        while at - ordered[first][0] >= per:
            within -= ordered[first][1] if by_cost else 1
            first += 1
        worst = max(worst, within)
    return worst
