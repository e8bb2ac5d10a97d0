"""`apiflux serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from apiflux_grpc.cli.options import ConfigOption, load_settings
from apiflux_grpc.cli.streams import say


def serve(
    config: ConfigOption = None,
    bind: Annotated[
        str | None, typer.Option("--bind", help="HOST:PORT to listen on; port 0 picks a free port.")
    ] = None,
) -> None:
    """Run the server until SIGTERM. Without a configuration it has the pool `default`, on the simulator."""
    from apiflux_grpc import bootstrap
    from apiflux_grpc.core.errors import EngineFailed
    from apiflux_grpc.server.lifecycle import PortInUse

    settings = load_settings(config, bind)
    try:
        code = bootstrap.serve(settings)
    except PortInUse as error:
        say(str(error))
        code = 2
    except EngineFailed as error:
        say(str(error))
        code = 1
    raise typer.Exit(code)
