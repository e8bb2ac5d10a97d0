"""Running the command line in tests: in this process, or in one of its own if it is to be signalled or killed.

Rule: `run` is the command as `main` runs it, with its own standard streams as file descriptors, its own environment
and folder; only signals, imports and the interpreter's end need a process, and that costs twenty times as much.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from unittest import mock

from apiflux_grpc.cli import start
from apiflux_grpc.settings.initial import found_presets

COMMAND = (sys.executable, "-m", "apiflux_grpc")
# Set here they would be the settings of what is tested; COLUMNS: no message is broken by its width.
SETTINGS = ("PORT", "TEST_MODE", "RATE_LIMIT", "API_KEYS", "BATCH_SIZE", "UPSTREAM_URL", "CONCURRENT_REQUESTS")
# Nor may a key of whoever runs the tests be there, for `init` would find it.
ENVIRON = {name: value for name, value in os.environ.items() if name not in SETTINGS and not found_presets([name])} | {
    "COLUMNS": "300"
}
Done = subprocess.CompletedProcess[str]
Rows = list[dict[str, Any]]


class _Reader:
    """Reads a pipe to its end, and tells of each line."""

    def __init__(self, heard: Callable[[str], object] | None = None) -> None:
        self._end, self.descriptor = os.pipe()
        self._heard = heard
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def text(self) -> str:
        """All of it. Every copy of the descriptor must be closed by now."""
        self._thread.join()
        return "".join(self._lines)

    def _read(self) -> None:
        with open(self._end, encoding="utf-8", newline="") as file:
            for line in file:
                self._lines.append(line)
                if self._heard is not None:
                    self._heard(line)


@contextlib.contextmanager
def _descriptors(*new: int) -> Iterator[None]:
    """These in the places of 0, 1 and 2; they are closed."""
    saved = [os.dup(number) for number in range(3)]
    for number, descriptor in enumerate(new):
        os.dup2(descriptor, number)
        os.close(descriptor)
    try:
        yield
    finally:
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _is_own(record: logging.LogRecord) -> bool:
    """False for what grpc.aio says on the running loop of events that belong to another loop of this process.

    All loops share one queue of events: what came too late for a loop that an earlier test has closed is handled by
    this one, as an exception. A command in a process of its own has one loop.
    """
    return "PollerCompletionQueue._handle_events" not in record.getMessage()


@contextlib.contextmanager
def _interpreter(args: Iterable[str], environ: dict[str, str], cwd: Path) -> Iterator[None]:
    """What a fresh interpreter has: streams, arguments, environment, folder, no log."""
    root, loops = logging.getLogger(), logging.getLogger("asyncio")
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    loops.addFilter(_is_own)
    # Not closed: the command detaches what is beneath its standard output.
    out = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    err = open(2, "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.multiple(sys, argv=["apiflux", *args], stdin=io.StringIO(), stdout=out, stderr=err),
    ):
        try:
            yield
        finally:
            loops.removeFilter(_is_own)
            root.handlers[:] = handlers
            root.setLevel(level)


def environ_of(cwd: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """State is kept in the command's own folder: no test knows what another has spent."""
    return {**ENVIRON, "XDG_STATE_HOME": str(cwd / "state"), **(environ or {})}


@contextlib.contextmanager
def no_larger_files(most: int | None) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes; None: any may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run(
    *args: str | Path,
    cwd: Path,
    stdin: str = "",
    stdout: int | None = None,
    heard: Callable[[str], object] | None = None,
    most: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Done:
    """Run the command in this process. `stdin` comes through a pipe, at most 64 KiB; `heard` is called with each line
    on standard error, in a thread; `most` is how large a file may become."""
    texts = [str(arg) for arg in args]
    given, writing = os.pipe()
    os.write(writing, stdin.encode())
    os.close(writing)
    out, err = _Reader(), _Reader(heard)
    if stdout is not None:
        os.dup2(stdout, out.descriptor)
    with (
        _descriptors(given, out.descriptor, err.descriptor),
        _interpreter(texts, environ_of(cwd, environ), cwd),
        no_larger_files(most),
    ):
        code = start.run()
    return Done(texts, code, out.text(), err.text())


@contextlib.contextmanager
def running(
    *args: str | Path,
    cwd: Path,
    stdin: int | None = None,
    command: Iterable[str] = COMMAND,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, killed at the end of the block."""
    pipe = subprocess.PIPE
    line = [*command, *map(str, args)]
    with subprocess.Popen(
        line, stdin=stdin, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=environ_of(cwd, environ)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(*calls: dict[str, Any]) -> str:
    return "".join(json.dumps(call) + "\n" for call in calls)


def write_lines(path: Path, calls: Iterable[dict[str, Any]]) -> Path:
    path.write_text(lines_of(*calls))
    return path


def rows_in(text: str) -> Rows:
    """JSON Lines, by index. Raises ValueError if it isn't strict JSON."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    return sorted(rows, key=lambda row: int(row["index"]))


def rows_of(path: Path) -> Rows:
    """The same of a file."""
    return rows_in(path.read_text())


def indexes(rows: Rows) -> list[int]:
    return [row["index"] for row in rows]


def wait_for_rows(path: Path, count: int) -> None:
    """Until the file has so many lines. A job whose upstream holds all other answers stands still then."""
    for _ in range(5_000):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{count} results never came")


def read_until(stream: IO[str] | None, word: str) -> str:
    """The lines of a process's stream, up to the one that has this word."""
    assert stream is not None
    lines = ""
    for line in stream:
        lines += line
        if word in line:
            return lines
    raise AssertionError(f"{word!r} was never said: {lines}")
