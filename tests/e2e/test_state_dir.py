"""Servers that keep their budgets in a directory of this host, and what becomes of that."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path
from typing import Final

import pytest

from apiflux_grpc.client import Client
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, toml, until

SECOND: Final = 1_000_000_000
LIMIT: Final = Limit(100, SECOND)
POOLS: Final = {"default": "max_connections = 50"}
LEASE: Final = '[budget]\nlease = "500ms"\n'  # bears a busy machine


@pytest.mark.slow
async def test_two_servers_with_one_directory_share_one_budget(tmp_path: Path) -> None:
    """leases.md, on one host: a second server joins by the same protocol, and all calls of both are answered."""
    with judging(POOLS, [LIMIT], 1) as judge:
        text = LEASE + toml(judge.url, POOLS, [LIMIT], 1)
        with ServedProcess(text, {}, state=tmp_path) as one, ServedProcess(text, {}, state=tmp_path) as other:
            async with Client(one.target) as first, Client(other.target) as second:
                batches = await asyncio.gather(run(first, gets("one", 120)), run(second, gets("other", 120)))
                held = (await second.info()).pools[0]
            assert CANARY not in one.stderr + other.stderr
        assert all(result.ok for results in batches for result in results.values())
        assert held.budget_store is not None
        assert not held.budget_store.error
        ask_of(judge, *batches)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits another process's files")
async def test_on_a_disk_that_is_full_leases_are_spent_then_calls_wait_and_all_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    """Rule 11 with a directory: GetInfo says why calls wait, and the server that can't write stays alive."""
    with (
        judging(POOLS, [LIMIT], 1) as judge,
        ServedProcess(LEASE + toml(judge.url, POOLS, [LIMIT], 1), {}, state=tmp_path) as served,
    ):
        async with Client(served.target) as client:
            load = asyncio.create_task(run(client, gets("load", 250)))

            async def are_under_way() -> bool:
                return judge.live().arrivals >= 60

            await until(are_under_way)
            before = resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            error = ""

            async def is_silent() -> bool:
                nonlocal error
                store = (await client.info()).pools[0].budget_store
                assert store is not None
                error = store.error
                return store.silent_for is not None

            await until(is_silent)
            made, same = -1, 0

            async def nothing_goes() -> bool:
                nonlocal made, same
                now = judge.live().arrivals
                made, same = now, same + 1 if now == made else 0
                return same >= 60

            await until(nothing_goes)
            (held,) = (await client.info()).pools[0].held_by
            assert held.cause == "STORE"
            assert error in held.reason
            assert "budgets.sqlite3 can't be written (disk I/O error): the disk is full" in error
            assert error.endswith(", or choose another state_dir")
            assert made < 250
            resource.prlimit(served.pid, resource.RLIMIT_FSIZE, before)
            results = await load
        assert "budget store answers again" in served.stderr
        assert CANARY not in served.stderr
        assert all(result.ok for result in results.values())
        ask_of(judge, results)
