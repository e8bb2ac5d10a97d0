"""A plan as one HTML page with charts."""

from __future__ import annotations

from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING

from apiflux_grpc import charts
from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.units import SECOND, counted
from apiflux_grpc.plan.bounds import meeting, only
from apiflux_grpc.plan.figures import KEY_HEAD, LIMIT_HEAD, figures, key_rows, limit_rows, per_second, title_of

if TYPE_CHECKING:
    from apiflux_grpc.plan.plan import Plan
    from apiflux_grpc.plan.record import Run


def to_html(plan: Plan) -> str:
    """One page: the figures, the keys and the charts."""
    title = f"apiflux plan: {title_of(plan)}"
    parts = [charts.table((), figures(plan))]
    parts += [f"<p>Note: {escape(note)}.</p>" for note in plan.question.notes]
    if plan.limits:
        parts += ["<h2>Limits</h2>", charts.table(LIMIT_HEAD, limit_rows(plan))]
    parts += [charts.svg(chart) for chart in charts_of(plan)]
    parts += ["<h2>Keys</h2>", charts.table(KEY_HEAD, key_rows(plan.keys))]
    return charts.page(title, parts)


def charts_of(plan: Plan) -> list[charts.Chart]:
    """Calls a second, each key's window, the batches if there are several, and the results with one more key."""
    scale, unit = charts.time_unit(plan.makespan / SECOND)
    end = plan.makespan / SECOND / scale
    bins = 120
    rates = per_second(plan, bins)
    sent = [(place * end / bins, rate) for place, rate in enumerate(rates)] + [(end, rates[-1])]
    level = [] if plan.capacity is None else [charts.Line(f"steady capacity, {plan.capacity:,.1f}", plan.capacity)]
    series = [charts.Series("sent", sent, step=True, area=True)]
    made = [charts.Chart("Calls a second", unit, "calls a second", series, level, end)]
    windows = [
        charts.Series(key.label, _window(plan, place, scale), step=True)
        for place, key in enumerate(plan.keys[: charts.DISTINCT])
        if key.limits
    ]
    if windows:
        which = "each key" if len(plan.keys) <= charts.DISTINCT else f"the first {charts.DISTINCT} keys"
        about = f"Sent within the longest window of {which}"
        made.append(charts.Chart(about, unit, "% of the limit", windows, [charts.Line("limit", 100)], end))
    if len(plan.run.batches) > 1:
        made.append(_batches(plan))
    done = [
        charts.Series(counted(len(plan.keys), "key"), _done(plan.run, scale)),
        charts.Series("one more key", _done(plan.more, scale)),
    ]
    later = max(plan.makespan, plan.more.ended) / SECOND / scale
    made.append(charts.Chart("Results", unit, "results", done, x_end=later))
    return made


def _window(plan: Plan, place: int, scale: float) -> list[tuple[float, float]]:
    """How full the key's longest window is over time, in percent; of several the one that was the fullest."""
    pool, told = plan.question.pool, plan.keys[place].limits
    windows = [limit for limit in pool.keys[place].limits if limit.kind is Kind.WINDOW]
    limit, _ = max(zip(windows, told, strict=True), key=lambda pair: (pair[0].per, pair[1].most / pair[0].max))
    sends = only(plan.run.sends[place], meeting(limit, classes_of(pool)))
    sums = None if limit.counts is Counts.CALLS else [*accumulate(sends.costs, initial=0)]
    counts = charts.counted(sends.taken, plan.makespan, limit.per, sums)
    return [(at / SECOND / scale, 100 * count / limit.max) for at, count in counts]


def _batches(plan: Plan) -> charts.Chart:
    """After how long the batches had their first and their last result: the steeper the last, the fairer."""
    batches = plan.run.batches
    scale, unit = charts.time_unit(max(batch.last - batch.at for batch in batches) / SECOND)
    first = charts.spread((batch.first - batch.at) / SECOND / scale for batch in batches)
    last = charts.spread((batch.last - batch.at) / SECOND / scale for batch in batches)
    series = [charts.Series("first result", first, step=True), charts.Series("last result", last, step=True)]
    return charts.Chart("How long the batches took", f"{unit} since it came", "% of the batches", series)


def _done(run: Run, scale: float) -> list[tuple[float, float]]:
    """Results over time."""
    ends = sorted(at for sends in run.sends for at in sends.answered)
    return [(at / SECOND / scale, count) for at, count in charts.counted(ends, run.ended)]
