"""What people are told on standard error: the same words with and without a terminal."""

from __future__ import annotations

import errno
import io
import re
import sys

import pytest

from apiflux_grpc.jobs.console import Console


def tell(console: Console) -> None:
    console.say("said [b]")
    console.error("f:100: wrong [b]")
    console.table([("results", "2 in 1.0 s"), ("failed", "1: [x] :100:")], red="failed")
    with console.progress(2) as show:
        show(1, "429 with [b] :100:")


def test_a_terminal_gets_colours_and_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And otherwise what a file gets, which has no escape sequences; text that looks like markup or an emoji stays."""
    tell(Console())
    plain = capsys.readouterr().err
    assert plain.splitlines() == ["said [b]", "f:100: wrong [b]", "results 2 in 1.0 s", "failed  1: [x] :100:"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    tell(Console())
    coloured = capsys.readouterr().err
    assert "\x1b[31mf:100: wrong [b]" in coloured
    assert "1/2" in coloured  # the bar
    assert "429 with [b] :100:" in coloured
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", coloured)
    assert [" ".join(line.split()) for line in words.splitlines()[:4]] == [
        "said [b]",
        "f:100: wrong [b]",
        "results 2 in 1.0 s",
        "failed 1: [x] :100:",
    ]


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
