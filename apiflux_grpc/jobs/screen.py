"""How a job is shown while it runs: by a bar on a terminal, and otherwise by a line every 30 s.

Rules:
- A bar is only for a terminal that can move its cursor, and that results don't go to; and it is taken away at the end,
  however that comes.
- Otherwise (nohup, a container's log) there is a line when something goes on for long, so that a log tells what a job
  waits for and doesn't grow by much.
- Showing takes place on the event loop, by one timer. A job that is over soon shows nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from apiflux_grpc.jobs.progress import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from apiflux_grpc.jobs.bar import Bar
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.progress import Progress, Shown

LINE_EVERY: Final = 30.0  # seconds
BAR_EVERY: Final = 0.2
BAR_OF_READING: Final = 0.5  # after so long; most files are read before
LINE_OF_READING: Final = 2.0


class Screen:
    """Shows what is going on, as far as `console` lets it. `clock` counts seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._console = console

    def shows(self, progress: Progress) -> AbstractContextManager[None]:
        """How the calls of the job stand, for as long as the block lasts, on the running loop."""
        return self._shows(progress, 0.0 if self._console.has_bar else LINE_EVERY)

    def reads(self, what: str, share: Callable[[], float] | None = None) -> AbstractContextManager[None]:
        """The same for the reading of a file; `share` says how much of it was read, 0 to 1."""
        return self._shows(Reading(what, share), BAR_OF_READING if self._console.has_bar else LINE_OF_READING)

    @contextlib.contextmanager
    def _shows(self, what: Shown, after: float) -> Iterator[None]:
        showing = _Showing(self._console, self.clock, what)
        showing.begin(after)
        try:
            yield
        finally:
            showing.end()


class _Showing:
    def __init__(self, console: Console, clock: Callable[[], float], what: Shown) -> None:
        self._console = console
        self._clock = clock
        self._what = what
        self._bar: Bar | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, after: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after, self._show)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._bar is not None:
            self._bar.close()

    def _show(self) -> None:
        now, what = self._clock(), self._what
        figures, why = what.figures(now), what.why(now)
        if self._console.has_bar:
            if self._bar is None:
                self._bar = self._console.bar()
            self._bar.show(what.share, figures, why)
            self.begin(BAR_EVERY)
        else:
            self._console.say("; ".join((figures, *why)))
            self.begin(LINE_EVERY)
