"""The command line in a process that is forked from one which has imported it: it is signalled and killed as any other.

Rule: what is proved is what the command does from its first line on, until it exits or a signal ends it. To start an
interpreter and to import takes three quarters of a short command's time, and is proved elsewhere (commands.running).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, Final

from apiflux_grpc.__main__ import main
from tests.e2e.commands import environ_of

FORKING: Final = multiprocessing.get_context("forkserver")
# What a command loads, and what a forked process would load of the program that started it.
FORKING.set_forkserver_preload(
    [
        *("pytest", "importlib.metadata", "pydantic.type_adapter", "zoneinfo"),
        *("apiflux_grpc.cli.app", "apiflux_grpc.jobs.begin", "apiflux_grpc.jobs.run", "apiflux_grpc.logs"),
        __name__,
    ]
)


class _Streams:
    """Descriptors that the forked process gets."""

    def __init__(self, *descriptors: int) -> None:
        self.descriptors = descriptors

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, tuple(map(DupFd, self.descriptors))


def _detached(*handles: Any) -> list[int]:
    return [handle.detach() for handle in handles]


def _command(descriptors: list[int], args: list[str], environ: Mapping[str, str], cwd: Path) -> None:
    """In the forked process, which has what a fresh interpreter has: streams, arguments, environment, folder."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    sys.argv = ["apiflux", *args]
    main()


class Forked:
    """A command under way; `err` is its standard error."""

    def __init__(self, process: ForkServerProcess, err: IO[str]) -> None:
        self._process = process
        self.err = err

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def rest(self) -> tuple[int | None, str]:
        """Its exit code, or the signal that ended it as a negative number, and what was left on standard error."""
        err = self.err.read()
        self._process.join()
        return self._process.exitcode, err


@contextlib.contextmanager
def forked(*args: str | Path, cwd: Path, stdin: str = "") -> Iterator[Forked]:
    """The command, killed at the end of the block. `stdin` comes through a pipe, at most 64 KiB."""
    given, writing = os.pipe()
    os.write(writing, stdin.encode())
    os.close(writing)
    reading, err = os.pipe()
    out = os.open(os.devnull, os.O_WRONLY)
    streams = _Streams(given, out, err)
    process = FORKING.Process(target=_command, args=(streams, list(map(str, args)), environ_of(cwd), cwd))
    process.start()
    for descriptor in streams.descriptors:
        os.close(descriptor)
    with open(reading, encoding="utf-8") as said:
        try:
            yield Forked(process, said)
        finally:
            process.kill()
            process.join()
            process.close()
