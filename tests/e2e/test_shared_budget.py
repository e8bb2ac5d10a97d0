"""One key in two pools of a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiflux_grpc.client import Client
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, stands_still, until

LIMIT = Limit(100, 600 * 1_000_000_000)


@pytest.mark.parametrize("kept", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_pools_that_share_a_budget_keep_its_limits_together(tmp_path: Path, kept: bool) -> None:
    """leases.md, rule 1: `budget = NAME` shares one between pools, be it kept or not; and all of it is used."""
    key = f'{{ label = "a", secret = "{CANARY}-default-1", budget = "shared" }}'
    with judging(["default"], [LIMIT], 1) as judge:

        async def all_spent() -> bool:
            return judge.live().arrivals >= LIMIT.max

        text = "".join(
            f'[pools.{pool}]\nbase_url = "{judge.url}"\nlimits = [{{ max = 100, per = "600s" }}]\nkeys = [{key}]\n'
            for pool in ("one", "other")
        )
        with ServedProcess(text, {}, state=tmp_path if kept else None) as served:
            async with Client(served.target) as client:
                loads = [asyncio.create_task(run(client, gets(pool, 300), pool)) for pool in ("one", "other")]
                await until(all_spent)
                for pool in ("one", "other"):
                    await stands_still(client, pool)
                for load in loads:
                    load.cancel()
        assert ask_of(judge).arrivals == LIMIT.max
