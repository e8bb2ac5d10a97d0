"""The standard streams of a command: what happens if they are closed, full, or nobody reads them.

Rule: standard output that can't be written to ends the command with one line on standard error and exit code 1; a
reader that left is told nothing, and the exit code is CUT_SHORT.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from apiflux_grpc.cli.signals import CUT_SHORT

if TYPE_CHECKING:
    from collections.abc import Callable


class Unwritable(Exception):
    """Standard output can't be written to. Not an OSError: others would take that for one of theirs."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)
        self.has_no_reader = isinstance(cause, BrokenPipeError)


class _Stdout(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise Unwritable(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise Unwritable(error) from None


def say(text: str) -> None:
    """A line on standard error; if the log alone is there, one of the log."""
    if (log := getattr(sys.stderr, "say", None)) is not None:  # of adapters/foreign_lines.py
        log(text)
    elif sys.stderr is not None:  # None: closed, and print would take standard output for it
        print(text, file=sys.stderr)


def with_streams(command: Callable[[], object]) -> int:
    """Run a command that ends with SystemExit, and return its exit code."""
    _prepare()
    try:
        try:
            command()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Unwritable as failed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left in the buffer
        if failed.has_no_reader:
            return CUT_SHORT
        say(f"can't write to standard output: {failed}")
        return 1
    return 0


def _prepare() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get its number, and what is written to it
            os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY)
    if isinstance(sys.stdout, io.TextIOWrapper):
        out = sys.stdout
        encoding, errors, lines = out.encoding, out.errors, out.line_buffering
        sys.stdout = _Stdout(out.detach(), encoding, errors, line_buffering=lines)
