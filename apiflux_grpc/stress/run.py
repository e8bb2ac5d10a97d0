"""`apiflux stress`: many concurrent requests, what came of them, and the judge's verdict.

Rule: the verdict is the judge's alone. Without a target it starts a judge that speaks OpenAI's API as the upstream, and
a server with the preset of that API in front of it, each in a process of its own; with one it sends synthetic load to
that server, and has no judge to ask.

Not known here: what is made of the results; that is figures.py and page.py.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from apiflux_grpc import charts
from apiflux_grpc.client import ApifluxError, Client, Info
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.apis.known import APIS
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.judge.showing import print_report
from apiflux_grpc.stress.calls import calls_of
from apiflux_grpc.stress.figures import Measured, Request, table, title_of, verdict
from apiflux_grpc.stress.options import SECRETS, Profile
from apiflux_grpc.stress.page import to_html
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from apiflux_grpc.client import Stream, TlsOptions, TokenFile
    from apiflux_grpc.client.info import Key
    from apiflux_grpc.judge.limits import Limit


CHANNELS: Final = 4
API: Final = "openai"
# Judge, server and client share this machine, which may delay an arrival by more than the network does.
POOL: Final = f'preset = "{API}"\narrival_jitter = "1s"'


async def run_stress(
    profile: Profile,
    target: str | None,
    requests: int,
    timeout: float | None,
    html: Path | None = None,
    *,
    tls: TlsOptions | None = None,
    token: str | TokenFile | None = None,
    plaintext_token: bool = False,
) -> int:
    """Run it, show it, and return the exit code: 0 fine, 2 no page can be made or a file of `tls` not be used, 3 calls
    failed or a violation, 4 cut short. Cancelled, it shows the results until then."""
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
    try:
        if tls is not None:
            tls.credentials()
    except (OSError, ValueError) as error:
        console.print(f"can't read {error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error))
        return 2
    connect = partial(
        Client,
        tls=tls,
        token=token,
        plaintext_token=plaintext_token,
        options=[("grpc.use_local_subchannel_pool", 1)],
    )
    try:
        if html is not None:
            charts.ready(html)
        with ExitStack() as stack:
            judge: JudgeProcess | None = None
            if target is None:
                options = JudgeOptions(SECRETS, profile.limits, speak=API, latency_ns=profile.latency_ns)
                judge = stack.enter_context(JudgeProcess(options))
                config = config_for(judge.url, profile.limits, list(SECRETS), POOL)
                target = stack.enter_context(ServedProcess(config, secrets_for(SECRETS))).target
                console.print(f"a judge that speaks OpenAI's API, and a server on {target}")
                console.print(f"{len(SECRETS)} keys, each of {_in_words(profile.limits)}")
            measured = Measured([Request() for _ in range(requests)], profile.calls)
            console.print(title_of(measured))
            try:
                await _drive(measured, partial(connect, target), timeout, console, distinct=judge is not None)
            except asyncio.CancelledError:
                _show(measured, judge, html, console)
                raise
            return _show(measured, judge, html, console)
    except ApifluxError as error:
        console.print(str(error), style="red")
        return 4
    except charts.CannotReport as error:
        console.print(str(error), style="red")
        return 2


def _in_words(limits: Sequence[Limit]) -> str:
    """`400 calls and 30,000 tokens per 5 s`; they have the same period."""
    counted = (f"{limit.max:,} {'calls' if limit.counts == 'calls' else 'tokens'}" for limit in limits)
    return f"{' and '.join(counted)} per {limits[0].per_ns / SECOND:g} s"


def _show(measured: Measured, judge: JudgeProcess | None, html: Path | None, console: Console) -> int:
    """Raises CannotReport."""
    out = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    out.print(table(measured))
    found = None if judge is None else judge.report()
    fine = not measured.errors and measured.succeeded == measured.total
    if found is not None:
        print_report(found, sys.stdout, APIS[API].unit)
        for sentence in verdict(found):
            out.print(sentence, style="green" if found.ok else "red")
    if html is not None:
        charts.write(html, to_html(measured, found))
        console.print(f"report: {html}")
    return 0 if fine and (found is None or found.ok) else 3


async def _drive(
    measured: Measured, connect: Callable[[], Client], timeout: float | None, console: Console, *, distinct: bool
) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect()) for _ in range(CHANNELS)]
        info = await clients[0].info()
        measured.limits = {
            key.label: [
                (limit.max, round(limit.per * SECOND))
                for limit in key.limits
                if limit.counts == "calls" and not limit.paths
            ]
            for key in _default_keys(info)
        }
        watch = asyncio.create_task(_watch(measured, clients[0], info, console))
        start = time.monotonic()
        try:
            await asyncio.gather(
                *(
                    _request(measured, clients[number % CHANNELS], number, timeout, distinct)
                    for number in range(len(measured.requests))
                )
            )
        finally:
            measured.elapsed = time.monotonic() - start
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


def _default_keys(info: Info) -> Sequence[Key]:
    """The keys of the pool that the requests go to."""
    return next((pool.keys for pool in info.pools if pool.name == "default"), ())


async def _request(measured: Measured, client: Client, number: int, timeout: float | None, distinct: bool) -> None:
    if distinct:
        request = pb.ProcessRequest(calls=calls_of(number, measured.calls))
    else:
        request = pb.ProcessRequest(repeat=pb.RepeatedCall(count=measured.calls))
    start = time.monotonic()
    try:
        await _read(measured, measured.requests[number], client.send(request, timeout=timeout), start)
    except ApifluxError as error:
        measured.errors[error.reason or error.code.name] += 1
    measured.requests[number].ended = time.monotonic() - start


async def _read(measured: Measured, request: Request, stream: Stream, start: float) -> None:
    async for message in stream.raw():
        came = time.monotonic() - start
        for result in message.results:
            request.came.append(came)
            measured.add(result)
        if stream.progress is not None and stream.progress.eta is not None:
            measured.eta = stream.progress.eta


async def _watch(measured: Measured, client: Client, info: Info, console: Console) -> None:
    """Show the progress: live on a terminal, else a line every five seconds."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(5)
            left = "" if measured.eta is None else f", about {measured.eta:.0f} s left"
            console.print(f"{measured.results:,} of {measured.total:,} results{left}")
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
        "calls", ProgressBar(measured.total, measured.results, 40), f"{measured.results:,} of {measured.total:,}", left
    )
    for key in _default_keys(info)[:16]:
        used = 1 - key.headroom
        head.add_row(key.label, ProgressBar(1.0, used, 40), f"{used:.0%} of its window", f"{key.attempts:,} calls")
    return Group(head)
