"""The supervisor with real processes, signals and sockets, and workers that only say what real ones do.

A worker is started in a thirtieth of a second like this. What is to happen when all serve a test does when that is
announced, and a worker can signal its supervisor.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import psutil
import pytest

from apiflux_grpc import bootstrap
from apiflux_grpc.adapters import mounts
from apiflux_grpc.core.redis_url import parse_redis_url
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.settings import Settings, load
from apiflux_grpc.settings.types import OpsSettings, StateSettings
from apiflux_grpc.workers import supervisor, words
from apiflux_grpc.workers.supervision import Bounds
from apiflux_grpc.workers.supervisor import CantServe, supervise

# argv: the file where starts are noted, what to do, and the number. It has said all that the supervisor hears.
WORKER = """
import os, signal, sys, time
notes, plan, number = sys.argv[1:]
with open(notes, "a+") as file:
    file.write(number + "\\n")
    file.flush()
    file.seek(0)
    starts = file.read().splitlines().count(number)
def say(text):
    os.write(0, text.encode() + b"\\n")
for word in plan.split(" "):
    name, _, only = word.partition("@")
    if only and only != number + "." + str(starts):
        continue
    match name:
        case "serves": say(name)
        case "fails": say("failed 2 the disk: is full"); sys.exit(2)
        case "exits": sys.exit(3)
        case "ends_all": os.kill(os.getppid(), signal.SIGTERM)
        case "beats":
            while True: say("beat"); time.sleep(0.05)
        case "ignores": signal.signal(signal.SIGTERM, signal.SIG_IGN)
while os.read(0, 1 << 16):  # a worker ends with its supervisor, which is pytest here
    pass
"""
OTHERS: set[psutil.Process] = set()  # children of this process that no test here has started
WITHOUT_LIMITS = """
[server]
bind = "127.0.0.1:0"
workers = 2
[pools.default]
limits = []
keys = [{ label = "a", secret = "canary-5a" }]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two workers on any port."""
    (tmp_path / "c.toml").write_text(WITHOUT_LIMITS)
    return load(tmp_path / "c.toml", environ={})


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The number of each worker that was started."""
    return tmp_path / "starts"


def planned(monkeypatch: pytest.MonkeyPatch, notes: Path, plan: str) -> None:
    """Each worker does this in order: WORD, or WORD@NUMBER.START only in that start of that worker."""
    monkeypatch.setattr(supervisor, "COMMAND", (sys.executable, "-S", "-E", "-c", WORKER, str(notes), plan))


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    """Of those that this test has; servers that many tests share are children of this process too."""
    OTHERS.clear()
    OTHERS.update(psutil.Process().children())
    yield
    assert workers() == []


def workers() -> list[psutil.Process]:
    """Those that this test has now."""
    return [one for one in psutil.Process().children() if one not in OTHERS]


def run(
    settings: Settings, bounds: Bounds | None = None, when_all_serve: Callable[[psutil.Process], object] | None = None
) -> tuple[int, list[str]]:
    """The exit code, and what was announced; then something is done to worker 2."""
    announced: list[str] = []

    def announce(address: str) -> None:
        announced.append(address)
        if when_all_serve is not None:
            (second,) = (one for one in workers() if one.cmdline()[-1] == "2")
            when_all_serve(second)

    return supervise(settings, "info", "console", announce, bounds), announced


def test_the_address_is_announced_once_when_all_serve(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that ended is started again, which only the log tells; SIGTERM ends all, which is no warning."""
    planned(monkeypatch, notes, "serves ends_all@2.2")
    with caplog.at_level(logging.INFO):
        code, announced = run(settings, None, psutil.Process.kill)
    ends = [line for line in caplog.records if line.msg == "worker ended"]
    assert [line.levelname for line in ends] == ["WARNING", "INFO", "INFO"]
    assert vars(ends[0])["how"] == "was killed by SIGKILL"
    assert code == 0
    (address,) = announced
    assert address.startswith("127.0.0.1:")
    assert not address.endswith(":0")
    assert sorted(notes.read_text().split()) == ["1", "2", "2"]


def test_workers_have_one_operations_port(settings: Settings) -> None:
    """It is held as gRPC's is: whoever has it already keeps them from starting."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        with pytest.raises(CantServe, match=f"can't listen on 127.0.0.1:{taken}"):
            run(replace(settings, ops=OpsSettings("127.0.0.1", taken)))


def test_what_a_worker_says_of_its_failure_is_what_the_command_says(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path
) -> None:
    """With its exit code; it is told once, though no worker can start."""
    planned(monkeypatch, notes, "fails")
    with pytest.raises(CantServe, match=r"^the disk: is full$") as failed:
        run(settings)
    assert failed.value.code == 2


def test_a_worker_that_dies_at_its_start_is_told(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path
) -> None:
    """Exit code 1, and how it ended."""
    planned(monkeypatch, notes, "exits@1.1")
    with pytest.raises(CantServe, match="worker 1 ended with exit code 3 before all served") as failed:
        run(settings)
    assert failed.value.code == 1


def settings_given(monkeypatch: pytest.MonkeyPatch, notes: Path, settings: Settings) -> Settings:
    """What the workers are told to serve."""
    tasks: list[words.Task] = []
    monkeypatch.setattr(words, "give", lambda connection, task: tasks.append(task))
    planned(monkeypatch, notes, "serves ends_all@1.1")
    run(settings)
    first, second = (task.settings for task in tasks)
    assert first == second
    return first


def test_workers_share_a_directory_that_ends_with_them(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path
) -> None:
    """If there is none else, for without it each would have the whole of every limit; on one port, too."""
    given = settings_given(monkeypatch, notes, settings)
    state = given.state
    assert (settings.state.directory, settings.port) == (None, 0)
    assert state.directory is not None
    assert state.asked_at  # so that no pool does without it, and no worker
    assert not state.directory.exists()
    assert given.port != 0


def test_workers_with_a_redis_need_no_directory(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path
) -> None:
    """It keeps their budgets, and those of other hosts."""
    monkeypatch.setattr(tempfile, "TemporaryDirectory", mock.Mock(side_effect=FileNotFoundError))
    state = StateSettings(redis=parse_redis_url("redis://h"), asked_at="c.toml: budget.redis")
    assert settings_given(monkeypatch, notes, replace(settings, state=state)).state == state


async def test_workers_do_not_do_without_a_directory(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path, tmp_path: Path
) -> None:
    """One server goes on in memory if its default can't be used; workers refuse one on a network file system."""
    table = tmp_path / "mounts"
    table.write_text(f"22 21 0:5 / {tmp_path} rw,relatime - nfs4 server:/export rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    default = replace(settings, state=StateSettings(tmp_path / "state"))
    assert await bootstrap.open_store(default) is None
    given = settings_given(monkeypatch, notes, default)
    with pytest.raises(bootstrap.StateUnusable, match=r"^server\.state_dir: .* network file system \(nfs4\)"):
        await bootstrap.open_store(given)


def test_workers_need_a_directory(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """A container may have none that can be written: exit code 2, and what to set."""
    monkeypatch.setattr(tempfile, "TemporaryDirectory", mock.Mock(side_effect=FileNotFoundError("no usable one")))
    with pytest.raises(CantServe, match=r"can't make one \(no usable one\); set server\.state_dir") as failed:
        run(settings)
    assert failed.value.code == 2


def test_a_process_that_cannot_be_started_is_a_worker_that_cannot(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """The machine has no more of them, say: exit code 1, and why."""
    monkeypatch.setattr(supervisor, "COMMAND", ("/nonexistent",))
    with pytest.raises(CantServe, match=r"can't start a worker: .*No such file") as failed:
        run(settings)
    assert failed.value.code == 1


def test_a_worker_that_is_silent_is_killed(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it is stopped, when SIGTERM would wait for SIGCONT; and another one takes its place."""
    planned(monkeypatch, notes, "serves ends_all@2.2 beats")
    assert run(settings, Bounds(silence=SECOND), psutil.Process.suspend)[0] == 0
    assert [vars(line)["why"] for line in caplog.records if line.msg == "worker killed"] == [
        "it did not answer for 1 s"
    ]


def test_a_worker_that_does_not_drain_is_killed(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path
) -> None:
    """Exit code 1: what it had open is lost."""
    planned(monkeypatch, notes, "ignores serves ends_all@1.1")
    assert run(settings, Bounds(drain=100 * MILLISECOND))[0] == 1


def test_no_worker_is_left_when_the_supervisor_fails(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, notes: Path
) -> None:
    """Standard output is closed, say; and signals are whose they were."""
    planned(monkeypatch, notes, "ignores serves")
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]

    def announce(address: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        supervise(settings, "info", "console", announce)
    assert workers() == []
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_supervisor_has_neither_grpc_nor_a_loop() -> None:
    """What isn't there can't break in it, nor take memory: settings are read without them."""
    code = (
        "import sys; from apiflux_grpc.settings import load; load(None, environ={}); "
        "import apiflux_grpc.cli.serve, apiflux_grpc.workers.supervisor; "
        "print([name for name in ('grpc', 'asyncio', 'aiohttp', 'apsw', 'google') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_a_worker_of_ours_leaves_when_there_is_no_supervisor() -> None:
    """Started by hand, it has no task: exit code 1, and no traceback."""
    pid = os.posix_spawn(
        sys.executable,
        [*supervisor.COMMAND, "1"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
