"""`apiflux stress`: 100 concurrent requests, what came of them, and the judge's verdict.

Rule: what is shown was measured in this run, and the verdict is the judge's alone. Without a target it starts a
judge as the upstream and a server in front of it, each in a process of its own; with one it sends synthetic load to
that server, and there is no judge to ask.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from apiflux_grpc.client import ApifluxError, Client, Info
from apiflux_grpc.client.types import seconds
from apiflux_grpc.tools.judge import JudgeOptions, JudgeProcess, print_report
from apiflux_grpc.tools.ledger import Limit
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from apiflux_grpc.client import Stream
    from apiflux_grpc.tools.ledger import Report

CHANNELS = 4
_SERVE = (sys.executable, "-m", "apiflux_grpc", "--log-level", "warning", "serve", "--bind", "127.0.0.1:0")
SECRETS = {"key-1": "demo-secret-one", "key-2": "demo-secret-two", "key-3": "demo-secret-three"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One kind of run: how many requests at once, of how many calls, against which limit per key."""

    requests: int
    calls: int
    limit: Limit
    latency_ns: tuple[int, int]


QUICK = Plan(100, 50, Limit(400, 5_000_000_000), (10_000_000, 50_000_000))
FULL = Plan(100, 2_000, Limit(1_000, 60_000_000_000), (500_000_000, 3_000_000_000))


class ServedProcess:
    """`apiflux serve` in a process of its own, for as long as the `with` block lasts.

    Raises RuntimeError, with what it said, where it can't start.
    """

    def __init__(self, config: str, environ: dict[str, str], *, cpu: int | None = None) -> None:
        self._config = config
        self._environ = environ
        self._cpu = cpu
        self.target = ""
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "apiflux.toml"
        config.write_text(self._config, encoding="utf-8")
        self._stderr = (Path(self._folder.name) / "stderr").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [*_SERVE, "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | self._environ,
            cwd=self._folder.name,  # no .env of somebody else's
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self.pid = self._process.pid
        if self._cpu is not None:
            os.sched_setaffinity(self.pid, {self._cpu})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            self._process.wait()
            said = self.stderr
            self.__exit__()
            raise RuntimeError(f"the server didn't start: {said.strip()}")
        self.target = line.split()[-1]
        return self

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return (Path(self._folder.name) / "stderr").read_text(encoding="utf-8")

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        if self.returncode is None:
            self._process.terminate()
            try:
                self.returncode = self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self.returncode = self._process.wait()
        return self.returncode

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self.returncode = self._process.wait()

    def __exit__(self, *_: object) -> None:
        self.terminate()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()
        self._folder.cleanup()


def config_for(judge_url: str, limits: tuple[Limit, ...], labels: list[str], extra: str = "") -> str:
    """The TOML of a pool `default` in front of a judge; secrets come from the variables of `secrets_for`."""
    rows = ", ".join(f'{{ max = {limit.max}, per = "{limit.per_ns // 1_000_000}ms" }}' for limit in limits)
    keys = "".join(
        f'\n[[pools.default.keys]]\nlabel = "{label}"\nsecret_env = "STRESS_SECRET_{place}"\n'
        for place, label in enumerate(labels)
    )
    return f'[pools.default]\nbase_url = "{judge_url}"\nlimits = [{rows}]\n{extra}\n{keys}'


def secrets_for(keys: dict[str, str]) -> dict[str, str]:
    """The environment that goes with config_for."""
    return {f"STRESS_SECRET_{place}": secret for place, secret in enumerate(keys.values())}


@dataclass(slots=True)
class Measured:
    """What the requests brought; times in seconds."""

    total: int
    started: float = field(default_factory=time.monotonic)
    results: int = 0
    succeeded: int = 0
    drawn_429: int = 0
    requests_done: int = 0
    eta: float | None = None
    elapsed: float = 0.0
    first: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


async def run_stress(plan: Plan, target: str | None, requests: int, timeout: float | None) -> int:
    """Run it, show it, and return the exit code: 0 fine, 3 calls failed or a violation, 4 cut short."""
    console = Console(stderr=True, soft_wrap=True)
    with ExitStack() as stack:
        judge: JudgeProcess | None = None
        if target is None:
            options = JudgeOptions(SECRETS, (plan.limit,), latency_ns=plan.latency_ns)
            judge = stack.enter_context(JudgeProcess(options))
            config = config_for(judge.url, (plan.limit,), list(SECRETS))
            target = stack.enter_context(ServedProcess(config, secrets_for(SECRETS))).target
            per = plan.limit.per_ns / 1e9
            text = f"a judge with 3 keys of {plan.limit.max} calls per {per:g} s, and a server on {target}"
            console.print(text, highlight=False)
        console.print(f"{requests} concurrent requests of {plan.calls} calls", highlight=False)
        measured = Measured(requests * plan.calls)
        try:
            await _drive(measured, plan, target, requests, timeout, console, distinct=judge is not None)
        except ApifluxError as error:
            console.print(str(error), style="red", markup=False, highlight=False)
            return 4
        _show(measured, requests, Console())
        report = None if judge is None else judge.report()
        fine = not measured.errors and measured.succeeded == measured.total
        return (0 if fine else 3) if report is None else _verdict(report, measured, fine)


def _verdict(report: Report, measured: Measured, fine: bool) -> int:
    print_report(report, sys.stdout)
    out = Console(highlight=False, soft_wrap=True)
    for violation in report.violations:
        out.print(f"violation: {violation}", style="red", markup=False)
    if report.ok:
        worst = f"worst window at {report.worst:.3f} of its limit"
        out.print(
            f"the judge: no violation; {report.accepted} calls, {worst}, {report.rejected} rejected", style="green"
        )
    return 0 if report.ok and fine else 3


async def _drive(
    measured: Measured,
    plan: Plan,
    target: str,
    requests: int,
    timeout: float | None,
    console: Console,
    *,
    distinct: bool,
) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(target, options=[("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(CHANNELS)
        ]
        info = await clients[0].info()
        watch = asyncio.create_task(_watch(measured, clients[0], info, console))
        measured.started = time.monotonic()
        try:
            await asyncio.gather(
                *(
                    _request(measured, clients[number % CHANNELS], number, plan, timeout, distinct)
                    for number in range(requests)
                )
            )
        finally:
            measured.elapsed = time.monotonic() - measured.started
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


async def _request(
    measured: Measured, client: Client, number: int, plan: Plan, timeout: float | None, distinct: bool
) -> None:
    if distinct:
        calls = [pb.Call(path=f"/calls/{number}/{place}") for place in range(plan.calls)]
        request = pb.ProcessRequest(calls=calls)
    else:
        request = pb.ProcessRequest(repeat=pb.RepeatedCall(count=plan.calls))
    start = time.monotonic()
    try:
        await _read(measured, client.send(request, timeout=timeout), start)
    except ApifluxError as error:
        reason = error.reason or error.code.name
        measured.errors[reason] = measured.errors.get(reason, 0) + 1
    measured.durations.append(time.monotonic() - start)
    measured.requests_done += 1


async def _read(measured: Measured, stream: Stream, start: float) -> None:
    first = True
    async for message in stream.raw():
        if first and message.results:
            measured.first.append(time.monotonic() - start)
            first = False
        for result in message.results:
            measured.results += 1
            status = result.response.status_code
            measured.succeeded += 200 <= status < 300
            measured.drawn_429 += status == 429
            measured.latencies.append(seconds(result.latency))
            measured.keys[result.key_label] = measured.keys.get(result.key_label, 0) + 1
        if stream.progress is not None and stream.progress.eta is not None:
            measured.eta = stream.progress.eta


async def _watch(measured: Measured, client: Client, info: Info, console: Console) -> None:
    """Show how it stands: live on a terminal, else a line every five seconds."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(5)
            left = "" if measured.eta is None else f", about {measured.eta:.0f} s left"
            console.print(f"{measured.results}/{measured.total} results{left}", highlight=False)
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            with suppress(ApifluxError):  # the streams will say what is wrong
                info = await client.info()
            live.update(_picture(measured, info))
            await asyncio.sleep(0.5)


def _picture(measured: Measured, info: Info) -> Group:
    head = Table.grid(padding=(0, 2))
    left = "" if measured.eta is None else f"about {measured.eta:.0f} s left"
    head.add_row(
        "calls", ProgressBar(measured.total, measured.results, 40), f"{measured.results}/{measured.total}", left
    )
    for pool in info.pools:
        if pool.name != "default":
            continue
        for key in pool.keys[:16]:
            used = 1 - key.headroom
            head.add_row(key.label, ProgressBar(1.0, used, 40), f"{used:.0%} of its window", f"{key.attempts} calls")
    return Group(head)


def _show(measured: Measured, requests: int, console: Console) -> None:
    table = Table(title=f"{requests} concurrent requests")
    table.add_column("figure")
    table.add_column("value", justify="right")
    rows = [
        ("requests", f"{measured.requests_done}"),
        ("calls", f"{measured.results} of {measured.total}"),
        ("succeeded", f"{measured.succeeded}"),
        ("elapsed", f"{measured.elapsed:.2f} s"),
        ("calls a second", f"{measured.results / max(measured.elapsed, 1e-9):.0f}"),
        ("first result p50 / p99", _percentiles(measured.first)),
        ("request p50 / p99", _percentiles(measured.durations)),
        ("call latency p50 / p99", _percentiles(measured.latencies)),
        ("429s drawn", f"{measured.drawn_429}"),
    ]
    rows += [(f"calls with {label}", str(count)) for label, count in sorted(measured.keys.items())]
    rows += [(f"requests failed: {reason}", str(count)) for reason, count in sorted(measured.errors.items())]
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def _percentiles(values: list[float]) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"{p50 * 1000:.0f} / {p99 * 1000:.0f} ms"
