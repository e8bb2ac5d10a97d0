"""The command line: serve, process, stress, judge, plan, check-config. Thin: one function each.

Rule: standard output is for results and machines, everything else goes to standard error. Exit codes: 0 fine;
1 a fault of ours, or of what standard output is; 2 usage, configuration, bad input, port in use; 3 some calls failed,
or the judge found a violation; 4 cut short.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from apiflux_grpc import __version__
from apiflux_grpc.settings import Settings, SettingsError, limit_shown, load

app = typer.Typer(
    name="apiflux",
    help="Spreads batches of calls over a pool of rate-limited API keys, and never exceeds a limit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormat(StrEnum):
    console = "console"
    json = "json"


T = TypeVar("T")


def _checked(check: Callable[[T], object], value: T) -> T:
    try:
        check(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


def _target(value: str | None) -> str | None:
    from apiflux_grpc.client.channel import check_target

    return None if value is None else _checked(check_target, value)


def _seconds(value: float | None) -> float | None:
    from apiflux_grpc.client.channel import check_timeout

    return _checked(check_timeout, value)


ConfigOption = Annotated[Path | None, typer.Option("--config", help="A TOML file; see examples/apiflux.toml.")]
TargetOption = Annotated[str, typer.Option("--target", callback=_target, help="HOST:PORT of the server.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write a page with charts too: the extra `report`.")]


def _version(value: bool) -> None:
    if value:
        print(f"apiflux {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    log_level: Annotated[LogLevel, typer.Option(help="The least severe lines to log.")] = LogLevel.info,
    log_format: Annotated[LogFormat, typer.Option(help="For people or for machines.")] = LogFormat.console,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spreads batches of calls over a pool of rate-limited API keys, and never exceeds a limit."""
    from apiflux_grpc.logs import configure

    configure(log_level.value, log_format.value)


@app.command()
def serve(
    config: ConfigOption = None,
    bind: Annotated[str | None, typer.Option("--bind", help="HOST:PORT; port 0 picks one.")] = None,
) -> None:
    """Serve until SIGTERM. Without a configuration: pool `default` on the simulator."""
    from apiflux_grpc.bootstrap import serve as run
    from apiflux_grpc.core.errors import EngineFailed
    from apiflux_grpc.server.lifecycle import PortInUse

    settings = _settings(config, bind)
    try:
        code = run(settings)
    except PortInUse as error:
        _say(str(error))
        code = 2
    except EngineFailed as error:
        _say(str(error))
        code = 1
    raise typer.Exit(code)


@app.command()
def process(
    file: Annotated[str, typer.Argument(help="JSON Lines of calls, or .csv with --template; - for standard input.")],
    target: TargetOption = "127.0.0.1:50051",
    pool: Annotated[str, typer.Option(help="The pool to use.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(help="Where results go; default: standard output. Given again, calls with a result are skipped."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="The call a row of CSV makes: JSON with {column} in strings, or @FILE.")
    ] = None,
    skip_bad_lines: Annotated[bool, typer.Option("--skip-bad-lines", help="Send the others.")] = False,
    ordered: Annotated[bool, typer.Option("--ordered", help="Results in the order of the calls.")] = False,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=_seconds,
            help="Wait as long as that for a server that isn't there yet.",
            min=0.001,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=_seconds,
            help="Seconds for the whole; then nothing more is sent, and calls in flight are waited for a little.",
            min=0.001,
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Send calls again whose result in --output is a failure, if they may be."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget what --output has.")] = False,
    window: Annotated[
        int, typer.Option(help="Calls without a result at once; as many can be in doubt after a crash.", min=1)
    ] = 2000,
    ca_file: Annotated[Path | None, typer.Option(help="TLS: whom to trust, PEM.")] = None,
    cert_file: Annotated[Path | None, typer.Option(help="TLS: the client's certificate, PEM.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="TLS: its key, PEM.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS with the well-known authorities.")] = False,
) -> None:
    """Send a file of calls, of any size, and write their results as JSON Lines.

    Stopped, or after a crash, the same command with the same --output goes on. The variable APIFLUX_TOKEN has the
    token for servers that ask for one.
    """
    from apiflux_grpc.client import TlsOptions
    from apiflux_grpc.client.channel import check_token
    from apiflux_grpc.jobs.run import CUT_SHORT, USAGE, Job, run_job

    if output is None and sys.stdout is None:
        _say("standard output is closed; --output FILE says where results go")
        raise typer.Exit(CUT_SHORT)
    try:
        secure = TlsOptions(ca_file, cert_file, key_file) if tls or ca_file or cert_file or key_file else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    token = os.environ.get("APIFLUX_TOKEN") or None
    try:
        token = None if token is None else check_token(token)
    except ValueError as error:
        _say(f"the variable APIFLUX_TOKEN: {error}")
        raise typer.Exit(USAGE) from None
    job = Job(
        None if file == "-" else Path(file),
        target=target,
        pool=pool,
        output=output,
        template=template,
        skip_bad_lines=skip_bad_lines,
        ordered=ordered,
        wait=wait,
        timeout=timeout,
        window=window,
        retry_failed=retry_failed,
        overwrite=overwrite,
        tls=secure,
        token=token,
    )
    raise typer.Exit(_run(run_job(job)))


@app.command()
def stress(
    quick: Annotated[bool, typer.Option("--quick", help="100 requests of 50 calls: half a minute.")] = False,
    full: Annotated[bool, typer.Option("--full", help="100 requests of 2,000 calls: over an hour.")] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", callback=_target, help="HOST:PORT of a server; without: a judge and a server are started."
        ),
    ] = None,
    html: HtmlOption = None,
) -> None:
    """100 concurrent requests, a table, and the judge's verdict."""
    from apiflux_grpc.stress.options import FULL, QUICK
    from apiflux_grpc.stress.run import run_stress

    if quick == full:
        raise typer.BadParameter("say either --quick or --full")
    settings = _settings(None, None)
    timeout = None if target is None else settings.request_timeout / 1e9
    plan = QUICK if quick else FULL
    raise typer.Exit(_run(run_stress(plan, target, settings.concurrent_requests, timeout, html)))


@app.command()
def judge(
    limit: Annotated[list[str], typer.Option("--limit", help="MAX/DURATION for every key, like 1000/60s.")],
    key: Annotated[list[str], typer.Option("--key", help="A key, or LABEL=KEY.")],
    bind: Annotated[str, typer.Option("--bind", help="HOST:PORT; port 0 picks one.")] = "127.0.0.1:9000",
    key_in: Annotated[str, typer.Option(help="header:NAME, bearer or query:NAME.")] = "header:X-API-Key",
    latency: Annotated[str, typer.Option(help="How long an answer takes, like 20ms or 10ms..50ms.")] = "0",
    fault: Annotated[
        list[str] | None, typer.Option(help="FAULT=PROBABILITY, like 500=0.01, hang=0.001 or '503;retry-after=2=0.05'.")
    ] = None,
    reject: Annotated[
        list[str] | None,
        typer.Option(help="Answer a key 401: LABEL=2s..5s since the start, or LABEL=3, its first calls."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --fault: the same calls meet the same faults.")] = 0,
    tls_cert: Annotated[str | None, typer.Option(help="Speak TLS with this certificate, a PEM file.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="The key of that certificate, a PEM file.")] = None,
) -> None:
    """An upstream that enforces limits and tells the most arrivals of a key in any window.

    A call may ask for a fault too: X-Judge-Fault: 500,ok fails it once.
    """
    from apiflux_grpc.judge import faults
    from apiflux_grpc.judge import options as tool
    from apiflux_grpc.judge.server import run_judge

    try:
        host, port = tool.parse_bind(bind)
        keys = tool.parse_keys(key)
        options = tool.JudgeOptions(
            keys=keys,
            limits=tuple(tool.parse_limit(text) for text in limit),
            host=host,
            port=port,
            key_in=tool.parse_key_in(key_in),
            latency_ns=tool.parse_latency(latency),
            faults=faults.parse_chances(fault or ()),
            rejections=faults.parse_rejections(reject or (), keys),
            seed=seed,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(run_judge(options))


@app.command()
def plan(
    config: ConfigOption = None,
    pool: Annotated[str | None, typer.Option(help="The pool of --config to plan for; default: default.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="MAX/DURATION for every key, like 1000/60s.")] = None,
    keys: Annotated[int | None, typer.Option(help="How many keys; default: 1.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="Calls in flight of each key; default: no bound.")] = None,
    max_connections: Annotated[int | None, typer.Option(help="Calls in flight of all keys; default: 1000.")] = None,
    latency: Annotated[
        str | None,
        typer.Option(help="How long an answer takes, like 20ms or 500ms..3s; default: the simulator's, else 200ms."),
    ] = None,
    calls: Annotated[int | None, typer.Option(help="Calls of each batch.")] = None,
    batches: Annotated[int | None, typer.Option(help="So many such batches, all at once; default: 1.")] = None,
    batch: Annotated[list[str] | None, typer.Option(help="SIZE@WHEN, instead of --calls: 2000@0s, 10@5s.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines, on standard output.")] = False,
    html: HtmlOption = None,
) -> None:
    """How long batches take with these keys and limits, and which limit holds them back.

    The real scheduler on virtual time; nothing is sent.
    """
    from apiflux_grpc.plan.question import ask
    from apiflux_grpc.plan.show import run_plan

    pools = None if config is None else _settings(config, None).pools
    try:
        question = ask(
            pools,
            pool=pool,
            limits=limit or (),
            keys=keys,
            max_in_flight=max_in_flight,
            max_connections=max_connections,
            latency=latency,
            calls=calls,
            batches=batches,
            batch=batch or (),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(run_plan(question, as_json=as_json, html=html))


@app.command("check-config")
def check_config(
    file: Annotated[Path, typer.Argument(help="A TOML file.")],
    probe: Annotated[bool, typer.Option("--probe", help="Make one real call with each key too.")] = False,
    path: Annotated[str, typer.Option(help="Of that call: GET PATH.")] = "/",
) -> None:
    """Say every fault of a configuration with its place, or what it amounts to."""
    settings = _settings(file, None)
    print(f"{file}: no fault")
    table = Table()
    for name in ("pool", "upstream", "key", "limits"):
        table.add_column(name)
    for pool in settings.pools:
        upstream = pool.base_url or "simulator"
        for key in pool.pool.keys:
            table.add_row(pool.pool.name, upstream, key.label, ", ".join(map(limit_shown, key.limits)) or "none")
        for group in pool.pool.groups:
            labels = " + ".join(group.keys)
            table.add_row(pool.pool.name, upstream, labels, ", ".join(map(limit_shown, group.limits)) + ", shared")
    Console().print(table)
    for warning in settings.warnings:
        _say(f"warning: {warning}")
    if probe:
        raise typer.Exit(_run(_probe(settings, path)))


async def _probe(settings: Settings, path: str) -> int:
    from apiflux_grpc import bootstrap
    from apiflux_grpc import probe as tool
    from apiflux_grpc.core.errors import InvalidRequest

    try:
        probed = await tool.probe([bootstrap.parts_of(pool) for pool in settings.pools], path)
    except InvalidRequest as error:
        raise typer.BadParameter("; ".join(what for _, what in error.violations), param_hint="--path") from None
    table = Table("pool", "key", f"GET {path}", "took")
    for one in probed:
        table.add_row(one.pool, one.key, one.what, f"{one.latency * 1000:.0f} ms", style="" if one.ok else "red")
    Console().print(table)
    return 0 if all(one.ok for one in probed) else 3


def _settings(config: Path | None, bind: str | None) -> Settings:
    try:
        return load(config, environ=os.environ, dotenv=Path(".env"), bind=bind)
    except SettingsError as error:
        for fault in error.faults:
            _say(str(fault))
        raise typer.Exit(2) from None


def _run(job: Coroutine[None, None, int]) -> int:
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which asyncio makes a cancellation of
    try:
        return asyncio.run(job)
    except KeyboardInterrupt:  # typer would make it 130
        return 4


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


class _Unwritable(Exception):
    """Standard output can't be written to; no OSError, which others would take for theirs."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)
        self.is_left = isinstance(cause, BrokenPipeError)


class _Stdout(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _Unwritable(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _Unwritable(error) from None


def _leave(*_: object) -> NoReturn:
    """Ctrl-C: quietly, where typer would make it 130 and the interpreter a traceback."""
    sys.exit(4)


def _prepare() -> None:
    """Set up standard streams and Ctrl-C for this process."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file that is opened would get its number, and its place
            os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY)
    if isinstance(sys.stdout, io.TextIOWrapper):
        out = sys.stdout
        encoding, errors, lines = out.encoding, out.errors, out.line_buffering
        sys.stdout = _Stdout(out.detach(), encoding, errors, line_buffering=lines)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def main() -> None:
    """The command `apiflux`."""
    _prepare()
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(4)
    except _Unwritable as failed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes nowhere
        if failed.is_left:  # nobody has to be told
            sys.exit(4)
        _say(f"can't write to standard output: {failed}")
        sys.exit(1)
