"""`apiflux check-config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from apiflux_grpc.cli.options import load_settings, run_cancellable
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.core.rules import AnswerRule
    from apiflux_grpc.settings import PoolSettings, Settings

# What an answer means if no rule of its pool matches and it isn't a success; core/verdict.py decides it.
_HTTP: Final = (
    ("429; 403 with Retry-After, or with headers that say that nothing is left", "limited"),
    ("401, 402, other 403", "key_rejected"),
    ("500-599, 408, 425", "again"),
    ("all others", "failed"),
)


def check_config(
    file: Annotated[Path, typer.Argument(help="The configuration, a TOML file.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also make one real call with each key.")] = False,
    path: Annotated[str, typer.Option(help="The path of that call, a GET.")] = "/",
) -> None:
    """Check a configuration: list its faults, each with its place, or its pools, keys and limits, and its rules."""
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
    rules = Table("pool")
    for name in ("answers", "mean", "by"):
        rules.add_column(name, overflow="fold")
    for pool in settings.pools:
        for row in _rules(pool):
            rules.add_row(pool.pool.name, *row)
    for answers, meaning in _HTTP:
        rules.add_row("each", answers, meaning, "HTTP")
    Console().print(rules)
    for warning in settings.warnings:
        say(f"warning: {warning}")
    if probe:
        raise typer.Exit(run_cancellable(_probe(settings, path)))


def _rules(settings: PoolSettings) -> Iterator[tuple[str, str, str]]:
    """The answers that a pool has rules for, what they mean, and who says so: the first that matches holds."""
    rules = settings.pool.answers
    own = len(rules) - settings.preset_rules
    for index, rule in enumerate(rules):
        yield str(rule), _meaning(rule), "the pool" if index < own else f"preset {settings.preset}"
    success = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in settings.pool.success)
    yield success, "success", "the pool"


def _meaning(rule: AnswerRule) -> str:
    more = f"; wait: {rule.wait}" if rule.wait is not None else ""
    return f"{rule.means.value}{more}{'; not executed' if rule.not_executed else ''}"


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
