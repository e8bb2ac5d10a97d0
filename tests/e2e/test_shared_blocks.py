"""Workers whose upstream refuses a key for a while: they find out together when it lets calls pass again."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.judge.faults import parse_rejections
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess
from tests.e2e.pairs import ask_of, gets, keys_of, run, toml
from tests.e2e.test_workers import one_for_each

LIMIT = Limit(600, 60 * 1_000_000_000)


@pytest.mark.slow
async def test_workers_that_are_refused_probe_as_one() -> None:
    """For 8 s each call is refused: each worker draws the one that it has in flight, and then one of them at a time
    sends a probe, 1, 3 and 7 s later at the earliest. Each for itself would draw as many probes again."""
    keys = keys_of(["default"], 1)
    rejections = parse_rejections(["default-1=0s..8s;429"], keys)
    head = '[server]\nworkers = 2\n[budget]\nlease = "500ms"\n'
    with JudgeProcess(JudgeOptions(keys, (LIMIT,), port=0, rejections=rejections)) as judge:
        text = head + toml(judge.url, {"default": "max_in_flight = 1"}, [LIMIT], 1)
        with ServedProcess(text, {}) as served:
            async with one_for_each(served.target) as clients:
                batches = [run(client, gets(f"of-{number}", 20)) for number, client in clients.items()]
                results = [result for batch in await asyncio.gather(*batches) for result in batch.values()]
        assert all(result.ok for result in results)
        refused = sum(result.attempts - 1 for result in results)
        assert 1 <= refused <= 2 + 3
        report = ask_of(judge)
        assert report.arrivals == len(results) + refused
