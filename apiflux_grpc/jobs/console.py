"""What `apiflux process` tells people, on standard error: lines, a table, and on a terminal colours and a bar.

Rule: rich is loaded for a terminal alone; a script that starts the command doesn't pay for it. If standard error can't
be written to, nobody can be told, and the job goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rich.console

    from apiflux_grpc.jobs.bar import Bar


class Console:
    """Standard error as it is now. `shared`: results may come up on the same terminal."""

    def __init__(self, *, shared: bool = False) -> None:
        self._rich: rich.console.Console | None = None
        self._has_bar = False
        if sys.stderr is not None and (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
            from rich.console import Console as RichConsole

            self._rich = RichConsole(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
            # FORCE_COLOR asks for colours in a pipe; nothing can be drawn over there.
            self._has_bar = sys.stderr.isatty() and not self._rich.is_dumb_terminal and not shared

    def say(self, text: str) -> None:
        """A line of information."""
        self._print(text, "")

    def error(self, text: str) -> None:
        """A line about something that is wrong."""
        self._print(text, "red")

    def table(self, rows: Sequence[tuple[str, str]], *, red: str = "") -> None:
        """Names and values, one below the other; `red` names the row that is about something wrong."""
        if self._rich is None:
            width = max(len(name) for name, _ in rows)
            for name, value in rows:
                self.say(f"{name:<{width}} {value}")
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(name, Text(value, style="red" if name == red else ""))
        with contextlib.suppress(OSError):
            self._rich.print(table)

    @property
    def has_bar(self) -> bool:
        """Whether a bar can be shown: on a terminal that can move its cursor, and that is free of results."""
        return self._has_bar

    def bar(self) -> Bar:
        """A bar below what was said so far, until it is closed. Only if `has_bar`."""
        from apiflux_grpc.jobs.bar import Bar

        assert self._rich is not None
        return Bar(self._rich)

    def _print(self, text: str, style: str) -> None:
        with contextlib.suppress(OSError):
            if self._rich is not None:
                self._rich.print(text, style=style)
            elif sys.stderr is not None:
                print(text, file=sys.stderr, flush=True)
