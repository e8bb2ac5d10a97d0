"""`apiflux process`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from apiflux_grpc.cli.options import TargetOption, checked
from apiflux_grpc.cli.signals import CUT_SHORT
from apiflux_grpc.cli.streams import say
from apiflux_grpc.core.units import format_address
from apiflux_grpc.server.defaults import HOST, PORT


def _seconds(value: float | None) -> float | None:
    from apiflux_grpc.client.channel import check_timeout

    return checked(check_timeout, value)


def process(
    file: Annotated[str, typer.Argument(help="JSON Lines of calls, or .csv with --template; - for standard input.")],
    target: TargetOption = format_address(HOST, PORT),
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
    import asyncio

    from apiflux_grpc.cli.signals import SIGNALS
    from apiflux_grpc.client import TlsOptions
    from apiflux_grpc.client.channel import check_token
    from apiflux_grpc.jobs.ending import Ending
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.run import run_job

    if output is None and sys.stdout is None:
        say("standard output is closed; --output FILE says where results go")
        raise typer.Exit(CUT_SHORT)
    try:
        secure = TlsOptions(ca_file, cert_file, key_file) if tls or ca_file or cert_file or key_file else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    token = os.environ.get("APIFLUX_TOKEN") or None
    try:
        token = None if token is None else check_token(token)
    except ValueError as error:
        say(f"the variable APIFLUX_TOKEN: {error}")
        raise typer.Exit(Ending.REFUSED.code) from None
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
    raise typer.Exit(asyncio.run(run_job(job, SIGNALS.telling)).code)
