"""The run of a plan is the engine's, call by call: same results, attempts, keys and times."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from heapq import heappop, heappush
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Counts, Group, Limit, RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.plan.load import Load
from apiflux_grpc.plan.question import Question
from apiflux_grpc.plan.simulation import simulate
from apiflux_grpc.plan.work import Arrival
from apiflux_grpc.testing import FakePacer, SilentObserver, loop_clock
from tests.plan.asked import TEN_A_SECOND, question

if TYPE_CHECKING:
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.ports import Attempt
    from apiflux_grpc.engine.ticket import Ticket


class _Loud(SilentObserver):
    def crashed(self, error: BaseException, error_id: str) -> None:
        raise error


class DrawnUpstream:
    """Answers as the question draws, in the order of the answers' instants and then of the sends."""

    def __init__(self, asked: Question) -> None:
        self._draws = asked.draws
        self._first_call = [0, *accumulate(arrival.size for arrival in asked.arrivals)]
        self._ending: list[tuple[int, int, Attempt, int]] = []
        self._begun = 0
        self._spread: deque[float] = deque()  # of the outcomes that the engine hasn't settled yet

    def draw(self) -> float:
        """What spreads the retry of the outcome that is settled next."""
        return self._spread.popleft()

    def begin(self, attempt: Attempt) -> None:
        permit, now = attempt.permit, loop_clock()
        call = self._first_call[permit.batch.id - 1] + permit.place
        drawn = self._draws.send(call, permit.number, permit.key.key.label)
        attempt.sent(now)
        self._begun += 1
        heappush(self._ending, (now + drawn.latency, self._begun, attempt, drawn.status))
        attempt.handle = drawn.draw
        asyncio.get_running_loop().call_later(drawn.latency / SECOND, self._answer)

    def _answer(self) -> None:
        while self._ending and self._ending[0][0] <= loop_clock():
            at, _, attempt, status = heappop(self._ending)
            assert isinstance(attempt.handle, float)
            self._spread.append(attempt.handle)
            attempt.done(Answer(status, NO_HEADERS, b"", at))

    def cancel(self, attempt: Attempt) -> None:
        raise AssertionError("nothing is cancelled here")

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None: ...


async def served(asked: Question) -> list[Result]:
    """What the engine makes of it, batch after batch, with times since its start."""

    async def send(arrival: Arrival) -> list[Result]:
        await asyncio.sleep(arrival.at / SECOND)
        size, load = arrival.size, arrival.load
        spec = BatchSpec(
            asked.pool.name,
            "plan",
            load.calls(size),
            asked.pool.retry,
            size=size,
            costs=load.costs,
            classes=load.path_classes(size, classes_of(asked.pool)),
        )
        return await read(engine.submit(spec))

    async def read(ticket: Ticket) -> list[Result]:
        results: list[Result] = []
        while True:
            message = await ticket.next(100)
            results += message.items
            if message.over is not None:
                return sorted(results)
            ticket.credit(len(message.items), message.size)

    upstream = DrawnUpstream(asked)
    engine = Engine([PoolParts(asked.pool, lambda: upstream, FakePacer, upstream.draw)], _Loud(), clock=loop_clock)
    await engine.start(own_thread=False)
    start = loop_clock()
    batches = await asyncio.gather(*map(send, asked.arrivals))
    await engine.stop()
    return [_since(result, start) for results in batches for result in results]


def _since(result: Result, start: int) -> Result:
    outcome = result.outcome
    if isinstance(outcome, Answer):
        outcome = outcome._replace(answered_at=outcome.answered_at - start)
    return result._replace(outcome=outcome, ended_at=result.ended_at - start)


def grouped(asked: Question) -> Question:
    """The same with a limit that the first two keys share."""
    limits = (Limit(12, SECOND), Limit(700, SECOND, Counts.COST))
    return replace(asked, pool=replace(asked.pool, groups=(Group(("key-0", "key-1"), limits),)))


FAST = (10 * MILLISECOND, 50 * MILLISECOND)
SLOW = (SECOND // 2, 3 * SECOND)
ALL_KEYS = ("key-0", "key-1")
ASKED = {
    "fast answers": question(Limit(40, 2 * SECOND), keys=3, sizes=(Arrival(80),) * 5, latency=FAST),
    "slow answers": question(Limit(40, 5 * SECOND), keys=2, sizes=(Arrival(50),) * 6, latency=SLOW),
    "two limits": question(TEN_A_SECOND, Limit(60, 20 * SECOND), sizes=(Arrival(100), Arrival(9, 4 * SECOND))),
    "in flight": question(Limit(50, SECOND), most=4, sizes=(Arrival(150),), latency=(SECOND // 5, SECOND // 2)),
    "connections": question(Limit(500, SECOND), keys=2, max_connections=20, sizes=(Arrival(300),), latency=FAST),
    "bursts": question(Limit(20, 2 * SECOND, burst=3), sizes=(Arrival(60),), latency=FAST),
    "failures": question(TEN_A_SECOND, keys=3, sizes=(Arrival(150),) * 2, latency=FAST, fail=0.2),
    "429s": question(TEN_A_SECOND, keys=3, sizes=(Arrival(150),), latency=FAST, limited=0.1),
    "a rejected key": question(TEN_A_SECOND, keys=3, sizes=(Arrival(150),) * 2, latency=SLOW, rejected=["key-1"]),
    "a failing upstream": question(Limit(100, SECOND), sizes=(Arrival(200),), latency=FAST, fail=0.98),
    "no usable key": question(TEN_A_SECOND, keys=2, sizes=(Arrival(30), Arrival(9, 90 * SECOND)), rejected=ALL_KEYS),
    "costs": question(
        Limit(2000, 2 * SECOND, Counts.COST),
        keys=2,
        sizes=(Arrival(200, load=Load([100, 7, 300, 0] * 50)),),
        latency=FAST,
    ),
    "paths": question(
        *(Limit(40, 2 * SECOND), Limit(5, SECOND, paths=("/search",))),
        keys=2,
        sizes=(Arrival(150, load=Load(None, bytes([1, 0, 0]) * 50, bytes([1, 0]) * 75)),),
        latency=FAST,
        fail=0.1,
    ),
    "a group": grouped(
        question(TEN_A_SECOND, Limit(900, SECOND, Counts.COST), keys=3, sizes=(Arrival(90, load=Load([50, 90] * 45)),))
    ),
    "all of it": question(
        *(TEN_A_SECOND, Limit(200, 60 * SECOND)),
        keys=4,
        sizes=(Arrival(120), Arrival(60, 1500 * MILLISECOND), Arrival(5, 4 * SECOND)),
        latency=FAST,
        fail=0.15,
        limited=0.05,
        rejected=["key-3"],
        seed=7,
        retry=RetryPolicy(5, 50 * MILLISECOND),
    ),
}


@pytest.mark.looptime
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
async def test_a_plan_agrees_with_the_engine(asked: Question) -> None:
    """The engine over an upstream that draws the same gives every call the same result at the same instant."""
    assert await served(asked) == simulate(asked, keep=True).results
