"""`apiflux process`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from apiflux_grpc.cli.input import AnyMethodOption, DelimiterOption, Format, TemplateOption
from apiflux_grpc.cli.options import TargetsOption, checked
from apiflux_grpc.cli.reach import (
    CaFileOption,
    CertFileOption,
    KeyFileOption,
    PlaintextTokenOption,
    TlsOption,
    TokenFileOption,
    tls_options,
    token_of,
)
from apiflux_grpc.cli.signals import CUT_SHORT
from apiflux_grpc.cli.streams import say
from apiflux_grpc.core.units import format_address
from apiflux_grpc.server.defaults import HOST, PORT

_TARGETS = [format_address(HOST, PORT)]


def _seconds(value: float | None) -> float | None:
    from apiflux_grpc.client.channel import check_timeout

    return checked(check_timeout, value)


def _failures(value: str) -> float:
    """A number of calls, or `none`: however many fail."""
    if value == "none":
        return math.inf
    if not (value.isascii() and value.isdigit()):
        raise typer.BadParameter(f"{value!r} must be a whole number from 0, or none")
    return int(value)


def process(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines of calls, a file for OpenAI's Batch API, or CSV with --template; - is standard input.",
        ),
    ],
    target: TargetsOption = _TARGETS,
    pool: Annotated[str, typer.Option(help="The pool to use.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file for results; default: standard output. Calls that have a result there are not sent again.",
        ),
    ] = None,
    template: TemplateOption = None,
    delimiter: DelimiterOption = None,
    format: Annotated[
        Format | None,
        typer.Option(help="What the lines are, in and out; default: what the first one is."),
    ] = None,
    any_method: AnyMethodOption = False,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Send the calls of all other lines.")
    ] = False,
    ordered: Annotated[bool, typer.Option("--ordered", help="Write results in the order of the calls.")] = False,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=_seconds,
            help="How long to wait for a server that isn't up yet.",
            min=0.001,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=_seconds,
            help="How long the run may take. Then nothing more is sent, and calls in flight get 5 s to finish.",
            min=0.001,
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Send failed calls of --output again, except those that may have run and must not run twice.",
        ),
    ] = False,
    retry_unknown: Annotated[
        bool,
        typer.Option(
            "--retry-unknown",
            help="Send calls of --output again that got no answer and may have run, even if they must not run twice: "
            "look first what became of them.",
        ),
    ] = False,
    failed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the calls that failed to this file, as lines to be sent again, except those that may have "
            "run and must not run twice.",
        ),
    ] = None,
    max_failures: Annotated[
        float | None,
        typer.Option(
            parser=_failures,
            metavar="N|none",
            help="Send nothing more once more calls of this run failed; none: go on whatever fails. Default: stop if "
            "its first 50 results all failed alike.",
            show_default=False,
        ),
    ] = None,
    max_cost: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="What the calls of this run may cost together; a call costs 1 by default.", min=0
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Send only the first calls that have no result yet, so many.", min=1),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and say what would be sent, and send nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over: drop the results in --output.")] = False,
    window: Annotated[
        int,
        typer.Option(
            help="How many calls may wait for a result at once; after a crash, so many can be in doubt.", min=1
        ),
    ] = 2000,
    ca_file: CaFileOption = None,
    cert_file: CertFileOption = None,
    key_file: KeyFileOption = None,
    tls: TlsOption = False,
    token_file: TokenFileOption = None,
    plaintext_token: PlaintextTokenOption = False,
) -> None:
    """Send a file of calls, of any size, and write their results as JSON Lines.

    After a stop or a crash, run the same command with the same --output again to continue.
    """
    import asyncio

    from apiflux_grpc.cli.signals import SIGNALS
    from apiflux_grpc.jobs.begin import run_job
    from apiflux_grpc.jobs.ending import Ending
    from apiflux_grpc.jobs.job import Job

    if output is None and sys.stdout is None:
        say("standard output is closed; write the results to a file with --output FILE")
        raise typer.Exit(CUT_SHORT)
    secure = tls_options(tls, ca_file, cert_file, key_file)
    token = token_of(
        token_file,
        target,
        secure=secure is not None,
        over_plaintext=plaintext_token,
        refused=Ending.REFUSED.code,
    )
    job = Job(
        None if file == "-" else Path(file),
        target=",".join(target),
        pool=pool,
        output=output,
        template=template,
        delimiter=delimiter,
        format="" if format is None else format.value,
        any_method=any_method,
        skip_bad_lines=skip_bad_lines,
        ordered=ordered,
        wait=wait,
        timeout=timeout,
        window=window,
        retry_failed=retry_failed,
        retry_unknown=retry_unknown,
        overwrite=overwrite,
        max_failures=max_failures,
        max_cost=max_cost,
        limit=limit,
        failed=failed,
        dry_run=dry_run,
        tls=secure,
        token=token,
        plaintext_token=plaintext_token,
    )
    raise typer.Exit(asyncio.run(run_job(job, SIGNALS.telling)).code)
