"""`apiflux serve`: whether it is one process or several, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apiflux_grpc import bootstrap
from apiflux_grpc.workers import supervisor
from apiflux_grpc.workers.supervisor import CantServe
from tests.e2e.commands import run


@pytest.mark.parametrize(
    ("setting", "flag", "workers"),
    [
        ("", [], 0),
        ("workers = 3", [], 3),
        ("", ["--workers", "2"], 2),
        ("workers = 3", ["--workers", "2"], 2),
        ("workers = 3", ["--workers", "1"], 0),
    ],
)
def test_the_flag_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, flag: list[str], workers: int
) -> None:
    """One is a server without a supervisor. Workers log as they are told to before the command."""
    started: list[object] = []

    def alone(settings: Any, **_: object) -> int:
        started.append(0)
        return 0

    def several(settings: Any, *log: object) -> int:
        started.append((settings.workers, *log[:2]))
        return 0

    monkeypatch.setattr(bootstrap, "serve", alone)
    monkeypatch.setattr(supervisor, "supervise", several)
    (tmp_path / "c.toml").write_text(f"[server]\n{setting}\n")
    done = run("--log-format", "json", "--log-level", "error", "serve", "-c", "c.toml", *flag, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert started == [(workers, "error", "json") if workers else 0]


def test_a_supervisor_that_cannot_serve_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with its exit code, and nothing on standard output."""

    def several(*_: object) -> int:
        raise CantServe(2, "the disk is full")

    monkeypatch.setattr(supervisor, "supervise", several)
    done = run("serve", "--workers", "2", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "the disk is full\n")
