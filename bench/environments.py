"""Environments of what only the bench needs, in build/bench-venv: Python's virtual ones, folders of Node's packages.

Rule: nothing of it is among our own dependencies, and each gets one of its own, with exact versions.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.figures import ROOT

VENVS: Final = ROOT / "build" / "bench-venv"


class CannotInstall(Exception):
    """Says what pip or npm said."""


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """The interpreter of an environment with these packages, made where it isn't there. Raises CannotInstall."""
    folder = VENVS / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(packages)
    if not done.is_file() or done.read_text() != wanted:
        print(f"installing {', '.join(packages)} into {folder.relative_to(ROOT)}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        done.write_text(wanted)
    return python


def node_environment(name: str, packages: tuple[str, ...], program: Path) -> Path:
    """A copy of this program in a folder that has these packages, made where it isn't there. Raises CannotInstall."""
    folder = VENVS / name
    done = folder / "installed.txt"
    wanted = "\n".join(packages)
    if not (shutil.which("node") and shutil.which("npm")):
        raise CannotInstall("node and npm aren't installed")
    if not done.is_file() or done.read_text() != wanted:
        print(f"installing {', '.join(packages)} into {folder.relative_to(ROOT)}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages])
        done.write_text(wanted)
    return Path(shutil.copy(program, folder))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotInstall(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
