"""`apiflux plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apiflux_grpc.cli.input import AnyMethodOption, DelimiterOption, Format, TemplateOption
from apiflux_grpc.cli.options import ConfigOption, HtmlOption, load_settings
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.plan.load import Load


def plan(
    config: ConfigOption = None,
    pool: Annotated[str | None, typer.Option(help="The pool of --config to plan for; default: default.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="A limit of every key, MAX/DURATION, like 1000/60s.")] = None,
    keys: Annotated[int | None, typer.Option(help="Number of keys; default: 1.")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Most calls of each key in flight; default: no bound.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Calls in flight of all keys; default: that of a configured pool.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(help="How long an answer takes, like 20ms or 500ms..3s; default: the simulator's, else 200ms."),
    ] = None,
    calls: Annotated[int | None, typer.Option(help="Number of calls in each batch.")] = None,
    batches: Annotated[int | None, typer.Option(help="Number of batches, all at once; default: 1.")] = None,
    batch: Annotated[
        list[str] | None, typer.Option(help="A batch, SIZE@WHEN, instead of --calls: 2000@0s, 10@5s.")
    ] = None,
    cost: Annotated[
        int | None, typer.Option(metavar="N", help="What each call costs, for limits that count cost; default: 1.")
    ] = None,
    calls_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Plan the calls of this file, with their own costs and paths: what `process` takes; - is standard "
            "input.",
        ),
    ] = None,
    template: TemplateOption = None,
    delimiter: DelimiterOption = None,
    format: Annotated[
        Format | None, typer.Option(help="What the lines of --calls-from are; default: what the first one is.")
    ] = None,
    any_method: AnyMethodOption = False,
    fail: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Sends that are answered 500, like 0.05; default: the simulator's error rate, else 0."
        ),
    ] = None,
    limited: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Sends that are answered 429 without Retry-After; default: 0.")
    ] = None,
    reject: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="A key that is answered 401 all the time.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of latencies and failures: the same seed draws the same.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: HtmlOption = None,
) -> None:
    """How long batches, or the calls of a file, take with these keys and limits, and which limit holds them back.

    The real dispatcher on virtual time; nothing is sent.
    """
    from apiflux_grpc.jobs.job import Refused
    from apiflux_grpc.plan.question import ask
    from apiflux_grpc.plan.show import run_plan

    of_a_file = {"--template": template, "--delimiter": delimiter, "--format": format, "--any-method": any_method}
    if calls_from is None and (given := next((name for name, value in of_a_file.items() if value), None)):
        raise typer.BadParameter(f"{given} is about the lines of a file: it needs --calls-from FILE")
    pools = None if config is None else load_settings(config, allow_plaintext=True).pools
    read: Callable[[Pool], Load] | None = None
    if calls_from is not None:
        read = _reader(calls_from, template, delimiter, "" if format is None else format.value, any_method)
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
            cost=cost,
            calls_from=read,
            fail=fail,
            limited=limited,
            reject=reject or (),
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except Refused as refused:
        say(str(refused))
        raise typer.Exit(2) from None
    except OSError as error:
        say(f"can't read {'<stdin>' if calls_from == '-' else calls_from}: {error.strerror or error}")
        raise typer.Exit(2) from None
    raise typer.Exit(run_plan(question, as_json=as_json, html=html))


def _reader(
    file: str, template: str | None, delimiter: str | None, format: str, any_method: bool
) -> Callable[[Pool], Load]:
    """What reads the calls of a file for the pool that is planned."""
    import asyncio

    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.measure import measure
    from apiflux_grpc.plan.load import Load

    job = Job(
        None if file == "-" else Path(file),
        target="",
        template=template,
        delimiter=delimiter,
        format=format,
        any_method=any_method,
    )

    def read(pool: Pool) -> Load:
        measured = asyncio.run(measure(job, pool, Console()))
        return Load(measured.costs, bytes(measured.classes), bytes(measured.repeatable))

    return read
