"""The first step of a run: what is answered at once, and what needs the command line.

Rule: `apiflux --version` and `apiflux --help` load nothing that their answer doesn't need. To import typer takes five
times as long as to start Python, and with the first value that it reads it imports pydantic. So the help is written
beforehand, by `python -m docs.generate`, as typer writes it for a terminal of 80 columns or more; for a narrower one
typer writes it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from apiflux_grpc import __version__
from apiflux_grpc.cli.streams import with_streams

WIDTH: Final = 78  # of help.txt


def run() -> int:
    """Run the command line of this process, and return its exit code."""
    width = help_width()
    match sys.argv[1:]:
        case ["--version"]:
            return with_streams(_version)
        case ["--help" | "-h"] if width == WIDTH:
            return with_streams(_help)
    from apiflux_grpc.cli.app import main

    return with_streams(lambda: main(width))


def help_width() -> int:
    """How wide help is: that of the terminal less a margin, from 50 to WIDTH.

    typer would ask for it too, but of `sys.__stdout__`, which with_streams has taken from it. In `--help | less` only
    standard error knows the terminal.
    """
    said = os.environ.get("COLUMNS", "")
    columns = int(said) if said.isdecimal() else 0
    for descriptor in (1, 2):
        if not columns:
            with suppress(OSError):
                columns = os.get_terminal_size(descriptor).columns
    return max(min(columns - 2, WIDTH), 50) if columns else WIDTH


def _version() -> None:
    print(f"apiflux {__version__}")


def _help() -> None:
    with open(os.path.join(os.path.dirname(__file__), "help.txt"), encoding="utf-8") as file:
        print(file.read(), end="")
