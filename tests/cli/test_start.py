"""The first step of a command: what is loaded, how help is shown at any width, and short names of options."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from apiflux_grpc import __version__
from apiflux_grpc.cli.app import app
from docs.command_line import Command, commands
from tests.e2e.commands import ENVIRON, run, running

HEAVY = {"pydantic", "grpc", "google", "rich", "asyncio", "aiohttp", "aiolimiter", "httptools", "click", "logging"}


@pytest.mark.parametrize(
    ("args", "needless"),
    [
        (["--version"], HEAVY | {"typer", "apiflux_grpc.cli.app"}),
        (["--help"], HEAVY | {"typer", "apiflux_grpc.cli.app"}),
        (["-h"], HEAVY | {"typer", "apiflux_grpc.cli.app"}),
        (["process", "--help"], HEAVY | {"apiflux_grpc.client", "apiflux_grpc.jobs"}),
        (["process", "calls.jsonl", "--target", "127.0.0.1:1"], {"rich", "aiohttp", "aiolimiter", "httptools"}),
    ],
)
def test_a_command_loads_only_what_it_needs(tmp_path: Path, args: list[str], needless: set[str]) -> None:
    """--version and --help need nothing; `process` no settings, server, engine, judge, nor rich without a terminal."""
    (tmp_path / "calls.jsonl").write_text("{}\n")
    show = "import sys; from apiflux_grpc.__main__ import main\ntry: main()\nfinally: print(*sys.modules)"
    with running(*args, cwd=tmp_path, command=(sys.executable, "-c", show)) as process:
        out, err = process.communicate(timeout=50)
    loaded = set(out.splitlines()[-1].split())
    ours = ("settings", "server.lifecycle", "engine", "judge", "stress", "plan")
    assert "apiflux_grpc.cli.start" in loaded, err
    assert loaded & (needless | {f"apiflux_grpc.{name}" for name in ours}) == set()


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 250])
@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name or "all")
def test_help_is_never_cut(tmp_path: Path, command: Command, columns: int) -> None:
    """At any width every word of it is there, with each option, in lines that fit, and without a color."""
    shown = run(*filter(None, [command.name]), "-h", cwd=tmp_path, environ={"COLUMNS": str(columns), "NO_COLOR": "1"})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: {f'apiflux {command.name}'.strip()} [OPTIONS]")
    assert max(map(len, shown.stdout.splitlines())) < columns
    assert "\x1b" not in shown.stdout
    texts = [command.help]
    for one in command.parameters:
        texts += [*one.names, one.help]
    if not command.name:
        texts += [re.split(r"\n", other.help)[0] for other in commands()]
    assert [text for text in texts if solid(text) not in solid(shown.stdout)] == []


def solid(text: str) -> str:
    """Without the spaces, for lines are also broken within words."""
    return "".join(text.split())


def test_help_that_is_kept_ready_is_what_typer_shows(tmp_path: Path) -> None:
    """So it doesn't matter whether typer was loaded; -h is --help."""
    ready = run("--help", cwd=tmp_path, environ={"COLUMNS": "80"})
    assert ready.stdout == run("-h", cwd=tmp_path, environ={"COLUMNS": "200"}).stdout
    assert ready.stdout == run("--log-level", "info", "--help", cwd=tmp_path, environ={"COLUMNS": "80"}).stdout


def test_help_has_the_width_of_the_terminal(tmp_path: Path) -> None:
    """A narrow one, also if its lines go through a pipe to it; with nothing but pipes it is 80."""
    environ = {name: value for name, value in ENVIRON.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "apiflux_grpc", "--help"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True, env=environ, timeout=50, cwd=tmp_path)
    assert 60 < max(map(len, piped.stdout.splitlines())) <= 80
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        subprocess.run(["stty", "cols", "60"], stdin=theirs, check=True, timeout=50)
        paged = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environ, timeout=50, cwd=tmp_path)
        with subprocess.Popen(command, stdout=theirs, env=environ, cwd=tmp_path) as process:
            os.close(theirs)
            text = b""
            try:
                while chunk := terminal.read(1 << 16):
                    text += chunk
            except OSError:  # Linux's word for a terminal that nobody has open any more
                pass
            assert process.wait(timeout=50) == 0
    lines = text.decode().splitlines()
    assert solid(text.decode()) == solid(piped.stdout)
    assert lines == paged.stdout.decode().splitlines()
    assert 50 < max(map(len, lines)) < 60


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    """Alone, and among other options."""
    for args in (["--version"], ["--log-level", "info", "--version"]):
        done = run(*args, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"apiflux {__version__}\n", "")


def test_short_options_are_the_long_ones() -> None:
    """-c is --config and -o is --output, in every command that has them."""
    group: Any = typer.main.get_command(app)
    short = {"--config": "-c", "--output": "-o"}
    for name, command in group.commands.items():
        for option in command.params:
            for one in short.keys() & set(option.opts):
                assert short[one] in option.opts, name


# -- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("apiflux pro", ["process"]),
        ("apiflux process --retry-f", ["--retry-failed"]),
        ("apiflux --log-format j", ["json"]),
        ("apiflux presets sh", ["show"]),
        ("apiflux presets show open", ["openai"]),
        ("apiflux init goo", ["google-maps"]),
    ],
)
def test_what_is_typed_is_completed(tmp_path: Path, typed: str, offered: list[str]) -> None:
    """Commands, options and values: what each shell is answered when it asks as typer's scripts for it do."""
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_TYPER_COMPLETE_ARGS": typed}
    for shell in ("bash", "zsh", "fish"):
        environ = words | {"_APIFLUX_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = run(cwd=tmp_path, environ=environ)
        assert (done.returncode, done.stderr) == (0, "")
        if shell == "bash":
            assert done.stdout.split() == offered
        else:
            assert [word for word in offered if word not in done.stdout] == []
            assert "serve" not in done.stdout


def test_bash_completes_by_the_script_that_it_is_given(tmp_path: Path) -> None:
    """The script that is shown and installed, in a real shell."""
    script = """
        eval "$(_APIFLUX_COMPLETE=source_bash apiflux)"
        COMP_WORDS=(apiflux process --retry-f); COMP_CWORD=2
        $(complete -p apiflux | sed 's/.* -F \\([^ ]*\\) .*/\\1/') apiflux
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=tmp_path,
        env=ENVIRON | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert (done.stdout, done.stderr) == ("--retry-failed\n", "")
