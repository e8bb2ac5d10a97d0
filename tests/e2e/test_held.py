"""Where calls wait for an upstream that asked for it, everybody who waits is told so, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.client import Call, Client, DeadlineInfeasible, Progress
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit
from tests.e2e.pairs import paired

REFUSED = Call("/refused", headers={"X-Judge-Fault": "429;retry-after=600"})


async def test_whoever_waits_for_a_refusing_upstream_is_told_why() -> None:
    """Its own stream, that of another batch, GetInfo, the log (once), the deadline check: the same words everywhere."""
    with paired({"default": ""}, [Limit(100, SECOND)], keys=1) as pair:
        async with Client(pair.target) as client:

            async def told(call: Call) -> Progress:
                async with client.process([call]) as stream:
                    async for _, progress in stream.messages():
                        if progress is not None and progress.held_by:
                            return progress
                raise AssertionError("it was told nothing")

            progress = [await told(REFUSED), await told(Call("/waits"))]
            (pool,) = (await client.info()).pools
            with pytest.raises(DeadlineInfeasible) as refused:
                await anext(client.process([Call("/hurries")], timeout=60))
        (key,) = pool.keys
        (held,) = key.held_by
        assert (held.cause, held.reason) == ("LIMITED", "429 with Retry-After: 600 s")
        assert held.until is not None
        assert 500 < (held.until - held.since).total_seconds() <= 601
        of_pool = replace(held, keys=("default-1",), key_count=1)
        # Instants by the time of day: read anew for each message, to a millisecond.
        for (other,) in (pool.held_by, *(each.held_by for each in progress)):
            assert other.until is not None
            assert abs((other.until - held.until).total_seconds()) < 10
            assert replace(other, since=held.since, until=held.until) == of_pool
        assert all(each.eta is not None and each.eta > 400 for each in progress)
        assert float(refused.value.metadata["eta_seconds"]) > 400
        (line,) = (line for line in pair.served.stderr.splitlines() if "key blocked" in line)
        assert "why=429 with Retry-After: 600 s" in line
        assert pair.judge.calls() == {"GET /refused": 1}
