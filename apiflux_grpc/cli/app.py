"""The command line: serve, process, stress, judge, plan, check-config, presets, init, keys, token; each in its
file, and put together here.

Rule: standard output is for results and machines, everything else goes to standard error. Exit codes: 0 success;
1 an internal fault, or standard output that can't be written to; 2 bad usage, configuration or input, or a port in use;
3 some calls failed, or the judge found a violation; 4 cut short.

A command's file imports typer alone; what the command needs is imported when it runs, so that none pays for another.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated, Final

import typer
from typer.core import TyperGroup

from apiflux_grpc import __version__
from apiflux_grpc.cli.check_config import check_config
from apiflux_grpc.cli.init import init
from apiflux_grpc.cli.judge import judge
from apiflux_grpc.cli.keys import keys
from apiflux_grpc.cli.plan import plan
from apiflux_grpc.cli.presets import presets
from apiflux_grpc.cli.process import process
from apiflux_grpc.cli.serve import serve
from apiflux_grpc.cli.stress import stress
from apiflux_grpc.cli.token import token

HELP: Final = ["-h", "--help"]

app = typer.Typer(
    name="apiflux",
    help="Spreads batches of calls over a pool of rate-limited API keys, and never exceeds a limit.",
    no_args_is_help=True,
    context_settings={"help_option_names": HELP},
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

    if log_level is not LogLevel.debug:
        # Read when grpc is imported. What it would print itself we say too, in words that say what to do.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    configure(log_level.value, log_format.value)


for command in (serve, process, stress, judge, plan, check_config, presets, init, keys, token):
    # Without a short help typer takes the first sentence, and cuts it to the width of the line.
    short = (command.__doc__ or "").partition("\n")[0]
    app.command(short_help=short, context_settings={"help_option_names": HELP})(command)


def main(width: int) -> None:
    """Run the command line of this process, with help so wide; it ends with SystemExit."""
    group = typer.main.get_command(app)
    match sys.argv[1:]:
        case [name, option] if option in HELP and isinstance(group, TyperGroup) and name in group.commands:
            # Not by way of the group: it would read the values of its own options first, and import pydantic for that.
            group.commands[name].main([option], prog_name=f"apiflux {name}", terminal_width=width)
    group.main(prog_name="apiflux", terminal_width=width)
