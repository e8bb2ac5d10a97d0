"""The command line: serve, process, stress, judge, plan, check-config, presets; each in its file, put together here.

Rule: standard output is for results and machines, everything else goes to standard error. Exit codes: 0 success;
1 an internal fault, or standard output that can't be written to; 2 bad usage, configuration or input, or a port in use;
3 some calls failed, or the judge found a violation; 4 cut short.

A command's file imports typer alone; what the command needs is imported when it runs, so that none pays for another.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from apiflux_grpc import __version__
from apiflux_grpc.cli.check_config import check_config
from apiflux_grpc.cli.judge import judge
from apiflux_grpc.cli.plan import plan
from apiflux_grpc.cli.presets import presets
from apiflux_grpc.cli.process import process
from apiflux_grpc.cli.serve import serve
from apiflux_grpc.cli.streams import with_streams
from apiflux_grpc.cli.stress import stress

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


def _version(value: bool) -> None:
    if value:
        print(f"apiflux {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level to log.")] = LogLevel.info,
    log_format: Annotated[LogFormat, typer.Option(help="Log lines for people or for machines.")] = LogFormat.console,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spreads batches of calls over a pool of rate-limited API keys, and never exceeds a limit."""
    from apiflux_grpc.logs import configure

    configure(log_level.value, log_format.value)


for command in (serve, process, stress, judge, plan, check_config, presets):
    app.command()(command)


def run() -> int:
    """Run the command line of this process, and return its exit code."""
    return with_streams(app)
