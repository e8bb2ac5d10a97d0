"""The engine in a thread of its own: the same answers, and an end in every case."""

from __future__ import annotations

import asyncio
import threading

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.errors import EngineFailed
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.engine.ports import Attempt, Upstream
from apiflux_grpc.testing import FakeUpstream, SilentObserver

POOL = Pool("default", (Key("key-1", "secret", (Limit(1_000_000, SECOND),)),))


class Echoing(FakeUpstream):
    """Answers every attempt in the next pass."""

    def begin(self, attempt: Attempt) -> None:
        super().begin(attempt)
        asyncio.get_running_loop().call_soon(self.answer, attempt)


class Breaking(FakeUpstream):
    """Has a bug: the tenth attempt raises."""

    def begin(self, attempt: Attempt) -> None:
        super().begin(attempt)
        if len(self.begun) == 10:
            raise ZeroDivisionError


def threads() -> list[threading.Thread]:
    """Those of engines."""
    return [thread for thread in threading.enumerate() if thread.name == "apiflux-engine"]


def refusing() -> Upstream:
    raise OSError("no CA file")


async def test_batches_at_once_over_two_threads() -> None:
    """Thirty batches at once: every call has one result, and the thread ends."""
    engine = Engine([PoolParts(POOL, Echoing, None)], SilentObserver())
    await engine.start()
    assert threads()

    async def one() -> list[int]:
        ticket = engine.submit(BatchSpec("default", "caller", [Call()] * 200, RetryPolicy()))
        indexes: list[int] = []
        while True:
            message = await ticket.next(100)
            indexes += [result.index for result in message.items]
            ticket.credit(len(message.items), message.size)
            if message.over is not None:
                return sorted(indexes)

    for indexes in await asyncio.gather(*(one() for _ in range(30))):
        assert indexes == list(range(200))
    assert engine.admission.calls == 0
    await engine.stop()
    assert not threads()


async def test_a_crash_hangs_nobody() -> None:
    """A bug in the engine's thread ends thirty open streams with EngineFailed, and the thread."""
    engine = Engine([PoolParts(POOL, Breaking, None)], SilentObserver())
    await engine.start()
    tickets = [engine.submit(BatchSpec("default", "caller", [Call()] * 3, RetryPolicy())) for _ in range(30)]
    ends = await asyncio.gather(*(ticket.next(100) for ticket in tickets), return_exceptions=True)
    assert all(isinstance(end, EngineFailed) for end in ends)
    assert not engine.healthy
    await engine.stop()
    assert not threads()


async def test_an_engine_that_cannot_start_says_so() -> None:
    """What an adapter raises when it is made comes out of start as EngineFailed."""
    engine = Engine([PoolParts(POOL, refusing, None)], SilentObserver())
    with pytest.raises(EngineFailed):
        await engine.start()
    await engine.stop()
    assert not threads()
