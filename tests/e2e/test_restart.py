"""A server that ends, however it does, and the next one with the same keys: together they keep every limit."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from apiflux_grpc.client import ApifluxError, Client
from apiflux_grpc.core.lease.codec import entry_of
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import CANARY, ask_of, gets, judging, run, stands_still, toml, until

SECOND: Final = 1_000_000_000
# Not max_in_flight: that is shared, and what a killed server had in flight counts until the timeout.
POOLS: Final = {"default": "max_connections = 50"}


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
    with closing(sqlite3.connect(tmp_path / "apiflux" / "budgets.sqlite3")) as file:
        assert file.execute("SELECT name FROM budget").fetchall() == [("default/default-1",)]


def charged(state: Path) -> int:
    """Calls of the key that count as spent, by the file."""
    with closing(sqlite3.connect(state / "apiflux" / "budgets.sqlite3")) as file:
        ((text,),) = file.execute("SELECT entry FROM budget").fetchall()
    entry = entry_of(json.loads(text))
    (log,) = entry.logs.values()
    return log.used.calls + entry.leased(log, entry.last).calls


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_kills_under_load_lose_a_chunk_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """leases.md, a process is killed: what it had reserved stays charged, a fiftieth of the key at most; and no
    call that arrived is forgotten."""
    limit, kills = Limit(3000, 600 * SECOND), 10
    # However late a busy machine sees that enough have come: no more come, so that there is enough for all.
    calls, wanted = limit.max // 14, limit.max // 20
    with judging(POOLS, [limit], 1) as judge:

        async def loaded(target: str, name: str) -> None:
            async with Client(target) as client:
                await run(client, gets(name, calls))

        for number in range(kills):
            with served(judge, limit, tmp_path) as one:
                before = judge.live().arrivals
                load = asyncio.create_task(loaded(one.target, f"load-{number}"))

                async def enough() -> bool:
                    return judge.live().arrivals >= before + wanted  # noqa: B023  # awaited in this turn

                await until(enough)
                one.kill()
                with suppress(ApifluxError):
                    await load
            assert charged(tmp_path) >= judge.live().arrivals
        report = ask_of(judge)
    lost = (charged(tmp_path) - report.arrivals) / kills
    with capsys.disabled():
        seconds = lost * limit.per_ns / SECOND / limit.max
        print(f"\n{kills} kills, {limit}: {lost:.1f} calls lost by each, {seconds:.1f} s of the key")
    assert lost <= limit.max // 50
