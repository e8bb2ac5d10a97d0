"""Charts: series of (x, y) as SVG in a page of its own, and columns of numbers as text for a terminal.

Rule: pure functions from numbers to text. A page is one file that loads nothing, and follows the reader's choice of
light or dark. Series differ by colour and by dash, so that no one has to tell colours apart.

Not known here: what the numbers mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH: Final = 720
HEIGHT: Final = 280
_LEFT, _RIGHT, _BOTTOM = 72, 16, 44
_TITLE, _LEGEND_ROW = 26, 20
_LETTER: Final = 7.0  # a letter's width at the size of the legend, a little generous
_DASHES: Final = ("", "7 4", "2 3", "10 3 2 3", "4 2", "12 5")
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"

STYLE: Final = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --soft: #59636e; --grid: #dde2e7;
  --s0: #0b62c4; --s1: #b35900; --s2: #1a7f37; --s3: #8250df; --s4: #b3122f; --s5: #0f766e; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9aa4af; --grid: #2d333b;
  --s0: #6cb6ff; --s1: #f0a04b; --s2: #57d17a; --s3: #c297ff; --s4: #ff8b8b; --s5: #4fd1c5; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 760px; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--grid); padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top;
  white-space: pre-line; }
th { color: var(--soft); font-weight: 600; }
svg { display: block; height: auto; margin: 1.5rem 0; width: 100%; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .title { fill: var(--text); font-size: 14px; font-weight: 600; }
svg .grid { stroke: var(--grid); }
svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke: var(--soft); stroke-dasharray: 6 4; stroke-width: 1.5; }
svg .series { fill: none; stroke-linejoin: round; stroke-width: 2; }
svg .area { opacity: .16; stroke: none; }
""".strip()


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
    """Both axes begin at zero; nothing lies below. `x_end`: where the x axis ends; None: at the last point."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    lines: Sequence[Line] = ()
    x_end: float | None = None


def ticks(top: float, count: int = 5) -> list[float]:
    """About `count` round steps from 0; the last is at or above `top`."""
    if not top > 0:
        return [0.0, 1.0]
    raw = top / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return [step * place for place in range(math.ceil(top / step * 0.999999) + 1)]


def number(value: float, step: float) -> str:
    """A tick's number, with as many decimals as its step needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{decimals}f}"


# -- SVG -----------------------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """The chart as one <svg> element; its looks are in STYLE."""
    legend, top = _legend(chart)
    plot = _Plot(chart, top + 8)
    body = [
        f"<title>{escape(chart.title)}</title>",
        f'<text class="title" x="0" y="16">{escape(chart.title)}</text>',
        *legend,
        *plot.grid(chart),
        *(part for place, series in enumerate(chart.series) for part in plot.series(series, place)),
        *(plot.line(line) for line in chart.lines),
    ]
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
    return "\n".join([head, *body, "</svg>"])


class _Plot:
    """Where values lie in the picture."""

    def __init__(self, chart: Chart, top: float) -> None:
        points = [point for series in chart.series for point in series.points]
        x_end = max((x for x, _ in points), default=1.0) if chart.x_end is None else chart.x_end
        highest = max([y for _, y in points] + [line.y for line in chart.lines], default=1.0)
        self.x_end = x_end if x_end > 0 else 1.0
        self.y_ticks = ticks(highest)
        self.top, self.bottom, self.right = top, HEIGHT - _BOTTOM, WIDTH - _RIGHT

    def x(self, value: float) -> float:
        return round(_LEFT + (self.right - _LEFT) * min(value / self.x_end, 1.0), 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * value / self.y_ticks[-1], 1)

    def grid(self, chart: Chart) -> list[str]:
        parts = []
        step = self.y_ticks[1]
        for value in self.y_ticks:
            y = self.y(value)
            kind = "grid" if value else "axis"
            parts.append(f'<line class="{kind}" x1="{_LEFT}" x2="{self.right}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{number(value, step)}</text>')
        across = [value for value in ticks(self.x_end, 8) if value <= self.x_end * 1.0001]
        step = across[1] if len(across) > 1 else self.x_end
        for value in across:
            x = self.x(value)
            parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{self.bottom}" y2="{self.bottom + 4}"/>')
            parts.append(f'<text x="{x}" y="{self.bottom + 18}" text-anchor="middle">{number(value, step)}</text>')
        parts.append(f'<text x="{self.right}" y="{HEIGHT - 6}" text-anchor="end">{escape(chart.x_label)}</text>')
        middle = (self.top + self.bottom) / 2
        turned = f'transform="rotate(-90 12 {middle})" x="12" y="{middle}" text-anchor="middle"'
        parts.append(f"<text {turned}>{escape(chart.y_label)}</text>")
        return parts

    def series(self, series: Series, place: int) -> list[str]:
        if not series.points:
            return []
        path = self._path(series)
        parts = []
        if series.area:
            first, last = self.x(series.points[0][0]), self.x(series.points[-1][0])
            closed = f"{path} L{last} {self.bottom} L{first} {self.bottom} Z"
            parts.append(f'<path class="area" style="fill: {_colour(place)}" d="{closed}"/>')
        parts.append(f'<path class="series" {_stroke(place)} d="{path}"/>')
        return parts

    def _path(self, series: Series) -> str:
        """The points as a path; those that would be drawn on top of the one before are left out."""
        before = (self.x(series.points[0][0]), self.y(series.points[0][1]))
        parts = [f"M{before[0]} {before[1]}"]
        for x, y in series.points[1:]:
            at = (self.x(x), self.y(y))
            if at == before:
                continue
            parts.append(f"H{at[0]} V{at[1]}" if series.step else f"L{at[0]} {at[1]}")
            before = at
        return " ".join(parts)

    def line(self, line: Line) -> str:
        y = self.y(line.y)
        return f'<line class="line" x1="{_LEFT}" x2="{self.right}" y1="{y}" y2="{y}"/>'


def _legend(chart: Chart) -> tuple[list[str], int]:
    """The legend under the title, in as many rows as it takes, and where it ends."""
    strokes = [(f'class="series" {_stroke(place)}', series.name) for place, series in enumerate(chart.series)]
    strokes += [('class="line"', line.name) for line in chart.lines]
    parts = []
    x, row = 0.0, _TITLE + 12
    for stroke, name in strokes:
        wide = 30 + _LETTER * len(name) + 18
        if x and x + wide > WIDTH:
            x, row = 0.0, row + _LEGEND_ROW
        parts.append(f'<line {stroke} x1="{x:g}" x2="{x + 24:g}" y1="{row - 4}" y2="{row - 4}"/>')
        parts.append(f'<text x="{x + 30:g}" y="{row}">{escape(name)}</text>')
        x += wide
    return parts, row + 4


def _colour(place: int) -> str:
    return f"var(--s{place % len(_DASHES)})"


def _stroke(place: int) -> str:
    dash = _DASHES[place % len(_DASHES)]
    dashes = f"; stroke-dasharray: {dash}" if dash else ""
    return f'style="stroke: {_colour(place)}{dashes}"'


# -- a page --------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; without a head the first column is the head of its row."""
    parts = ['<div class="wide"><table>']
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
    """One text column for each value, as rows from the top; `line` shows where no column covers it.

    Block characters, or ASCII where `plain`. The highest of values and line is as high as the picture.
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
