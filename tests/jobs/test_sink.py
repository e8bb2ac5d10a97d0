"""Where results go, and who may see them there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc.jobs import sink
from apiflux_grpc.jobs.job import Job


@pytest.mark.parametrize("kind", ["terminal", "pipe", "file", "closed"])
def test_results_are_in_sight_on_a_terminal_and_behind_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Who reads the pipe may print them, as `head` does, and a bar would be drawn into that. In a file they aren't."""
    reader, writer = os.openpty() if kind == "terminal" else os.pipe()
    if kind == "file":
        os.dup2(os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY), writer)
    if kind == "closed":
        os.close(writer)

    class Os:
        """Standard output is what the test opened: pytest needs its own."""

        def isatty(self, number: int) -> bool:
            return os.isatty(writer)

        def fstat(self, number: int) -> os.stat_result:
            return os.fstat(writer)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    monkeypatch.setattr(sink, "os", Os())
    assert sink.is_in_sight(Job(None, "a:1")) == (kind in ("terminal", "pipe"))
    assert not sink.is_in_sight(Job(None, "a:1", output=tmp_path / "out"))
    os.close(reader)
    if kind != "closed":
        os.close(writer)
