"""A bar on a terminal, and a line below it for what is waited for.

Rule: nothing here may be wider than the terminal, or its lines would wrap and couldn't be taken away again. It is drawn
when it is told to, by no thread of its own.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LEAST: Final = 10  # columns of a bar that is worth showing


class Bar:
    """A bar at the end of what was printed, until it is closed. What can't be drawn is left out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        with contextlib.suppress(OSError):
            self._live.start()

    def show(self, share: float | None, figures: str, why: str) -> None:
        """`share` 0 to 1, or None if it isn't known: then there are only the words."""
        with contextlib.suppress(OSError):
            self._live.update(self._drawn(share, figures, why), refresh=True)

    def close(self) -> None:
        """Take it away."""
        with contextlib.suppress(OSError):
            self._live.stop()

    def _drawn(self, share: float | None, figures: str, why: str) -> RenderableType:
        words = Text(figures, no_wrap=True, overflow="ellipsis")
        line: RenderableType = words
        if share is not None and self._console.width - len(figures) - 1 >= LEAST:
            grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
            grid.add_column(ratio=1)
            grid.add_column(no_wrap=True)
            grid.add_row(ProgressBar(total=1.0, completed=share), words)
            line = grid
        return Group(line, Text(why, "yellow", no_wrap=True, overflow="ellipsis")) if why else line
