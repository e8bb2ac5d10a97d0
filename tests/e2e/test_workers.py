"""Several workers behind one port, killed, stopped and drained under load.

Every connection is to one worker, whichever the kernel chose: tests open connections until each worker has one.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import pytest

from apiflux_grpc.client import Client, Result, Unavailable
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.workers.folder import PREFIX, shared_folder
from tests.e2e.pairs import OWN_CONNECTION, Pair, ask, ask_of, gets, judging, name_of, posts, read, toml, until
from tests.e2e.programs import line_of, program

SECOND = 1_000_000_000
WORKERS = (1, 2)
LIMIT = Limit(60, SECOND)  # of each of two keys

# Serves with two workers of which none may be silent for longer than some ns.
SUPERVISOR = """
import sys
from pathlib import Path
from apiflux_grpc.settings import load
from apiflux_grpc.workers.supervision import Bounds
from apiflux_grpc.workers.supervisor import supervise

settings = load(Path(sys.argv[1]), environ={}, bind="127.0.0.1:0")
announce = lambda address: print(address, flush=True)
sys.exit(supervise(settings, "warning", "console", announce, Bounds(silence=int(sys.argv[2]))))
"""


def workers_of(pid: int) -> dict[int, psutil.Process]:
    """The workers of this supervisor, by their numbers."""
    return {int(child.cmdline()[-1]): child for child in psutil.Process(pid).children()}


@asynccontextmanager
async def one_for_each(target: str) -> AsyncIterator[dict[int, Client]]:
    """A client of each worker, by its number."""
    async with AsyncExitStack() as stack:
        found: dict[int, Client] = {}

        async def look() -> bool:
            client = await stack.enter_async_context(Client(target, options=OWN_CONNECTION))
            try:
                info = await client.info(timeout=50)
            except Unavailable:  # it was waiting for one that was killed
                return False
            assert info.workers == len(WORKERS)
            found.setdefault(info.worker, client)
            return found.keys() == set(WORKERS)

        await until(look)
        yield found


def shared_in(temporary: Path) -> list[Path]:
    """The folders that workers share, or that were left of that."""
    return [*temporary.glob(f"{PREFIX}*")]


@contextmanager
def two_workers() -> Iterator[Pair]:
    """A judge, and a server with two workers in front of it."""
    with judging(["default"], [LIMIT], 2, latency=(10, 30)) as judge, ServedProcess(config(judge), {}) as served:
        yield Pair(judge, served)


def config(judge: JudgeProcess) -> str:
    """Two workers, whose leases bear a busy machine."""
    head = '[server]\nworkers = 2\n[budget]\nlease = "500ms"\n'
    return head + toml(judge.url, {"default": "max_in_flight = 10"}, [LIMIT], 2)


async def test_a_killed_worker_ends_its_own_connections_only() -> None:
    """The others go on, it is started again, and SIGTERM drains all: each call has its result, and none came twice.

    Row 1 of leases: no window of a key is exceeded over all of this, for what the killed one held stays charged.
    """
    with two_workers() as pair:
        supervisor = pair.served.pid
        before = workers_of(supervisor)
        assert before.keys() == set(WORKERS)
        batches = {1: posts("first-1", 100), 2: posts("first-2", 400)}
        results: dict[int, list[Result]] = {number: [] for number in WORKERS}

        async def second_is_under_way() -> bool:
            return bool(results[2])

        async def both_are_under_way() -> bool:
            return all(results.values())

        async with one_for_each(pair.target) as clients:
            reading = [
                asyncio.create_task(read(clients[number].process(batches[number]), results[number]))
                for number in WORKERS
            ]
            await until(second_is_under_way)
            before[2].kill()
            assert await reading[0] is None
            assert isinstance(await reading[1], Unavailable)
        assert len(results[1]) == 100
        assert all(result.ok for number in WORKERS for result in results[number])

        async with one_for_each(pair.target) as clients:
            after = workers_of(supervisor)
            assert after[1] == before[1]
            assert after[2] != before[2]
            batches = {number: gets(f"second-{number}", 2000) for number in WORKERS}
            results = {number: [] for number in WORKERS}
            reading = [
                asyncio.create_task(read(clients[number].process(batches[number]), results[number]))
                for number in WORKERS
            ]
            await until(both_are_under_way)
            assert await asyncio.to_thread(pair.served.terminate) == 0
            for error in await asyncio.gather(*reading):
                assert isinstance(error, Unavailable)
                assert error.reason == "DRAINING"
        assert not any(process.is_running() for process in after.values())
        named = {name_of(batches[number][result.index]): result for number in WORKERS for result in results[number]}
        assert len(named) == 4000
        drained = {name for name, result in named.items() if result.error is not None}
        assert {(named[name].failure, named[name].attempts) for name in drained} == {("DRAINING", 0)}
        assert ask(pair).seen_twice == 0
        assert named.keys() - drained == {name for name in pair.judge.calls() if "/second-" in name}


@pytest.mark.slow
async def test_a_stopped_worker_is_replaced_and_none_outlives_its_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP is silence, wherever it met the worker: it is killed after the bound, and the other one's calls go on.

    SIGKILL of the supervisor ends all, a stopped worker too; the next one removes the folder that they shared.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with judging(["default"], [LIMIT], 2, latency=(10, 30)) as judge:
        (tmp_path / "c.toml").write_text(config(judge))
        with program(SUPERVISOR, str(tmp_path / "c.toml"), str(4 * SECOND)) as supervisor:
            target = (await line_of(supervisor)).strip()
            stopped = workers_of(supervisor.pid)[2]
            results: dict[int, list[Result]] = {number: [] for number in WORKERS}

            async def is_under_way() -> bool:
                return bool(results[2])

            async with one_for_each(target) as clients:
                reading = [
                    asyncio.create_task(read(clients[number].process(gets(str(number), 400)), results[number]))
                    for number in WORKERS
                ]
                await until(is_under_way)
                stopped.suspend()
                assert isinstance(await reading[1], Unavailable)
                assert await reading[0] is None
            assert [result.ok for result in results[1]] == [True] * 400
            async with one_for_each(target):
                workers = list(workers_of(supervisor.pid).values())
            workers[0].suspend()
            supervisor.kill()

            async def are_gone() -> bool:
                return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in workers)

            try:
                await until(are_gone)
            finally:
                for one in workers:
                    if one.is_running():
                        one.kill()
        assert len(shared_in(tmp_path)) == 1
        with shared_folder() as folder:
            assert shared_in(tmp_path) == [folder]
        ask_of(judge)
