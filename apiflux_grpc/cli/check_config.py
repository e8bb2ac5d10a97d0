"""`apiflux check-config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from apiflux_grpc.cli.options import load_settings, run_cancellable
from apiflux_grpc.cli.streams import say

if TYPE_CHECKING:
    from rich.table import Table

    from apiflux_grpc.core.rules import AnswerRule
    from apiflux_grpc.settings import Settings

# What an answer means if no rule of its pool matches and it isn't a success; core/verdict.py decides it.
HTTP_MEANINGS: Final = (
    ("429; 403 with Retry-After, or with headers that say that nothing is left", "limited"),
    ("401, 402, other 403", "key_rejected"),
    ("500-599, 408, 425", "again"),
    ("all others", "failed"),
)


def check_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, a TOML file.")],
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also see whether budgets can be kept, and make one real call with each key."),
    ] = False,
    path: Annotated[str, typer.Option(help="The path of that call, a GET.")] = "/",
) -> None:
    """Check a configuration: list its faults, each with its place, or its pools, keys and limits, and its rules."""
    from rich.console import Console

    settings = load_settings(file)
    print(f"{file}: no fault")
    console = Console(markup=False, highlight=False, emoji=False)
    for table in (_keys(settings), _answers(settings), _calls(settings)):
        if table.row_count:
            console.print(table)
    for warning in settings.warnings:
        say(f"warning: {warning}")
    if probe:
        raise typer.Exit(run_cancellable(_probe(settings, path)))


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _keys(settings: Settings) -> Table:
    """The limits of each key and group."""
    table = _table("pool", "upstream", "key", "limits")
    for pool in settings.pools:
        upstream = pool.base_url or "simulator"
        for key in pool.pool.keys:
            table.add_row(pool.pool.name, upstream, key.label, ", ".join(map(str, key.limits)) or "none")
        for group in pool.pool.groups:
            labels = " + ".join(group.keys)
            table.add_row(pool.pool.name, upstream, labels, ", ".join(map(str, group.limits)) + ", shared")
    return table


def _answers(settings: Settings) -> Table:
    """What answers mean, and who says so: the first row of a pool that matches holds."""
    table = _table("pool", "answers", "mean", "by")
    for pool in settings.pools:
        rules, name = pool.pool.answers, pool.pool.name
        for index, rule in enumerate(rules):
            is_own = index < len(rules) - pool.preset_rules
            table.add_row(name, str(rule), _meaning(rule), "the pool" if is_own else f"preset {pool.preset}")
        success = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in pool.pool.success)
        table.add_row(name, success, "success", "the pool")
    for answers, meaning in HTTP_MEANINGS:
        table.add_row("each", answers, meaning, "HTTP")
    return table


def _meaning(rule: AnswerRule) -> str:
    more = f"; wait: {rule.wait}" if rule.wait is not None else ""
    return f"{rule.means.value}{more}{'; not executed' if rule.not_executed else ''}"


def _calls(settings: Settings) -> Table:
    """What pools say of calls that don't say it themselves."""
    from apiflux_grpc.core.call import IDEMPOTENT_METHODS

    table = _table("pool", "may run twice", "costs", "as told in")
    for pool in (one.pool for one in settings.pools):
        if pool.idempotent or pool.cost or pool.cost_from:
            twice = [", ".join(sorted(IDEMPOTENT_METHODS)), *map(str, pool.idempotent)]
            table.add_row(pool.name, "; ".join(twice), str(pool.cost or 1), str(pool.cost_from or ""))
    return table


async def _probe(settings: Settings, path: str) -> int:
    from rich.console import Console

    from apiflux_grpc import bootstrap
    from apiflux_grpc import probe as tool
    from apiflux_grpc.core.errors import InvalidRequest

    store = await bootstrap.probe_store(settings)
    if store is not None:
        print(f"{store.at}: {store.what}")
    try:
        probed = await tool.probe([bootstrap.parts_of(pool) for pool in settings.pools], path, bootstrap.CLOCK)
    except InvalidRequest as error:
        raise typer.BadParameter("; ".join(what for _, what in error.violations), param_hint="--path") from None
    table = _table("pool", "key", f"GET {path}", "took")
    for one in probed:
        table.add_row(one.pool, one.key, one.what, f"{one.latency * 1000:.0f} ms", style="" if one.ok else "red")
    Console(markup=False, highlight=False, emoji=False).print(table)
    if any(one.is_no_such_path for one in probed):
        say(f"404 and 405 say nothing of a key: {path} isn't there; name one that the API answers with --path")
    return 0 if all(one.ok for one in probed) and (store is None or store.ok) else 3
