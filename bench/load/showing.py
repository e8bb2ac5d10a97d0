"""What came of all profiles: one table for the terminal, a JSON file for each, and one page for all.

Rule: nothing is decided here. A charted rate is the mean between two samples; of a long run's samples as many are
left out as make it a few hundred, and the means stay true.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from apiflux_grpc.charts import SAMPLES, Chart, Line, Series, page, spread, svg, table, time_unit
from bench.load.outcome import Outcome, percentiles, rates

HEAD: Final = (
    "profile",
    "verdict",
    "the judge",
    "ghz: streams",
    "ghz, ms:\np50 / p95 / p99",
    "first result,\nms: p50 / p99",
    "gaps, ms:\np50 / p99",
    "calls",
    "server CPU\nmean / most",
    "RSS, MB:\nfirst / most / last",
)
LEAST_WIDTH: Final = 170  # of the table where no terminal says how wide it is
_MB: Final = 1e6


def verdict(outcome: Outcome) -> str:
    return "fine" if outcome.fine else "NOT fine"


def row(outcome: Outcome) -> tuple[str, ...]:
    """What the table has of a profile, for HEAD."""
    profile, ghz, own, report = outcome.profile, outcome.ghz, outcome.own, outcome.report
    between = rates(outcome.samples)
    rss = [sample.rss / _MB for sample in outcome.samples]
    cpu = max(rate.cpu for rate in between)
    said = "no violation" if report.ok else f"violations: {len(report.violations)}"
    return (
        profile.name,
        verdict(outcome),
        f"{said}\nworst window {report.worst:.1%}",
        "\n".join(f"{count} {name}" for name, count in sorted(ghz.statuses.items())),
        _times(ghz.percentiles, 50, 95, 99),
        _times(percentiles(own.first), 50, 99),
        _times(percentiles(own.gaps), 50, 99),
        f"{outcome.accepted:,}\n{outcome.mean.arrivals:,.0f}/s",
        f"{outcome.mean.cpu:.0%} / {cpu:.0%}",
        f"{rss[0]:.0f} / {max(rss):.0f} / {rss[-1]:.0f}",
    )


def _times(seconds: Mapping[int, float], *parts: int) -> str:
    return " / ".join(f"{seconds[part] * 1000:,.0f}" for part in parts) if seconds else "-"


def notes(outcome: Outcome) -> list[str]:
    """What no column has: what the refusals said, and how the memory grew where that is bounded."""
    found = []
    told = sorted(delay for delay in outcome.own.refusals if delay)
    if told:
        delays = f"each told to come back after {told[0]:.1f} to {told[-1]:.1f} s"
        found.append(f"{len(told)} of our own {outcome.own.streams} streams were refused, {delays}.")
    if outcome.profile.most_growth is not None:
        growth, bound = outcome.rss_growth / _MB, outcome.profile.most_growth / _MB
        found.append(f"After the warm-up RSS grew by {growth:.1f} MB; {bound:.0f} MB are allowed.")
    return found


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """The table, the notes, then whatever isn't as it should be."""
    if not console.is_terminal:
        console.width = max(console.width, LEAST_WIDTH)
    grid = Table(*HEAD, title="make load", show_lines=True)
    for column in grid.columns:
        column.overflow = "fold"
    for outcome in outcomes:
        grid.add_row(*row(outcome), style=None if outcome.fine else "red")
    console.print(grid)
    for outcome in outcomes:
        for note in notes(outcome):
            console.print(f"{outcome.profile.name}: {note}", markup=False, highlight=False)
    for outcome in outcomes:
        for fault in outcome.faults:
            console.print(f"{outcome.profile.name}: {fault}", style="red", markup=False, highlight=False)


def write_json(outcome: Outcome, folder: Path) -> None:
    """Everything, as `<profile>.json`."""
    text = json.dumps(outcome.to_json(), indent=1)
    (folder / f"{outcome.profile.name}.json").write_text(text + "\n", encoding="utf-8")


def to_html(outcomes: Sequence[Outcome]) -> str:
    """The table and the charts of these profiles as one page."""
    shared = f"{os.cpu_count()} cores, shared by the server, the judge, ghz and our own streams"
    machine = f"{shared}. Python {platform.python_version()}."
    parts = [f"<p>{escape(machine)}</p>", table(HEAD, [row(outcome) for outcome in outcomes])]
    for outcome in outcomes:
        parts += [
            f"<h2>{escape(outcome.profile.name)}: {verdict(outcome)}</h2>",
            f"<p>{escape(outcome.profile.what)}</p>",
        ]
        parts += [f"<p>{escape(note)}</p>" for note in notes(outcome)]
        parts += [f"<p><strong>{escape(fault)}</strong></p>" for fault in outcome.faults]
        parts += [svg(chart) for chart in charts(outcome)]
    return page("make load", parts)


def charts(outcome: Outcome) -> list[Chart]:
    """Over time: calls a second, server CPU, server RSS. Then how long our own streams waited, and ghz's took."""
    step = math.ceil(len(outcome.samples) / SAMPLES)
    samples = [*outcome.samples[:-1:step], outcome.samples[-1]]
    between = rates(samples)
    end = samples[-1].at
    long, unit = time_unit(end)
    since = [rate.since / long for rate in between] + [end / long]
    arrivals = [rate.arrivals for rate in (*between, between[-1])]
    cpu = [rate.cpu * 100 for rate in (*between, between[-1])]
    allowed = outcome.profile.calls_per_second
    line = Line(f"what the limits allow in the long run: {allowed:,.0f}", allowed)
    name = outcome.profile.name
    return [
        Chart(
            f"{name}: calls a second",
            unit,
            "calls a second",
            [Series("arrivals at the judge", [*zip(since, arrivals, strict=True)], step=True, area=True)],
            [line] if allowed < 2 * max(arrivals) else [],
        ),
        Chart(
            f"{name}: server CPU",
            unit,
            "% of one core",
            [Series("server", [*zip(since, cpu, strict=True)], step=True, area=True)],
        ),
        Chart(
            f"{name}: server memory",
            unit,
            "RSS, MB",
            [Series("server", [(sample.at / long, sample.rss / _MB) for sample in samples])],
        ),
        Chart(
            f"{name}: first results and gaps of our own streams",
            "ms at most",
            "%",
            [
                Series("first result", _in_ms(spread(outcome.own.first)), step=True),
                Series("gap between results", _in_ms(spread(outcome.own.gaps)), step=True),
            ],
        ),
        Chart(
            f"{name}: how long ghz's streams took, by the percentiles it tells",
            "ms at most",
            "%",
            [
                Series(
                    "whole stream", _in_ms((value, part) for part, value in outcome.ghz.percentiles.items()), step=True
                )
            ],
        ),
    ]


def _in_ms(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(seconds * 1000, part) for seconds, part in points]
