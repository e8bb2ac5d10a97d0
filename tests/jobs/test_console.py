"""What people are told on standard error: the same words with and without a terminal."""

from __future__ import annotations

import errno
import io
import re
import sys

import pytest

from apiflux_grpc.jobs.bar import LINES
from apiflux_grpc.jobs.console import Console
from tests.terminal import Terminal, left_on, words


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same wherever the tests run."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")


def terminal(monkeypatch: pytest.MonkeyPatch, **env: str) -> Terminal:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    return stderr


def tell(console: Console) -> None:
    console.say("said [b]")
    console.error("f:100: wrong [b]")
    console.table([("results", "2 in 1.0 s"), ("failed", "1: [x] :100:")], red="failed")
    if console.has_bar:
        bar = console.bar()
        bar.show(0.5, "1 of 2", ["429 with [b] :100:"])
        bar.close()


TOLD = ["said [b]", "f:100: wrong [b]", "results 2 in 1.0 s", "failed 1: [x] :100:"]


def test_a_terminal_gets_colours_and_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And otherwise what a file gets, which has no escape sequences; text that looks like markup or an emoji stays."""
    tell(Console())
    plain = capsys.readouterr().err
    assert plain.splitlines() == ["said [b]", "f:100: wrong [b]", "results 2 in 1.0 s", "failed  1: [x] :100:"]
    stderr = terminal(monkeypatch)
    tell(Console())
    coloured = stderr.getvalue()
    assert "\x1b[31mf:100: wrong [b]" in coloured
    assert words(coloured)[:4] == TOLD
    assert words(coloured)[4].endswith("1 of 2")
    assert words(coloured)[5] == "429 with [b] :100:"


def test_forced_colours_make_no_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR, which build services set, asks for colours in a file; nothing is drawn over there."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console()
    tell(console)
    assert "\x1b[31mf:100: wrong [b]" in capsys.readouterr().err
    assert not console.has_bar


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    """No bar and no escape sequences."""
    stderr = terminal(monkeypatch, TERM=term)
    tell(Console())
    assert "\x1b" not in stderr.getvalue()
    assert words(stderr.getvalue()) == TOLD


def test_no_color_takes_the_colours_and_leaves_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """As no-color.org has it."""
    stderr = terminal(monkeypatch, NO_COLOR="1")
    console = Console()
    tell(console)
    assert not re.search(r"\x1b\[(3[0-9]|38;[0-9;]*)m", stderr.getvalue())
    assert console.has_bar


def test_there_is_no_bar_where_results_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be drawn over them."""
    terminal(monkeypatch)
    assert not Console(shared=True).has_bar


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
@pytest.mark.parametrize("share", [None, 0.0, 0.37, 1.0])
def test_a_bar_is_no_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, share: float | None
) -> None:
    """Else its lines would wrap, also with the ^C that a terminal writes behind them, and couldn't be taken away."""
    stderr = terminal(monkeypatch, COLUMNS=str(columns))
    bar = Console().bar()
    bar.show(share, "100,000 of 300,000, 83/s, 1:02:51 left", ["waiting for " + "x" * 300] * 9)
    bar.close()
    assert max(map(len, words(stderr.getvalue()))) <= columns - len("^C^C")
    assert len(words(stderr.getvalue())) == 2 * (1 + LINES)  # drawn once more before it is taken away


def test_a_long_reason_goes_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is tried again stands at its end."""
    stderr = terminal(monkeypatch, COLUMNS="40")
    bar = Console().bar()
    bar.show(0.5, "1 of 2", ["upstream failing: can't connect: connection refused; next try in 8 s", "another"])
    assert words(stderr.getvalue())[-3:] == [
        "upstream failing: can't connect:",
        "connection refused; next try in 8 s",
        "another",
    ]
    bar.close()


def test_a_closed_bar_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are taken away, and the cursor is shown again."""
    stderr = terminal(monkeypatch)
    console = Console()
    bar = console.bar()
    bar.show(0.5, "1 of 2", ["a reason", "another"])
    console.say("said meanwhile")
    assert left_on(stderr.getvalue())[0] == "said meanwhile"
    assert left_on(stderr.getvalue())[-1] == "another"
    bar.close()
    assert left_on(stderr.getvalue()) == ["said meanwhile"]
    assert stderr.getvalue().rfind("\x1b[?25h") > stderr.getvalue().rfind("\x1b[?25l")


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stderr", [None, Full()], ids=["closed", "full"])
def test_a_standard_error_that_cannot_be_written_to_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, stderr: Full | None
) -> None:
    """Nobody can be told, and the job goes on."""
    monkeypatch.setattr(sys, "stderr", stderr)
    tell(Console())
