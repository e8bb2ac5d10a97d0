"""`make bench`: the figures, as a table. Ratios are taken within one run; these machines are noisy.

python -m tests.bench
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import Counter
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.bootstrap import loop_factory
from apiflux_grpc.client import Client
from apiflux_grpc.core.model import SECOND, Batch, Key, Limit, Pool
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.tools.judge import JudgeOptions, JudgeProcess
from apiflux_grpc.tools.ledger import Limit as JudgeLimit
from apiflux_grpc.tools.stress import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.bench.limits import against_the_judge, assign_two_windows, grid
from tests.bench.more import TaskUpstream, engine_alone, million_queued, steady_use, under_load
from tests.bench.nginx import nginx_path, nginx_use
from tests.bench.sender import bare_loop, certificate, idle_memory, sender_alone, storm
from tests.bench.streams import long_stream

CALLS = 20_000
AT_ONCE = 200
KEYS = {"key-1": "bench-secret-1", "key-2": "bench-secret-2"}
WIDE = JudgeLimit(1_000_000, 60 * SECOND)
SIMULATOR = """
[pools.default]
limits = [{ max = 10000000, per = "60s" }]
simulator = { latency = ["0ms", "0ms"] }
[[pools.default.keys]]
label = "a"
secret = "bench-a"
[[pools.default.keys]]
label = "b"
secret = "bench-b"
"""


def assign_cost(keys: int, paced: bool, permits: int = 40_000) -> float:
    """Microseconds of `assign` per permit."""
    limit = Limit(max(1_000, 2 * permits // keys), 60 * SECOND)
    pool = Pool("default", tuple(Key(f"k{n}", "s", (limit,)) for n in range(keys)), max_connections=100)
    scheduler = Scheduler(pool, AiolimiterPacer if paced else None)
    scheduler.add(Batch(1, "caller", permits + 100, admitted_at=0))
    spent, done, now = 0.0, 0, 0
    while done < permits:
        now += 100_000
        start = time.perf_counter()
        out, _ = scheduler.assign(now)
        spent += time.perf_counter() - start
        for permit in out:
            scheduler.sent(permit, now)
        for permit in out:
            scheduler.settle(permit, now + 10_000, now + 5_000)
        done += len(out)
    return spent / permits * 1e6


async def bare_sleep(turns: int = 100_000) -> float:
    """Microseconds of CPU of one turn of a bare `await sleep(0)` loop."""
    start = time.process_time()
    for _ in range(turns):
        await asyncio.sleep(0)
    return (time.process_time() - start) / turns * 1e6


async def through(target: str, pid: int, requests: list[pb.ProcessRequest]) -> float:
    """Microseconds of the server's CPU per call for these batches at once."""
    process = psutil.Process(pid)

    async def one(client: Client, request: pb.ProcessRequest) -> int:
        count = 0
        async for message in client.send(request).raw():
            count += sum(1 for result in message.results if result.response.status_code == 200)
        return count

    async with Client(target) as client:
        before = process.cpu_times()
        done = sum(await asyncio.gather(*(one(client, request) for request in requests)))
        after = process.cpu_times()
    if done != CALLS:
        raise RuntimeError(f"{done} of {CALLS} calls succeeded")
    return (after.user + after.system - before.user - before.system) / CALLS * 1e6


def batches(name: str, streams: int) -> list[pb.ProcessRequest]:
    each = CALLS // streams
    return [
        pb.ProcessRequest(calls=[pb.Call(path=f"/{name}/{stream}/{number}") for number in range(each)])
        for stream in range(streams)
    ]


async def against_a_bare_loop(rows: list[tuple[str, str, str]], tls: bool) -> bool:
    """The server's CPU per call against a bare aiohttp loop's, run by run; False: the judge found a violation."""
    with certificate() as (cert, cert_key):
        files = (cert, cert_key) if tls else (None, None)
        with JudgeProcess(JudgeOptions(KEYS, (WIDE,), tls_cert=files[0], tls_key=files[1])) as judge:
            extra = f"max_connections = {AT_ONCE}" + (f'\nca_file = "{cert}"' if tls else "")
            config = config_for(judge.url, (WIDE,), list(KEYS), extra)
            with ServedProcess(config, secrets_for(KEYS)) as served:
                bare, single, many = [], [], []
                for run in range(3):
                    seconds = await bare_loop(judge.url, CALLS, AT_ONCE, cert if tls else None, f"bare-{run}")
                    bare.append(seconds / CALLS * 1e6)
                    single.append(await through(served.target, served.pid, batches(f"one-{run}", 1)))
                    many.append(await through(served.target, served.pid, batches(f"many-{run}", 100)))
            report = judge.report()
    kind = "TLS" if tls else "plain"
    rows.append((f"bare aiohttp loop, {kind}, CPU per call, us", "-", _row(bare)))
    target = "0.45" if tls else "0.36"
    rows.append((f"server CPU per call / bare loop, {kind}, one batch", target, _ratios(single, bare)))
    rows.append((f"the same, {kind}, 100 streams", "-" if tls else "0.55", _ratios(many, bare)))
    rows.append(("worst window at the judge / limit", "1.000", f"{report.worst:.3f}"))
    return report.ok and not report.rejected


def _counts(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.most_common())


async def main() -> int:
    rows: list[tuple[str, str, str]] = []
    gc.disable()
    for paced, target in ((False, "3"), (True, "5")):
        costs = [min(assign_cost(keys, paced) for _ in range(3)) for keys in (10, 1_000, 10_000)]
        kind = "with a pacer" if paced else "windows only"
        rows.append((f"assign per permit at 10, 1,000, 10,000 keys, {kind}, us", target, _row(costs)))
    gc.enable()
    with ServedProcess(SIMULATOR, {}) as served:
        repeat = [pb.ProcessRequest(repeat=pb.RepeatedCall(count=CALLS))]
        costs = [await through(served.target, served.pid, repeat) for _ in range(4)][1:]
        rows.append(("service without network, CPU per call, us", "15", _row(costs)))
        turn = await bare_sleep()
        rows.append(("the same / a turn of a bare `await sleep(0)` loop", "-", _row([cost / turn for cost in costs])))
    for name, make in (("a callback", SimulatedUpstream), ("a task", TaskUpstream)):
        costs = [await engine_alone(make) for _ in range(3)]
        rows.append((f"engine alone, {name} per call, CPU per call, us", "-", _row(costs)))
    ok = await against_a_bare_loop(rows, tls=False)
    ok = await against_a_bare_loop(rows, tls=True) and ok
    for tls in (False, True):
        kind = "TLS" if tls else "plain"
        ratios = [await sender_alone(tls) for _ in range(3)]
        rows.append((f"sender alone, {kind}, 50 at once, CPU / aiohttp", "0.2", _ratios(ratios, [1, 1, 1])))
        kilobytes = await idle_memory(tls)
        rows.append((f"an idle connection, {kind}, KB of RSS", "70" if tls else "10", f"{kilobytes:.1f}"))
    arrivals, twice, left, outcomes = await storm()
    rows.append(("storm of 50,000: arrivals - (calls - NotSent)", "0", f"{arrivals} ({_counts(outcomes)})"))
    rows.append(("the same, seen twice; connections left", "0; 0", f"{twice}; {left}"))
    ok = ok and not (arrivals or twice or left)
    health, first, burst, worst = await under_load()
    rows.append(("health check p99 with 500 calls in flight, ms", "50", f"{health:.0f}"))
    rows.append(("first result p99, the same, ms", "150", f"{first:.0f}"))
    rows.append(("first result p99 of 100 batches in one instant, ms", "-", f"{burst:.0f}"))
    ok = ok and worst <= 1
    worst_ratio, where = grid()
    rows.append(("makespan / optimum over a grid, the worst", "1.01", f"{worst_ratio:.4f} ({where})"))
    costs = [assign_two_windows(keys, 1) for keys in (10, 1_000, 10_000)]
    rows.append(("assign with two windows and pacers, 10, 1,000, 10,000 keys, us", "8", _row(costs)))
    costs = [assign_two_windows(1_000, batches) for batches in (1, 100, 10_000)]
    rows.append(("the same at 1,000 keys with 1, 100, 10,000 batches, us", "8", _row(costs)))
    large, small, worst, rejected = await against_the_judge()
    rows.append(
        ("1,500 calls over 5 keys of 100 per 10 s, makespan / 20.15 s; rejected", "1.01; 0", f"{large:.3f}; {rejected}")
    )
    rows.append(("10 calls behind them / the 9.5 s until capacity frees", "1.05", f"{small:.3f}"))
    ok = ok and worst <= 1 and not rejected
    ratio, server, own = await long_stream(SIMULATOR)
    rows.append(("one stream of 1,000,000 calls, throughput / batches of 20,000", "0.7", f"{ratio:.2f}"))
    rows.append(("the same, MB that the server grew; its client", "150; 150", f"{server:.0f}; {own:.0f}"))
    memory, pause = await million_queued()
    rows.append(("1,000,000 queued calls, MB of RSS", "400", f"{memory:.0f}"))
    rows.append(("the same, longest pause of the collector, ms", "50", f"{pause:.0f}"))
    if nginx_path() is not None:
        for name, share, refused in await nginx_use():
            target = "0.95" if name.startswith("50") else "-"
            rows.append((f"use of nginx's limit_req at {name}; 429s drawn", f"{target}; 0", f"{share:.4f}; {refused}"))
    share, worst = await steady_use()
    rows.append(("steady use of N / (T + latency)", "0.99", f"{share:.4f}"))
    rows.append(("worst window while it binds / limit", "1.000", f"{worst:.3f}"))
    ok = ok and worst <= 1
    table = Table(title=f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for name in ("figure", "target", "measured (each run, or min / median / max)"):
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return 0 if ok else 3


def _row(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def _ratios(values: list[float], bare: list[float]) -> str:
    ratios = sorted(value / base for value, base in zip(values, bare, strict=True))
    return f"{ratios[0]:.2f} / {median(ratios):.2f} / {ratios[-1]:.2f}"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        sys.exit(runner.run(main()))
