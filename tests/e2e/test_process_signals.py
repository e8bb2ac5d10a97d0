"""From the first signal on, every end of `apiflux process` is exit code 4, whenever that signal comes and the next one.

A signal that comes at a chosen moment is sent by the process to itself: no test depends on how fast anything is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.commands import COMMAND, ENVIRON, read_until, running, write_lines
from tests.e2e.house import House

SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "apiflux"),)

# Sends SIGNAL when MODULE is looked for.
AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["MODULE"]:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Finder())
"""

# Sends SIGINT when the process exits, and again when its last objects go, after Python has given up its handlers.
AT_THE_END = """
import atexit, os, signal, sys

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), signum=signal.SIGINT):
        kill(pid, signum)

atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.kept_to_the_end = Last()
"""

# Runs the command in one forked process after the other. In each SIGINT comes at another function call, and twice more
# soon after; at the latest it comes when the exit code is about to be decided. Prints the exit codes.
AT_ANY_CALL = """
import os, signal, sys
import typer
import apiflux_grpc.client, apiflux_grpc.jobs.run
from apiflux_grpc.__main__ import main
from apiflux_grpc.cli.app import app

typer.main.get_command(app).make_context("apiflux", ["process", "calls"]).close()  # loads what typer itself needs

def count(moments):
    calls = 0
    def at_call(frame, event, argument):
        nonlocal calls
        if event != "call":
            return
        calls += 1
        is_decided = frame.f_code.co_name == "decided"
        if is_decided and not moments:
            os.write(1, f"{calls}\\n".encode())
        elif calls in moments or (is_decided and calls < moments[0]):
            os.kill(os.getpid(), signal.SIGINT)
            if calls == moments[-1]:
                sys.setprofile(None)
    sys.setprofile(at_call)

def run(*moments):
    child = os.fork()
    if not child:
        sys.argv = ["apiflux", "process", *sys.argv[1:], "--output", f"out-{moments[:1]}"]
        os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        count(moments)
        main()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

reading, writing = os.pipe()
out = os.dup(1)
os.dup2(writing, 1)
print(run(), file=sys.stderr, flush=True)
total = int(os.read(reading, 100))
os.dup2(out, 1)
step = total / 20
print(*(run(at, at + 7, at + 300) for at in (round(step * number) for number in range(1, 21))))
"""


def before_all(folder: Path) -> str:
    """The path on which this folder's sitecustomize is found first."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


@pytest.mark.parametrize(
    ("command", "signum", "module"),
    [
        (COMMAND, signal.SIGINT, "apiflux_grpc.cli.signals"),
        (SCRIPT, signal.SIGINT, "apiflux_grpc.cli.signals"),
        (SCRIPT, signal.SIGINT, "typer"),
        (SCRIPT, signal.SIGTERM, "typer"),
        (COMMAND, signal.SIGINT, "apiflux_grpc.client"),
        (COMMAND, signal.SIGTERM, "apiflux_grpc.jobs.run"),
    ],
)
def test_a_signal_while_modules_are_loaded(
    tmp_path: Path, command: tuple[str, ...], signum: signal.Signals, module: str
) -> None:
    """Exit code 4, quietly: nothing was begun."""
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    environ = {"PYTHONPATH": before_all(tmp_path), "MODULE": module, "SIGNAL": str(int(signum))}
    source = write_lines(tmp_path / "calls.jsonl", [{"path": "/"}])
    with running("process", source, cwd=tmp_path, command=command, environ=environ) as process:
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err) == (4, "", "")


def test_signals_while_the_interpreter_ends(tmp_path: Path, house: House) -> None:
    """They change no exit code: neither 4, after a first signal, nor 0, once everything is done."""
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END)
    source = write_lines(tmp_path / "calls.jsonl", [{"path": "/1"}])
    arguments = ("process", "--target", house.target, source)
    with running(*arguments, cwd=tmp_path, environ={"PYTHONPATH": before_all(tmp_path)}) as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    assert out.count("\n") == 1
    house.upstream.hold()
    with running(*arguments, cwd=tmp_path, environ={"PYTHONPATH": before_all(tmp_path)}) as process:
        house.upstream.wait_for(2)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "waiting up to")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 4, err
    assert "Exception ignored" not in err
    assert "Traceback" not in err


@pytest.mark.timeout(300)
def test_signals_at_any_moment_of_a_run(tmp_path: Path, house: House) -> None:
    """Three of them, the first at one of 20 moments between the first line of `main` and its last: always 4."""
    source = write_lines(tmp_path / "calls.jsonl", [{"path": "/1"}, {"path": "/2", "method": "POST"}])
    (tmp_path / "moments.py").write_text(AT_ANY_CALL)
    command = [sys.executable, "moments.py", "--target", house.target, "--pool", "simulated", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRON, check=False)
    assert done.stderr == "0\n"  # the run without a signal
    assert done.stdout.split() == ["4"] * 20
    assert "Traceback" not in (tmp_path / "stderr").read_text()
