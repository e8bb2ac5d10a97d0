"""The command where standard output, or something that `process` is given is bad: one plain line, never a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.commands import COMMAND, ENVIRON, run

ANY_PORT = ("--bind", "127.0.0.1:0")
CONFIG = '[pools.default]\nlimits = []\nkeys = [{ label = "a", secret = "canary-5c0d" }]\n'


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "args", [("--version",), ("serve", *ANY_PORT), ("judge", "--limit", "10/1s", "--key", "k", *ANY_PORT)]
)
def test_a_full_standard_output_is_said_in_one_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Exit code 1; what serves doesn't go on unheard, and the interpreter says nothing of its own at its end."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *args],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
            cwd=tmp_path,
            env=ENVIRON,
        )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (
        1,
        ["can't write to standard output: No space left on device"],
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "args", [("plan", "--json", "--calls", "10", "--limit", "10/1s"), ("check-config", "apiflux.toml")]
)
def test_a_result_that_cannot_be_written_is_said_in_one_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Exit code 1, for a command whose result is its standard output."""
    (tmp_path / "apiflux.toml").write_text(CONFIG)
    with open("/dev/full", "w") as full:
        done = run(*args, cwd=tmp_path, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == "can't write to standard output: No space left on device\n"


def test_a_reader_that_leaves_is_told_nothing(tmp_path: Path) -> None:
    """`plan | head`: quiet."""
    command = [*COMMAND, "plan", "--json", "--calls", "10", "--limit", "10/1s"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, timeout=50, check=False, cwd=tmp_path, env=ENVIRON
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (4, b"")


def test_process_without_a_standard_output_sends_nothing(tmp_path: Path) -> None:
    """With --output it needs none; nothing else gets its number."""
    (tmp_path / "calls.jsonl").write_text('{"path": "/"}\n')
    before = (tmp_path / "calls.jsonl").read_bytes()
    for options, message in (([], "standard output is closed"), (["--output", "out"], "UNAVAILABLE")):
        command = [*COMMAND, "process", "calls.jsonl", "--target", "127.0.0.1:1", *options]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *command],
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
            cwd=tmp_path,
            env=ENVIRON,
        )
        assert done.returncode == 4
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "calls.jsonl").read_bytes() == before


@pytest.mark.parametrize("token", ["canary-5c0d\nb", "canary-5c0dé"])
def test_a_token_that_cannot_be_sent_is_named_and_not_shown(tmp_path: Path, token: str) -> None:
    """Exit code 2, with the name of the variable."""
    (tmp_path / "calls.jsonl").write_text('{"path": "/"}\n')
    done = run("process", "calls.jsonl", cwd=tmp_path, environ={"APIFLUX_TOKEN": token})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the variable APIFLUX_TOKEN: the token must be printable ASCII without spaces\n"


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    """Exit code 2 and the file; OpenSSL says nothing."""
    (tmp_path / "calls.jsonl").write_text('{"path": "/"}\n')
    (tmp_path / "ca.pem").write_text("no PEM\n")
    done = run("process", "calls.jsonl", "--ca-file", "ca.pem", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "ca.pem has no certificate in PEM form\n")


def test_a_template_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Not the file of calls."""
    (tmp_path / "a.csv").write_text("id\n1\n")
    done = run("process", "a.csv", "--template", "@/nope", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "can't read the template /nope: No such file or directory\n")
