"""A bar on a terminal, and lines below it for what is waited for.

Rule: a line that wraps couldn't be taken away again. So none is as wide as the terminal, which writes `^C` behind the
last of them. It is drawn when it is told to, by no thread of its own.
"""

from __future__ import annotations

import contextlib
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

LEAST: Final = 10  # columns of a bar that is worth showing
FREE: Final = 5  # columns, for two `^C`
LINES: Final = 4  # below the bar, at most


class Bar:
    """A bar at the end of what was printed, until it is closed. What can't be drawn is left out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        with contextlib.suppress(OSError):
            self._live.start()

    def show(self, share: float | None, figures: str, why: Sequence[str]) -> None:
        """`share` 0 to 1, or None if it isn't known: then there are only the words. Each of `why` begins a line."""
        with contextlib.suppress(OSError):
            self._live.update(self._drawn(share, figures, why), refresh=True)

    def close(self) -> None:
        """Take it away."""
        with contextlib.suppress(OSError):
            self._live.stop()

    def _drawn(self, share: float | None, figures: str, why: Sequence[str]) -> RenderableType:
        width = max(1, self._console.width - FREE)
        line: RenderableType = Text(figures[:width])
        if share is not None and (room := width - len(figures) - 1) >= LEAST:
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_row(ProgressBar(total=1.0, completed=share, width=room), figures)
            line = grid
        reasons = [part for reason in why for part in wrap(reason, width)]
        return Group(line, *(Text(reason, "yellow") for reason in reasons[:LINES]))
