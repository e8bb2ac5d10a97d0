"""The programs of examples/python, as somebody would run them, and what README shows."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.test_channel import secured
from tests.server.serving import serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "python"


def test_every_example_is_tested() -> None:
    """A new one needs a line below."""
    assert {file.name for file in EXAMPLES.glob("*.py")} == {"batch.py", "stream.py", "blocking.py"}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("batch.py", [], "20 of 20 succeeded"),
        ("stream.py", ["3000"], "ok 3000"),
        ("blocking.py", [], "50 of 50 succeeded"),
    ],
)
async def test_an_example_does_what_it_says(name: str, options: list[str], said: str) -> None:
    """Exit code 0, and its last line; with nobody there it fails."""

    def run(target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(EXAMPLES / name), target, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)

    async with serving() as server:
        done = await asyncio.to_thread(run, server.address)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout.splitlines()[-1]
    if name == "stream.py":
        assert "3000 of 3000 done" in done.stderr.splitlines()[-1]
    if name == "batch.py":
        gone = await asyncio.to_thread(run, "127.0.0.1:1")
        assert gone.returncode == 4
        assert "UNAVAILABLE" in gone.stderr


async def test_the_blocking_example_over_tls(tmp_path: Path) -> None:
    """With the token from the environment."""
    async with secured(tmp_path) as (target, tls, service):
        command = [sys.executable, str(EXAMPLES / "blocking.py"), target.replace("127.0.0.1", "localhost")]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, str(tls.ca_file)],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=os.environ | {"APIFLUX_TOKEN": "canary-a81f"},
        )
    assert done.returncode == 3, done.stderr  # that server answers nothing
    assert "0 of 50 succeeded" in done.stdout
    assert {token for _, token in service.seen} == {"Bearer canary-a81f"}


async def test_what_readme_shows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Inside a coroutine, as it says, against a server on the simulator."""
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    async with serving() as server:
        text = shown.replace("127.0.0.1:50051", server.address)
        await eval(compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})
    assert capsys.readouterr().out == "{'ok': True}\n"
