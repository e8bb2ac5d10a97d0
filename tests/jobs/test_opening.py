"""The first line of a job: where its calls go, how many, at what cost, and how long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from apiflux_grpc.client import Estimate, Unavailable
from apiflux_grpc.core.model import Counts, Key, Limit, Pool
from apiflux_grpc.core.rules import CostOfCall
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.jobs.again import Again
from apiflux_grpc.jobs.checks import Checks
from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.job import Job
from apiflux_grpc.jobs.known import DONE, HANDED, Known
from apiflux_grpc.jobs.opening import opening
from apiflux_grpc.jobs.source import Source

TOKENS = Limit(1000, SECOND, Counts.COST)
POOL = Pool(
    "ai",
    (Key("a", "", (TOKENS,)), Key("b", "", (TOKENS,))),
    cost=CostOfCall(("max_tokens",)),
    upstream="http",
    base_url="https://api.example.com",
)


class Asked:
    """A client that estimates as it is told; None: it can't."""

    def __init__(self, makespan: float | None, binding: str = "") -> None:
        self.asked: tuple[int, int] | None = None
        self._estimate = Estimate(makespan, binding)

    async def estimate(self, calls: int, *, pool: str, cost: int) -> Estimate:
        assert pool == "ai"
        self.asked = (calls, cost)
        if self._estimate.binding_limit == "gone":
            raise Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE)
        return self._estimate


async def line(pool: Pool, client: Any, calls: int | None, cost: int = 1) -> str:
    return await opening(client, Job(None, "127.0.0.1:50051"), pool, calls, cost)


async def test_it_says_where_calls_go_and_how_long_they_take() -> None:
    """Pool, upstream and keys; the number as far as it is known; the server's estimate with what binds."""
    start = "127.0.0.1:50051, pool ai (https://api.example.com, 2 keys): "
    assert await line(POOL, Asked(192.4, "1000 cost per 1s"), 20_000) == (
        f"{start}20,000 calls, about 3 min 12 s, bound by 1000 cost per 1s"
    )
    assert await line(POOL, Asked(0.3), 1) == f"{start}1 call, less than a second"
    assert await line(POOL, Asked(None), 2) == f"{start}2 calls, no key can be used now"
    assert await line(POOL, Asked(1, "gone"), 2) == f"{start}2 calls"
    assert await line(POOL, Asked(1), None) == f"{start}calls as they come"
    simulated = replace(POOL, upstream="simulated", base_url="", keys=POOL.keys[:1])
    assert "(the simulator, 1 key)" in await line(simulated, Asked(1), None)


@pytest.mark.parametrize(("limit", "cost"), [(None, 60), (2, 60)])
async def test_the_estimate_is_of_what_calls_cost(tmp_path: Path, limit: int | None, cost: int) -> None:
    """By their own word or by the pool's rule, on average and rounded up."""
    calls = tmp_path / "calls.jsonl"
    calls.write_text(
        '{"method": "POST", "path": "/a", "json": {"max_tokens": 100}}\n{"path": "/b", "cost": 78}\n{"path": "/c"}\n'
    )
    job = Job(calls, "127.0.0.1:50051", limit=limit)
    checks = Checks(job, Source(job), Known(), None, Again(job), Console())
    checks.judge_for(POOL)
    for _ in checks.whole_file():
        pass
    assert checks.mean_cost == cost
    client = Asked(1)
    await line(POOL, client, checks.to_send, checks.mean_cost)
    assert client.asked == (3, cost)


def test_the_estimate_is_of_the_calls_that_are_sent(tmp_path: Path) -> None:
    """What has its result costs nothing more, and neither does what is in doubt and must not run twice."""
    calls = tmp_path / "calls.jsonl"
    costs = {"a": 1000, "b": 500, "c": 30}
    calls.write_text("".join(f'{{"method": "POST", "path": "/{path}", "cost": {costs[path]}}}\n' for path in costs))
    job, known = Job(calls, "127.0.0.1:50051"), Known()
    known[0 << 1], known[1 << 1] = HANDED, DONE
    checks = Checks(job, Source(job), known, None, Again(job), Console())
    list(checks.whole_file())
    assert (checks.to_send, checks.mean_cost) == (1, 30)
