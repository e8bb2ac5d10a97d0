"""A server that ends, however it does, and the next one with the same keys: together they keep every limit."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from apiflux_grpc.client import ApifluxError, Client
from apiflux_grpc.core.lease.terms import life_of
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, stands_still, toml, until

SECOND: Final = 1_000_000_000
POOLS: Final = {"default": "max_in_flight = 50"}


@contextmanager
def served(judge: JudgeProcess, limit: Limit, state: Path) -> Iterator[ServedProcess]:
    """A server with one key that keeps what was spent in `state`."""
    with ServedProcess(toml(judge.url, POOLS, [limit], 1), {}, state=state) as one:
        yield one


async def test_a_restart_neither_forgets_nor_loses_what_is_left(tmp_path: Path) -> None:
    """leases.md, SQLite: what an orderly end leaves can all be spent, and after a SIGKILL nothing is spent twice."""
    limit = Limit(200, 600 * SECOND)

    async def all_spent() -> bool:
        return judge.live().arrivals >= limit.max

    with judging(POOLS, [limit], 1) as judge:
        with served(judge, limit, tmp_path) as first:
            async with Client(first.target) as client:
                await run(client, gets("first", 50))
            assert first.terminate() == 0
        with served(judge, limit, tmp_path) as second:
            async with Client(second.target) as client:
                load = asyncio.create_task(run(client, gets("second", 500)))
                await until(all_spent)
                second.kill()
                with pytest.raises(ApifluxError):
                    await load
        with served(judge, limit, tmp_path) as third:
            async with Client(third.target) as client:
                load = asyncio.create_task(run(client, gets("third", 500)))
                await stands_still(client, "default")
                load.cancel()
        assert ask_of(judge).arrivals == limit.max
    written = b"".join(path.read_bytes() for path in (tmp_path / "apiflux").iterdir())
    assert CANARY.encode() not in written
    with sqlite3.connect(tmp_path / "apiflux" / "budgets.sqlite3") as file:
        assert file.execute("SELECT name FROM budget").fetchall() == [("default/default-1",)]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_kills_under_load_exceed_no_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """leases.md, a process is killed: its open chunk stays charged. What ten of them cost is printed."""
    limit, kills = Limit(400, 4 * SECOND), 10
    with judging(POOLS, [limit], 1) as judge:

        async def loaded(target: str, name: str) -> None:
            async with Client(target) as client:
                await run(client, gets(name, 5000))

        began = time.monotonic()
        for number in range(kills + 1):
            with served(judge, limit, tmp_path) as one:
                before = judge.live().arrivals
                load = asyncio.create_task(loaded(one.target, f"load-{number}"))

                async def enough() -> bool:
                    return judge.live().arrivals >= before + limit.max // 8  # noqa: B023  # awaited in this turn

                await until(enough)
                one.kill()
                with suppress(ApifluxError):
                    await load
        report = ask_of(judge)
        took = time.monotonic() - began
    pace = limit.max / (limit.per_ns + SECOND + life_of(limit.per_ns)) * SECOND
    lost = max(0.0, took - max(0.0, report.arrivals - limit.max) / pace)
    with capsys.disabled():
        print(
            f"\n{limit}: worst {report.worst:.3f}, {report.arrivals} calls in {took:.1f} s; "
            f"at most {lost / kills:.2f} s lost for each of {kills} kills, start-up included"
        )
