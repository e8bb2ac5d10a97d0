"""Several processes on one file of budgets, and what happens to them in the middle of an exchange."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apiflux_grpc.adapters import state_file
from tests.adapters.lease_files import Machine, ask, first


def process(what: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.adapters.lease_process", what, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_spend_one_budget(tmp_path: Path) -> None:
    """All of it and not a call more, whoever is quicker; they begin by making the file, both of them."""
    running = [process("spend", tmp_path / "budgets.sqlite3") for _ in range(2)]
    got = [int(one.communicate()[0]) for one in running]
    assert sum(got) == 40


async def test_a_process_that_was_stopped_with_the_file_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are told so in a bounded time; when it has gone they go on, and nothing of its exchange was served."""
    monkeypatch.setattr(state_file, "BUSY", 0.01)
    machine = Machine(tmp_path, "boot")
    stopped = process("stop", machine.path)
    try:
        await asyncio.to_thread(os.waitpid, stopped.pid, os.WUNTRACED)
        store = machine.store()
        with pytest.raises(ConnectionError, match="is one stopped"):
            await ask(store, first("a", 10))
    finally:
        stopped.send_signal(signal.SIGKILL)
        stopped.communicate()
    (reply,) = await ask(store, first("a", 10))
    assert reply.granted.calls == 10
    await store.close()


def test_an_exchange_that_is_killed_was_served_whole_or_not_at_all(tmp_path: Path) -> None:
    """At whichever write of it: all three rounds are known then, or none."""
    running = process("die", tmp_path)
    *died, lived = [line.split() for line in running.communicate()[0].splitlines()]
    assert lived == ["4", "4", "4"]
    assert died
    assert all(line in (["4", "4", "4"], ["10", "10", "10"]) for line in died)
    assert ["10", "10", "10"] in died
