"""`apiflux process` on a terminal of 60 columns: what is left on it when Ctrl-C ends the command at any stage."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client.scripted import free_port
from tests.e2e.commands import ENVIRON, write_lines
from tests.e2e.house import House
from tests.e2e.test_process_stop import posts
from tests.terminal import left_on, words

CTRL_C = b"\x03"
# The terminal becomes that of the process, so that its Ctrl-C is a signal; then it is the command.
COMMAND = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
import apiflux_grpc.jobs.run as run, apiflux_grpc.jobs.screen as screen
run.GRACE, screen.BAR_OF_READING = 3600.0, 0.0
from apiflux_grpc.__main__ import main
"""
# A file that has no end, however long the test takes to press a key.
ENDLESS = """
import itertools
from apiflux_grpc.jobs.checks import Checks
Checks.whole_file = lambda self: itertools.repeat(None)
"""


class OnTerminal:
    """The command, and what it has written to its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.written = ""
        self._terminal = terminal

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def read_until(self, wanted: Callable[[str], bool]) -> None:
        """What comes is read until `wanted` holds of all of it, or the command has ended."""
        while not wanted(self.written):
            try:
                data = os.read(self._terminal, 1 << 16)
            except OSError:  # EIO: nobody has it open any more
                data = b""
            if not data:
                return
            self.written += data.decode()

    def end(self) -> list[str]:
        """The lines that are left on the terminal after the end."""
        self.read_until(lambda written: False)
        self.process.wait(timeout=50)
        shown, hidden = self.written.rfind("\x1b[?25h"), self.written.rfind("\x1b[?25l")
        assert shown >= hidden  # the cursor is there
        return left_on(self.written)


@contextmanager
def on_terminal(*args: str | Path, cwd: Path, before: str = "") -> Iterator[OnTerminal]:
    """The command in a process of its own, which runs `before` first."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environ = {name: value for name, value in ENVIRON.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-c", f"{COMMAND}{before}main()", *map(str, args)]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        cwd=cwd,
        env=environ | {"TERM": "xterm"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield OnTerminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_ctrl_c_while_calls_are_in_flight(tmp_path: Path, house: House) -> None:
    """The bar gives way to the last lines: what was written, and how to go on. So it does at the second Ctrl-C."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(4)), tmp_path / "out.jsonl"
    house.upstream.hold()
    with on_terminal("process", "--target", house.target, source, "-o", output, cwd=tmp_path) as command:
        house.upstream.wait_for(4)
        command.read_until(lambda written: "0 of 4" in written)
        command.press(CTRL_C)
        command.read_until(lambda written: "at once" in written)
        command.read_until(lambda written: words(written)[-1] == "waiting for 4 answers")
        command.press(CTRL_C)
        lines = command.end()
    assert command.process.returncode == 4
    assert [line for line in lines if "of 4" in line] == ["interrupted: 0 of 4 results were written"]
    assert "".join(lines[-2:]).endswith("out.jsonl again to continue")
    assert not any("^C" in line or "answers" in line or "\u2501" in line for line in lines)


@pytest.mark.parametrize("stage", ["checking", "waiting"])
def test_ctrl_c_before_anything_is_sent(tmp_path: Path, house: House, stage: str) -> None:
    """While a file is checked, and while a server is waited for."""
    source, output = write_lines(tmp_path / "calls.jsonl", posts(1)), tmp_path / "out.jsonl"
    target = house.target if stage == "checking" else f"127.0.0.1:{free_port()}"
    arguments = ("process", "--target", target, source, "--wait", "3600", "-o", output)
    with on_terminal(*arguments, cwd=tmp_path, before=ENDLESS if stage == "checking" else "") as command:
        command.read_until(lambda written: stage in written)
        command.press(CTRL_C)
        lines = command.end()
    assert command.process.returncode == 4
    assert lines[-1].removeprefix("^C") == "interrupted: nothing was sent"
    assert not any("checking" in line for line in lines)
    assert not output.exists()
