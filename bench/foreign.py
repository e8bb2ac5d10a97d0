"""Limiters that nobody here wrote as upstreams: slowapi's moving window and express-rate-limit, with their headers.

Rule: they are installed from their registries, with exact versions, into environments of their own, and used as their
documentation shows. One that can't be installed is left out, and said so. They keep no ledger, so what they refused is
what was sent more than once.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from bench.environments import CannotInstall, environment, node_environment
from bench.figures import ROOT, Figure

PYTHON_PACKAGES: Final = ("slowapi==0.1.10", "fastapi==0.165.0", "uvicorn==0.54.0")
NODE_PACKAGES: Final = ("express@5.3.0", "express-rate-limit@8.7.5")
LIMIT: Final = Limit(50, 5 * SECOND)
KEYS: Final = {f"key-{number}": f"bench-secret-{number}" for number in range(1, 4)}
CALLS, IDEAL = 600, 15.0
RUNS: Final = 2
DEADLINE: Final = 60.0  # seconds


def commands() -> Iterator[tuple[str, list[str]]]:
    """(name, how it is started) of each upstream that can be installed."""
    arguments = [str(LIMIT.max), str(LIMIT.per_ns // SECOND)]
    try:
        python = environment("slowapi", PYTHON_PACKAGES)
        yield "slowapi, moving window", [str(python), "-m", "bench.peers.slowapi_upstream", *arguments]
    except CannotInstall as error:
        print(f"left out: slowapi: {error}", file=sys.stderr)
    try:
        program = node_environment("express", NODE_PACKAGES, ROOT / "bench" / "peers" / "express_upstream.mjs")
        yield "express-rate-limit", ["node", str(program), *arguments]
    except CannotInstall as error:
        print(f"left out: express-rate-limit: {error}", file=sys.stderr)


@contextmanager
def upstream(command: list[str]) -> Iterator[str]:
    """The URL of an upstream, for as long as the `with` block lasts."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout is not None
    with process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


async def figures() -> list[Figure]:
    """600 calls over three keys of 50 per 5 s: makespan over the ideal, lost calls, and sends too many."""
    runs = [(name, command) for name, command in commands()]
    rounds = [
        await asyncio.gather(*(batch(command, place) for place, (_, command) in enumerate(runs))) for _ in range(RUNS)
    ]
    found = []
    for (name, _), samples in zip(runs, zip(*rounds, strict=True), strict=True):
        spans, lost, again = zip(*samples, strict=True)
        found += [
            Figure("batch / ideal", spans, target=1.03, case=name),
            Figure("lost calls of 600", lost, target=0, case=name, must=True),
            Figure("calls sent again", again, case=name),
        ]
    return found


async def batch(command: list[str], place: int) -> tuple[float, int, int]:
    """(makespan / ideal, lost calls, sends too many); begins a part of a window later than the one before."""
    await asyncio.sleep(place * LIMIT.per_ns / SECOND / 2)
    with upstream(command) as url, ServedProcess(config_for(url, (LIMIT,), list(KEYS)), secrets_for(KEYS)) as served:
        async with Client(served.target) as client:
            start = time.perf_counter()
            calls = [Call(f"/{number}") for number in range(CALLS)]
            results = [result async for result in client.process(calls, timeout=DEADLINE)]
            seconds = time.perf_counter() - start
    lost = sum(not result.ok for result in results)
    return seconds / IDEAL, lost, sum(result.attempts for result in results) - CALLS
