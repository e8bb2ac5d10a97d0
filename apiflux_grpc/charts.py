"""Charts and tables as one HTML page, and columns of numbers as text for a terminal.

Rule: pure functions from numbers to text; only `write` touches a file. A page is one file that loads nothing and runs
nothing, follows the reader's choice of light or dark, and can be read on a narrow screen. Series differ by colour and
by dash, so that no one has to tell colours apart. Vega draws the charts (the extra `report`): call `ready` before the
work that the page is about, so that nobody waits in vain. Without a page the extra isn't needed.

Not known here: what the numbers mean.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Number = TypeVar("Number", int, float)

SAMPLES: Final = 480  # points of a drawn series
_WIDE, _NARROW = 720, 360  # pixels; each chart is drawn twice, and the style shows one
_DASHES: Final = ([1, 0], [7, 4], [2, 3], [10, 3, 2, 3], [4, 2], [12, 5])
DISTINCT: Final = len(_DASHES)  # series that can be told apart in one chart
_LEVEL_DASHES: Final = ([6, 4], [3, 3], [10, 4, 2, 4])
_LETTER: Final = 7  # pixels of a letter in a legend, a little generous
_HEIGHT: Final = 220
_TITLE_ABOVE: Final = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleX": 0, "titleY": -12}
_CONFIG: Final = {
    "aria": False,  # the <svg> tells what it is
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "line": {"strokeWidth": 2, "strokeJoin": "round"},
    "axis": {
        "domainColor": "var(--soft)",
        "gridColor": "var(--grid)",
        "labelColor": "var(--soft)",
        "labelFontSize": 12,
        "tickColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "var(--text)",
        "labelFontSize": 12,
        "offset": 34,
        "orient": "top",
        "symbolSize": 600,
        "symbolStrokeWidth": 2,
        "symbolType": "stroke",
        "title": None,
    },
}
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"

STYLE: Final = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --soft: #59636e; --grid: #dde2e7;
  --good: #1a7f37; --bad: #b3122f;
  --s0: #0b62c4; --s1: #b35900; --s2: #1a7f37; --s3: #8250df; --s4: #b3122f; --s5: #0f766e; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9aa4af; --grid: #2d333b;
  --good: #57d17a; --bad: #ff8b8b;
  --s0: #6cb6ff; --s1: #f0a04b; --s2: #57d17a; --s3: #c297ff; --s4: #ff8b8b; --s5: #4fd1c5; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 760px; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2, figcaption { font-size: 1.05rem; font-weight: 600; margin: 2rem 0 .5rem; }
p { color: var(--soft); }
strong { color: var(--text); }
.verdict { border-left: .3rem solid; font-size: 1.15rem; font-weight: 600; padding-left: .75rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
figure p { margin: 0 0 .75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--grid); padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top;
  white-space: pre; }
th { color: var(--soft); font-weight: 600; }
th[scope=row], th[scope=row] + td { white-space: pre-line; }
figure { margin: 0; }
svg { display: block; height: auto; width: 100%; }
.narrow { display: none; max-width: 480px; }
@media (max-width: 640px) { .wide { display: none; } .narrow { display: block; }
  th, td { padding-right: .6rem; white-space: pre-line; }
  td:first-child { white-space: nowrap; } }
""".strip()


class CannotReport(Exception):
    """No page can be made or written; says why, and what to do."""


def ready(file: Path) -> None:
    """Raise CannotReport unless a page can be made, and written there: before the work, not after it."""
    if find_spec("vl_convert") is None:
        raise CannotReport("a page needs the extra `report`: pip install '.[report]' in the checkout")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise CannotReport(f"{file} can't be written")


def write(file: Path, text: str) -> None:
    """Write the page. Raises CannotReport."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotReport(f"{file} can't be written: {error.strerror}") from error


# -- points --------------------------------------------------------------------------------------


def quantile(values: Iterable[Number], part: float) -> Number:
    """The value that this part of them, 0 to 1, lies below. Raises IndexError if there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def spread(values: Iterable[float]) -> list[tuple[float, float]]:
    """(value, how many percent of the values don't exceed it), up to 100 %: the points of a series with steps."""
    ordered = sorted(values)
    if not ordered:
        return []
    parts = min(len(ordered), SAMPLES)
    counts = (len(ordered) * part // parts for part in range(1, parts + 1))
    return [(ordered[0], 0.0), *((ordered[count - 1], 100 * count / len(ordered)) for count in counts)]


def counted(
    stamps: Sequence[int], end: int, per: int | None = None, sums: Sequence[int] | None = None
) -> list[tuple[int, int]]:
    """(instant, how many of the sorted stamps lie in the window of `per` that ends then), from 0 to `end`.

    `per` None: how many there were until then. `sums`: what the first n of them are worth, from n = 0, to be told
    instead of their number.
    """
    points = []
    for sample in range(SAMPLES + 1):
        at = end * sample // SAMPLES
        before = 0 if per is None else bisect_right(stamps, at - per)
        until = bisect_right(stamps, at)
        points.append((at, until - before if sums is None else sums[until] - sums[before]))
    return points


def time_unit(span: float) -> tuple[int, str]:
    """The unit of an axis that is so many seconds long: its length in seconds, and its name."""
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    return next((unit for unit in units if span > 3 * unit[0]), (1, "seconds"))


# -- charts --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """Points in the order of x. `step`: y holds until the next x. `area`: filled down to zero."""

    name: str
    points: Sequence[tuple[float, float]]
    step: bool = False
    area: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A level to compare with, drawn dashed over the whole width."""

    name: str
    y: float


@dataclass(frozen=True, slots=True)
class Chart:
    """At least one series. Both axes begin at zero; nothing lies below.

    `x_end`: where the x axis ends; None: at the last point. `about`: sentences on how to read it.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    lines: Sequence[Line] = ()
    x_end: float | None = None
    about: str = ""

    @property
    def names(self) -> list[str]:
        """What the legend tells apart."""
        return [series.name for series in self.series] + [line.name for line in self.lines]


def svg(chart: Chart) -> str:
    """The chart as one <figure>; its looks are in STYLE."""
    drawn = (_draw(chart, "wide", _WIDE), _draw(chart, "narrow", _NARROW))
    about = [f"<p>{escape(chart.about)}</p>"] if chart.about else []
    return "\n".join(["<figure>", f"<figcaption>{escape(chart.title)}</figcaption>", *about, *drawn, "</figure>"])


def _draw(chart: Chart, kind: str, width: int) -> str:
    from vl_convert import vegalite_to_svg

    head, body = vegalite_to_svg(_spec(chart, width)).split(">", 1)
    box = head.partition('viewBox="')[2].partition('"')[0]
    label = f"{chart.title}. {chart.y_label} by {chart.x_label}: {', '.join(chart.names)}"
    # A head of our own: the other one has namespaces, which look like addresses, and a fixed size.
    return f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="{escape(label)}">{body}'


def _spec(chart: Chart, width: int) -> dict[str, Any]:
    """The chart in the words of Vega-Lite."""
    points = [point for series in chart.series for point in series.points]
    right = (max((x for x, _ in points), default=0.0) if chart.x_end is None else chart.x_end) or 1.0
    top = max([y for _, y in points] + [line.y for line in chart.lines], default=0.0) or 1.0
    levels = [Series(line.name, [(0.0, line.y), (right, line.y)]) for line in chart.lines]
    places = range(len(chart.series))
    colours = [f"var(--s{place % DISTINCT})" for place in places] + ["var(--soft)"] * len(levels)
    dashes = [_DASHES[place % DISTINCT] for place in places] + [
        _LEVEL_DASHES[place % len(_LEVEL_DASHES)] for place in range(len(levels))
    ]
    layers: list[dict[str, Any]] = []
    for place, series in enumerate([*chart.series, *levels]):
        data = {"values": [{"x": x, "y": y} for x, y in series.points]}
        shape = {"interpolate": "step-after" if series.step else "linear"}
        if series.area:
            layers.append({"data": data, "mark": {"type": "area", "color": colours[place], "opacity": 0.16, **shape}})
        # By their places, for two names may be the same.
        looks = {"color": {"datum": place}, "strokeDash": {"datum": place}}
        layers.append({"data": data, "mark": {"type": "line", **shape}, "encoding": looks})
    kinds = [*range(len(chart.names))]
    legend = _legend(chart.names, width) if len(kinds) > 1 else None
    return {
        "width": width,
        "height": _HEIGHT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 10, "right": 14, "top": 4, "bottom": 2},  # the reader's font may be wider
        "background": None,
        "config": _CONFIG,
        "encoding": {
            "x": {
                "field": "x",
                "type": "quantitative",
                "title": chart.x_label,
                "scale": {"domain": [0, right], "nice": False},
                "axis": {"tickCount": width // 90, "grid": False},
            },
            "y": {
                "field": "y",
                "type": "quantitative",
                "title": chart.y_label,
                "scale": {"domain": [0, top], "nice": 5},
                "axis": {"tickCount": 5, "domain": False, "ticks": False, **_TITLE_ABOVE},
            },
            "color": {"type": "nominal", "scale": {"domain": kinds, "range": colours}, "legend": legend},
            "strokeDash": {"type": "nominal", "scale": {"domain": kinds, "range": dashes}, "legend": legend},
            "order": {"value": None},
        },
        "layer": layers,
    }


def _legend(names: Sequence[str], width: int) -> dict[str, Any]:
    """In as many columns as have room, even if the reader's font is wider than the one that was measured."""
    longest = max(map(len, names))
    return {
        "labelExpr": f"{json.dumps(names)}[datum.value]",
        "labelLimit": 0.8 * width - 60,
        "columns": max(1, width // (_LETTER * longest + 60)),
        "columnPadding": 20 + longest * _LETTER // 4,
    }


# -- a page --------------------------------------------------------------------------------------


def verdict(sentence: str, good: bool | None) -> str:
    """What came of it, in one sentence; its colour says it again. None: neither good nor bad."""
    kind = "" if good is None else " good" if good else " bad"
    return f'<p class="verdict{kind}">{escape(sentence)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; without a head the first column is the head of its row."""
    parts = ['<div class="scroll"><table>']
    if head:
        parts.append("<tr>" + "".join(f'<th scope="col">{escape(text)}</th>' for text in head) + "</tr>")
    for row in rows:
        cells = [f"<td>{escape(text)}</td>" for text in row]
        if not head:
            cells[0] = f'<th scope="row">{escape(row[0])}</th>'
        parts.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*parts, "</table></div>"])


def page(title: str, parts: Iterable[str]) -> str:
    """One HTML file of these elements."""
    head = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>"
    )
    return "\n".join([head, *parts, "</body>", "</html>", ""])


# -- text ----------------------------------------------------------------------------------------


def columns(values: Sequence[float], line: float | None, height: int = 8, *, plain: bool = False) -> list[str]:
    """One text column for each value, as rows from the top; `line` is seen in the columns that don't reach it.

    Block characters, or ASCII if `plain`. The highest of values and line is as high as the picture.
    """
    highest = max([*values, line or 0.0], default=0.0) or 1.0
    at = None if line is None else min(height - 1, int(line / highest * height))
    rows = []
    for row in range(height - 1, -1, -1):
        cells = [_cell(value / highest * height - row, first=row == 0, plain=plain) for value in values]
        if row == at:
            cells = [("-" if plain else "─") if cell == " " else cell for cell in cells]
        rows.append("".join(cells))
    return rows


def _cell(filled: float, *, first: bool, plain: bool) -> str:
    """A character of which `filled` (0 to 1) is covered; the lowest row shows anything above zero."""
    if plain:
        return "#" if filled >= 0.5 else "." if first and filled > 0 else " "
    eighths = min(8, max(0, round(filled * 8)))
    return _BLOCKS[1 if first and filled > 0 and not eighths else eighths]
