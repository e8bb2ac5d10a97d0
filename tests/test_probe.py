"""`check-config --probe`: what is said of the one call with each key."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.rules import AnswerRule, Means
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.probe import probe
from apiflux_grpc.testing import FakePacer, FakeUpstream, loop_clock

LIMITS = (Limit(5, SECOND),)


@pytest.mark.looptime
async def test_a_200_that_a_rule_calls_a_failure_is_told_with_its_reason() -> None:
    """The status alone would look like a success."""
    upstream = FakeUpstream(loop_clock)
    rule = AnswerRule(Means.KEY_REJECTED, ((200, 200),))
    pool = Pool("maps", (Key("a", "secret-a", LIMITS), Key("b", "secret-b", LIMITS)), answers=(rule,))
    probing = asyncio.create_task(probe([PoolParts(pool, lambda: upstream, FakePacer)], "/"))
    await asyncio.sleep(1)
    for attempt, status in zip(list(upstream.open), (200, 403), strict=True):
        upstream.answer(attempt, status)
    assert [(one.ok, one.what) for one in await probing] == [(False, "HTTP 200, KEY_REJECTED"), (False, "HTTP 403")]
