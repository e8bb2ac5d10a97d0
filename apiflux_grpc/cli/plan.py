"""`apiflux plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from apiflux_grpc.cli.options import ConfigOption, HtmlOption, load_settings


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
    """How long batches take with these keys and limits, and which limit holds them back.

    The real dispatcher on virtual time; nothing is sent.
    """
    from apiflux_grpc.plan.question import ask
    from apiflux_grpc.plan.show import run_plan

    pools = None if config is None else load_settings(config).pools
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
            fail=fail,
            limited=limited,
            reject=reject or (),
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(run_plan(question, as_json=as_json, html=html))
