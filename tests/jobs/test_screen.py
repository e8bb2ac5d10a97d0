"""How a job is shown while it runs: a bar, or a line every 30 s, by a clock that the test moves on."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from apiflux_grpc.jobs.console import Console
from apiflux_grpc.jobs.progress import Progress
from apiflux_grpc.jobs.screen import BAR_EVERY, BAR_OF_READING, LINE_EVERY, LINE_OF_READING, Screen
from tests.clock import Clock
from tests.terminal import Terminal, words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Pass = Callable[[float], Awaitable[None]]


def shown() -> tuple[Screen, Pass]:
    """A screen on the running loop, and what lets seconds pass."""
    clock = Clock(asyncio.get_running_loop())

    async def passes(seconds: float) -> None:
        clock.advance(round(seconds * 1e9))
        await asyncio.sleep(0)  # the timers that are due are set for now
        await asyncio.sleep(0)

    return Screen(Console(), lambda: clock() / 1e9), passes


async def test_without_a_terminal_there_is_a_line_every_30_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """None before, and none after the end."""
    screen, passes = shown()
    progress = Progress(20, screen.clock())
    with screen.shows(progress):
        await passes(LINE_EVERY - 1)
        assert capsys.readouterr().err == ""
        progress.heard(5, None, screen.clock())
        await passes(1.5)
        assert capsys.readouterr().err == "5 of 20\n"
        await passes(LINE_EVERY)
        assert capsys.readouterr().err == "5 of 20\n"
    await passes(10 * LINE_EVERY)
    assert capsys.readouterr().err == ""


async def test_the_reading_of_a_large_file_is_told_soon(capsys: pytest.CaptureFixture[str]) -> None:
    """A small one is read before anything is said."""
    screen, passes = shown()
    with screen.reads("checking calls", lambda: 0.5):
        await passes(LINE_OF_READING - 0.5)
        assert capsys.readouterr().err == ""
        await passes(0.6)
        assert capsys.readouterr().err == "checking calls ... 50%\n"
        await passes(LINE_EVERY + 0.1)
        assert capsys.readouterr().err == "checking calls ... 50%\n"


async def test_a_terminal_has_a_bar_that_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the showing, an exception too."""
    monkeypatch.setenv("TERM", "xterm")
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    screen, passes = shown()
    with screen.reads("checking calls"):
        await passes(BAR_OF_READING - 0.2)
        assert stderr.getvalue() == ""
        await passes(0.3)
        assert words(stderr.getvalue())[-1] == "checking calls ..."
    with pytest.raises(OSError, match="full"), screen.shows(Progress(20, screen.clock())):  # noqa: PT012
        await passes(0.01)
        assert words(stderr.getvalue())[-1].endswith("0 of 20")
        await passes(BAR_EVERY + 0.01)
        raise OSError("full")
    assert stderr.getvalue().count("\x1b[?25l") == stderr.getvalue().count("\x1b[?25h") == 2
