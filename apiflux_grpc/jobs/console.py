"""What `apiflux process` tells people, on standard error: lines, a table, and on a terminal colours and a progress bar.

Rule: rich is loaded for a terminal alone; a script that starts the command doesn't pay for it. If standard error can't
be written to, nobody can be told, and the job goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import rich.console


class Console:
    """Standard error as it is now."""

    def __init__(self) -> None:
        self._rich: rich.console.Console | None = None
        if sys.stderr is not None and (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
            from rich.console import Console as RichConsole

            self._rich = RichConsole(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)

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
        self._rich.print(table)

    @contextlib.contextmanager
    def progress(self, total: int | None) -> Iterator[Callable[[int, str], None]]:
        """A function that is told how many calls are done, and why others wait ("": for their limits); on a terminal it
        shows a bar. `total` None: not known."""
        if self._rich is None or not self._rich.is_terminal:
            yield lambda completed, why: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed
        from rich.progress import TimeRemainingColumn as Remaining
        from rich.text import Text

        class Bar(Progress):
            """With a line below it while calls wait, for the reason may be long."""

            why = ""

            def get_renderables(self) -> Iterator[rich.console.RenderableType]:
                yield from super().get_renderables()
                if self.why:
                    yield Text(self.why, "yellow", no_wrap=True, overflow="ellipsis")

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed(), Remaining())
        with Bar(*columns, console=self._rich, transient=True) as bar:
            task = bar.add_task("calls", total=total)

            def show(completed: int, why: str) -> None:
                bar.why = why
                bar.update(task, completed=completed)

            yield show

    def _print(self, text: str, style: str) -> None:
        if self._rich is not None:
            self._rich.print(text, style=style)
        elif sys.stderr is not None:
            with contextlib.suppress(OSError):
                print(text, file=sys.stderr, flush=True)
