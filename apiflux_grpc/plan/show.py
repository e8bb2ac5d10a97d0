"""`apiflux plan`: makes a plan, and shows it on the terminal, as JSON, or as a page too."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from apiflux_grpc import charts
from apiflux_grpc.core.units import spoken
from apiflux_grpc.plan.figures import KEY_HEAD, LIMIT_HEAD, figures, key_rows, limit_rows, per_second, title_of
from apiflux_grpc.plan.page import to_html
from apiflux_grpc.plan.plan import Plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiflux_grpc.plan.question import Question


KEYS_SHOWN: Final = 20


def run_plan(question: Question, *, as_json: bool = False, html: Path | None = None) -> int:
    """Plan, and show it on standard output; also as a page. Returns the exit code: 0, or 2 if it can't be planned or
    the page can't be made."""
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
    try:
        if html is not None:
            charts.ready(html)
        with _told(errors) as tell:
            plan = make_plan(question, tell)
        if html is not None:
            charts.write(html, to_html(plan))
    except (ValueError, charts.CannotReport) as error:
        errors.print(str(error))
        return 2
    if as_json:
        json.dump(plan.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show(plan, Console(markup=False, highlight=False, emoji=False))
    return 0


@contextmanager
def _told(console: Console) -> Iterator[Callable[[float], object]]:
    """A bar while it is planned, on a terminal: a plan of a million calls takes a minute."""
    if not console.is_terminal:
        yield lambda share: None
        return
    with Progress(TextColumn("planning"), BarColumn(), TaskProgressColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def show(plan: Plan, console: Console) -> None:
    """The tables and the chart, for a terminal."""
    summary = Table(title=title_of(plan))
    for name in ("figure", "value"):
        summary.add_column(name, overflow="fold")  # the other ways to cut a text aren't ASCII
    for name, value in figures(plan):
        summary.add_row(name, value)
    console.print(summary)
    if plan.limits:
        limits = Table(title="Limits")
        for name in LIMIT_HEAD:
            limits.add_column(name, overflow="fold")
        for limit in limit_rows(plan):
            limits.add_row(*limit)
        console.print(limits)
    keys = Table(title="Keys")
    for name in KEY_HEAD:
        keys.add_column(name, overflow="fold")
    for row in key_rows(plan.keys[:KEYS_SHOWN]):
        keys.add_row(*row)
    console.print(keys)
    if len(plan.keys) > KEYS_SHOWN:
        console.print(f"and {len(plan.keys) - KEYS_SHOWN} more keys")
    for note in plan.question.notes:
        console.print(f"note: {note}")
    console.print(text_chart(plan, min(console.width, 100), plain=console.options.ascii_only))


def text_chart(plan: Plan, width: int, *, plain: bool) -> str:
    """Calls a second over time, and the steady capacity as a line."""
    gutter = 10
    values = per_second(plan, max(20, width - gutter - 2))
    highest = max([*values, plan.capacity or 0.0])
    rows = charts.columns(values, plan.capacity, plain=plain)
    edge = "|" if plain else "│"
    marks = {0: f"{highest:,.0f}", len(rows) - 1: "0"}
    if plan.capacity is not None:
        marks.setdefault(len(rows) - 1 - min(len(rows) - 1, int(plan.capacity / highest * len(rows))), "capacity")
    lines = [f"{marks.get(place, ''):>{gutter - 1}} {edge}{row}" for place, row in enumerate(rows)]
    end = spoken(plan.makespan)
    foot = " " * (gutter + 1) + "0" + end.rjust(len(values) - 1)
    title = "Calls a second"
    if plan.capacity is not None:
        title += f"; the line is the steady capacity, {plan.capacity:,.1f}"
    return "\n".join([title, *lines, foot])
