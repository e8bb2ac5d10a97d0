"""The folder of workers without a state_dir: gone with its supervisor, or with the next."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from apiflux_grpc.workers.folder import OWNER, PREFIX, shared_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where such folders are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_there_as_long_as_it_is_used() -> None:
    """And its supervisor's alone."""
    with shared_folder() as folder:
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_one_that_was_left_is_removed_by_the_next_and_no_other(temporary: Path) -> None:
    """Nobody holds its lock. Folders of those that run, that have no lock yet, or that are somebody else's stay."""
    left, unlocked, linked = (temporary / f"{PREFIX}{name}" for name in ("left", "unlocked", "linked"))
    elsewhere = temporary / "elsewhere"
    for folder in (left, unlocked, elsewhere):
        folder.mkdir()
    for folder in (left, elsewhere):
        (folder / OWNER).touch()
        (folder / "budgets.sqlite3").touch()
    linked.symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").touch()
    with shared_folder() as running:
        with shared_folder() as other:
            assert running.is_dir()
            assert other != running
        assert running.is_dir()
        assert not left.exists()
        assert unlocked.is_dir()
        assert (elsewhere / "budgets.sqlite3").exists()
