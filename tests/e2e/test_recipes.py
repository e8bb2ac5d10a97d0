"""The recipes for well-known APIs: what a page has runs as it stands, against the judge that speaks the API."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.settings import load
from apiflux_grpc.testing.served import ServedProcess
from tests.docs.pages import blocks
from tests.e2e.commands import run
from tests.e2e.pairs import CANARY, ask_of

APIS = ("openai", "anthropic", "github", "google-maps")


def first(page: str, language: str) -> str:
    """The first block of code of a page in a language."""
    return next(block.text for block in blocks(language) if block.page == page)


@pytest.mark.parametrize("api", APIS)
def test_a_recipe_gives_results(tmp_path: Path, api: str) -> None:
    """Its configuration and its file, with the judge as the API: each call succeeds, and no limit is exceeded."""
    text = first(f"recipes/{api}.md", "toml")
    (pool,) = tomllib.loads(text)["pools"].values()
    secrets = {key["secret_env"]: f"{CANARY}-{place}" for place, key in enumerate(pool["keys"])}
    file = tmp_path / "apiflux.toml"
    file.write_text(text)
    (settings,) = load(file, environ=secrets).pools
    # Of calls below a path the judge knows no limits of their own.
    limits = tuple(
        Limit(limit.max, limit.per, limit.counts.value) for limit in settings.pool.keys[0].limits if not limit.paths
    )
    calls = tmp_path / "calls.jsonl"
    calls.write_text(first(f"recipes/{api}.md", "jsonl"))
    with JudgeProcess(JudgeOptions(secrets, limits, speak=api)) as judge:
        served = text.replace(f'preset = "{api}"\n', f'preset = "{api}"\nbase_url = "{judge.url}"\n', 1)
        assert served != text
        with ServedProcess(served, secrets) as server:
            done = run("process", calls, "--target", server.target, cwd=tmp_path)
            assert CANARY not in server.stderr + done.stderr + done.stdout
        assert done.returncode == 0, done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        lines = calls.read_text().splitlines()
        assert len(results) == len(lines)
        assert ask_of(judge).accepted == len(lines)
