"""`apiflux check-config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apiflux_grpc.cli.options import load_settings, run_cancellable
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from apiflux_grpc.settings import Settings


def check_config(
    file: Annotated[Path, typer.Argument(help="The configuration, a TOML file.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also make one real call with each key.")] = False,
    path: Annotated[str, typer.Option(help="The path of that call, a GET.")] = "/",
) -> None:
    """Check a configuration: list its faults, each with its place, or its pools, keys and limits."""
    from rich.console import Console
    from rich.table import Table

    settings = load_settings(file)
    print(f"{file}: no fault")
    table = Table()
    for name in ("pool", "upstream", "key", "limits"):
        table.add_column(name)
    for pool in settings.pools:
        upstream = pool.base_url or "simulator"
        for key in pool.pool.keys:
            table.add_row(pool.pool.name, upstream, key.label, ", ".join(map(str, key.limits)) or "none")
        for group in pool.pool.groups:
            labels = " + ".join(group.keys)
            table.add_row(pool.pool.name, upstream, labels, ", ".join(map(str, group.limits)) + ", shared")
    Console().print(table)
    for warning in settings.warnings:
        say(f"warning: {warning}")
    if probe:
        raise typer.Exit(run_cancellable(_probe(settings, path)))


async def _probe(settings: Settings, path: str) -> int:
    from rich.console import Console
    from rich.table import Table

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
