"""Section openai: a file for OpenAI's Batch API against a judge that speaks as OpenAI does.

Rules
- What is measured is what a person does: the lines of a file, `apiflux plan` for them, `apiflux serve` and
  `apiflux process`, each in a process of its own.
- The limits are those of an account of OpenAI's, 500 calls and 200,000 tokens a minute for each of five keys, in
  windows of 6 seconds, so 50 and 20,000 in each: the same rate, and 20,000 calls meet eighty windows instead of eight.
- The lines have long questions and short answers, as if they sorted texts into classes: what a call declares, which is
  all that `plan` knows, is near what the judge's answer says that it took. 400 tokens are what a call may take if both
  limits bind alike, and these take about as many. Now the calls of a window bind, now its tokens.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.judge.report import Report
from apiflux_grpc.testing.served import ServedProcess, secrets_for
from bench.figures import Figure

CALLS: Final = 20_000
WINDOW: Final = 6 * SECOND
RUNS: Final = 1  # of nine minutes
KEYS: Final = {f"key-{number}": f"bench-secret-{number}" for number in range(1, 6)}
LATENCY: Final = (200, 600)  # ms
FILE, CONFIG = "batch.jsonl", "apiflux.toml"
COMMAND: Final = (sys.executable, "-m", "apiflux_grpc")


class Rehearsal(NamedTuple):
    """What came of one: how many seconds it took, what the judge saw, and the results."""

    took: float
    report: Report
    results: list[dict[str, Any]]


async def figures() -> list[Figure]:
    ratios, refused, worst = [], [], []
    for seed in range(RUNS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = rehearse(folder, CALLS, limits(), seed)
            planned = plan(folder)
        if {result["custom_id"] for result in made.results} != {line["custom_id"] for line in lines(CALLS, seed)}:
            raise RuntimeError("results are missing")
        ratios.append(made.took / planned)
        refused.append(made.report.rejected)
        worst.append(made.report.worst)
    case = f"{CALLS:,} lines, {len(KEYS)} keys"
    return [
        Figure("makespan / what plan said", ratios, target=1.03, case=case),
        Figure("429s", refused, target=0, case=case, must=True),
        Figure("worst window of calls or tokens / limit", worst, target=1.0, case=case, must=True),
    ]


def limits(calls: int = 50, tokens: int = 20_000, per: int = WINDOW) -> tuple[Limit, Limit]:
    """Of each key."""
    return Limit(calls, per), Limit(tokens, per, "cost")


def rehearse(folder: Path, calls: int, limits: Sequence[Limit], seed: int) -> Rehearsal:
    """Run a file of so many calls. Leaves file and configuration in the folder."""
    file, output = folder / FILE, folder / "results.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in lines(calls, seed)))
    low, high = LATENCY
    latency = (low * MILLISECOND, high * MILLISECOND)
    with JudgeProcess(JudgeOptions(KEYS, tuple(limits), speak="openai", latency_ns=latency, seed=seed)) as judge:
        config = config_of(judge.url, limits)
        (folder / CONFIG).write_text(config)
        with ServedProcess(config, secrets_for(KEYS)) as served:
            said = _run("process", file, "--target", served.target, "--output", output).stderr
        report = judge.report()
    took = re.search(r"results +[0-9,]+ in ([0-9.]+) s", said)
    assert took is not None, said
    return Rehearsal(float(took[1]), report, [json.loads(line) for line in output.read_text().splitlines()])


def plan(folder: Path) -> float:
    """Seconds that the file of a rehearsal takes, by `apiflux plan`."""
    low, high = LATENCY
    options = ("--config", folder / CONFIG, "--calls-from", folder / FILE, "--latency", f"{low}ms..{high}ms", "--json")
    makespan: float = json.loads(_run("plan", *options, **secrets_for(KEYS)).stdout)["makespan_seconds"]
    return makespan


def lines(count: int, seed: int) -> list[dict[str, Any]]:
    """Chats, no two alike, with a question of 90 to 600 tokens and an answer of 10 to 50 at most."""
    chance = random.Random(seed)
    return [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": f"{number}. {'words ' * chance.randint(60, 400)}"}],
                "max_completion_tokens": chance.randint(10, 50),
            },
        }
        for number in range(count)
    ]


def config_of(url: str, limits: Sequence[Limit]) -> str:
    """A pool as the preset has it, but in front of the judge."""
    rows = ", ".join(
        f'{{ max = {limit.max}, per = "{limit.per_ns // MILLISECOND}ms", counts = "{limit.counts}" }}'
        for limit in limits
    )
    keys = "".join(
        f'\n[[pools.default.keys]]\nlabel = "{label}"\nsecret_env = "STRESS_SECRET_{place}"\n'
        for place, label in enumerate(KEYS)
    )
    return f'[pools.default]\npreset = "openai"\nbase_url = "{url}"\nlimits = [{rows}]\n{keys}'


def _run(*words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command and what it said. Raises RuntimeError if it failed."""
    command = [*COMMAND, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environ, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr}")
    return done
