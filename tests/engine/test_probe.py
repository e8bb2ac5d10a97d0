"""The one call that finds out whether a key, or the upstream, works again."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Cause, NotSent
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.testing import FakePacer, FakeUpstream, SilentObserver, loop_clock
from tests.core.building import BUCKET, HOUR, JITTER


@pytest.mark.looptime
@pytest.mark.parametrize("whose", ["key", "upstream"])
async def test_a_probe_that_comes_too_late_to_be_sent_is_followed_by_another(whose: str) -> None:
    """A probe ends with a word to its breaker whatever becomes of it, or nothing could ever go again."""
    upstream = FakeUpstream(loop_clock)
    pool = Pool("pool", (Key("key-0", "secret", (Limit(1000, SECOND, kind=BUCKET),)),), JITTER, patience=HOUR)
    parts = PoolParts(pool, lambda: upstream, FakePacer)
    engine = Engine([parts], SilentObserver(), clock=loop_clock)
    await engine.start(own_thread=False)
    policy = RetryPolicy(max_attempts=1)
    engine.submit(BatchSpec("pool", "caller", [Call()] * 20, policy))
    await asyncio.sleep(0.1)
    for attempt in list(upstream.open):
        upstream.answer(attempt, 401 if whose == "key" else 500)
    await asyncio.sleep(0.1)
    ticket = engine.submit(BatchSpec("pool", "caller", [Call()] * 5, policy))
    await asyncio.sleep(30)
    (probe,) = upstream.open
    upstream.fail(probe, NotSent(Cause.LATE, "late"))
    for _ in range(100):
        await asyncio.sleep(1)
        for attempt in list(upstream.open):
            upstream.answer(attempt)
    await asyncio.sleep(1)
    assert ticket.received == 5
    await engine.stop()
