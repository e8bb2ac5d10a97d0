"""A stress run as one HTML page: the verdict, the figures and charts."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from apiflux_grpc import charts
from apiflux_grpc.core.units import SECOND, format_duration
from apiflux_grpc.stress.figures import Measured, by_key, counts, times, title_of, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.judge.report import Report


TIMES_HEAD: Final = ("seconds", "p50", "p90", "p99", "longest")
JUDGE_HEAD: Final = ("key", "arrivals", "accepted", "rejected", "most in any window")


def to_html(measured: Measured, found: Report | None) -> str:
    """One page: the verdict, the figures and the charts. `found` None: there was no judge."""
    parts = [charts.verdict(sentence, None if found is None else found.ok) for sentence in verdict(found)]
    if measured.results < measured.total:
        lacking = f"{measured.total - measured.results:,} of {measured.total:,} calls have no result."
        parts.append(charts.verdict(lacking, False))
    began = ("began", f"{measured.began:%Y-%m-%d %H:%M:%S} UTC")
    parts.append(charts.table((), [began, *counts(measured), *by_key(measured)]))
    if rows := [*_times_rows(measured)]:
        parts += ["<h2>Times</h2>", charts.table(TIMES_HEAD, rows)]
    parts += [charts.svg(chart) for chart in charts_of(measured)]
    if found is not None:
        parts += ["<h2>The judge</h2>", charts.table(JUDGE_HEAD, _judge_rows(found))]
    return charts.page(f"apiflux stress: {title_of(measured)}", parts)


def _times_rows(measured: Measured) -> Iterable[tuple[str, ...]]:
    for name, values in times(measured):
        if values:
            yield name, *(f"{charts.quantile(values, part):,.3f}" for part in (0.5, 0.9, 0.99, 1))


def _judge_rows(found: Report) -> Iterable[tuple[str, ...]]:
    for key in found.keys:
        most = (
            f"{each.most} of {each.max} in {format_duration(each.per_ns)} ({each.ratio:.1%})" for each in key.limits
        )
        yield key.label, f"{key.arrivals:,}", f"{key.accepted:,}", f"{key.rejected:,}", "\n".join(most)


def charts_of(measured: Measured) -> list[charts.Chart]:
    """Calls against the limit, the keys, the wait for the first result, latencies, and how the requests fared."""
    made = [*_calls(measured)]
    if measured.first:
        waits = [charts.Series("first result", charts.spread(measured.first), step=True)]
        about = "How long the requests waited for the first of their results, when all were sent at once."
        made.append(
            charts.Chart("Time to first result", "seconds since it was sent", "% of the requests", waits, about=about)
        )
    if measured.latencies:
        milliseconds = charts.spread(latency * 1000 for latency in measured.latencies)
        series = [charts.Series("latency", milliseconds, step=True)]
        levels = [
            charts.Line(f"p{part}: {charts.quantile(measured.latencies, part / 100) * 1000:.0f} ms", part)
            for part in (50, 90, 99)
        ]
        about = "From sending a call to the end of its answer. Waiting for a limit isn't part of it."
        made.append(
            charts.Chart("Latency of the calls", "milliseconds at most", "% of the calls", series, levels, about=about)
        )
    if measured.first:
        made.append(_progress(measured))
    if measured.durations:
        scale, unit = charts.time_unit(max(measured.durations))
        ends = charts.spread(duration / scale for duration in measured.durations)
        series = [charts.Series("ended", ends, step=True)]
        about = "They share the keys, so most of them end late: none is done at the cost of the others."
        made.append(
            charts.Chart(
                "When the requests ended", f"{unit} since it was sent", "% of the requests", series, about=about
            )
        )
    return made


def _calls(measured: Measured) -> Iterable[charts.Chart]:
    """Calls a second over the longest window, and each key's share of its own limit."""
    if not measured.sent:
        return
    start = min(map(min, measured.sent.values()))
    by_key = {label: sorted(at - start for at in sent) for label, sent in sorted(measured.sent.items())}
    together = sorted(at for sent in by_key.values() for at in sent)
    end = together[-1]
    scale, unit = charts.time_unit(end / SECOND)
    longest = {label: max(limits, key=lambda limit: limit[1]) for label, limits in measured.limits.items() if limits}

    per = max((limit[1] for limit in longest.values()), default=SECOND)
    rates = [(at / SECOND / scale, count * SECOND / per) for at, count in charts.counted(together, end, per)]
    levels = []
    if longest and len(longest) == len(measured.limits):  # else some key has no limit
        allowed = sum(min(most * SECOND / each for most, each in limits) for limits in measured.limits.values())
        levels.append(charts.Line(f"limits allow {allowed:,.1f}", allowed))
    title = f"Calls a second, over the last {format_duration(per)}"
    series = [charts.Series("calls", rates, step=True, area=True)]
    about = (
        "The dashed line is what the limits of all keys allow in the long run. Where calls went out together, they "
        f"leave the window together, {format_duration(per)} later: a dip there is the moment until others have taken "
        "their places."
    )
    yield charts.Chart(title, unit, "calls a second", series, levels, end / SECOND / scale, about)

    shown = [label for label in by_key if label in longest][: charts.DISTINCT]
    uses = []
    for label in shown:
        most, per = longest[label]
        counts = charts.counted(by_key[label], end, per)
        uses.append(
            charts.Series(label, [(at / SECOND / scale, 100 * count / most) for at, count in counts], step=True)
        )
    if uses:
        which = "each key" if len(shown) == len(by_key) else f"the first {len(shown)} keys"
        title = f"Use of the longest window of {which}"
        about = (
            "At 100 % a key may send nothing until its oldest call leaves the window. Never above it: that is the "
            "promise. Keys whose lines lie on each other are used alike."
        )
        yield charts.Chart(
            title, unit, "% of the limit", uses, [charts.Line("limit", 100)], end / SECOND / scale, about
        )


def _progress(measured: Measured) -> charts.Chart:
    """How far the requests were at each instant: furthest, in the middle, and least."""
    end = max(request.came[-1] for request in measured.requests if request.came)
    scale, unit = charts.time_unit(end)
    names = ("the furthest batch", "the middle one", "the last")
    points: list[list[tuple[float, float]]] = [[] for _ in names]
    for sample in range(charts.SAMPLES + 1):
        at = end * sample / charts.SAMPLES
        done = sorted(100 * bisect_right(request.came, at) / measured.calls for request in measured.requests)
        for series, share in zip(points, (done[-1], done[len(done) // 2], done[0]), strict=True):
            series.append((at / scale, share))
    drawn = [charts.Series(name, of, step=True) for name, of in zip(names, points, strict=True)]
    about = (
        "At each instant: the batch with the largest share of its results, the one in the middle, and the one with the "
        "smallest. The nearer the last two, the fairer. The first batches to come find every key free, so the furthest "
        "may be done at once."
    )
    return charts.Chart(
        "Fairness: how far the batches are", f"{unit} since it was sent", "% of its calls", drawn, about=about
    )
