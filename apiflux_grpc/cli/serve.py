"""`apiflux serve`: one process, or several workers and their supervisor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from apiflux_grpc.cli.options import ConfigOption, load_settings
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from apiflux_grpc.settings import Settings


def serve(
    context: typer.Context,
    config: ConfigOption = None,
    bind: Annotated[
        str | None, typer.Option("--bind", help="HOST:PORT to listen on; port 0 picks a free port.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Processes that share the port and the budgets.")
    ] = None,
    allow_plaintext: Annotated[
        bool,
        typer.Option("--allow-plaintext", help="Listen without TLS on an address that other machines reach."),
    ] = False,
) -> None:
    """Run the server until SIGTERM. Without a configuration it has the pool `default`, on the simulator."""
    from apiflux_grpc.logs import configure

    log = context.find_root().params
    configure(log["log_level"], log["log_format"], alone=True)
    settings = load_settings(config, bind, allow_plaintext=allow_plaintext)
    if workers is not None:
        settings = replace(settings, workers=workers)
    raise typer.Exit(
        _alone(settings) if settings.workers == 1 else _with_workers(settings, log["log_level"], log["log_format"])
    )


def _alone(settings: Settings) -> int:
    from apiflux_grpc import bootstrap

    try:
        return bootstrap.serve(settings, serves=lambda server: _listening(server.address))
    except tuple(bootstrap.CANT_START) as error:
        say(str(error))
        return bootstrap.CANT_START[type(error)]


def _with_workers(settings: Settings, log_level: str, log_format: str) -> int:
    from apiflux_grpc.workers.supervisor import CantServe, supervise

    try:
        return supervise(settings, log_level, log_format, _listening)
    except CantServe as error:
        say(str(error))
        return error.code


def _listening(address: str) -> None:
    print(f"listening on {address}", flush=True)
