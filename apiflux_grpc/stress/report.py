"""What a stress run measured, and how it is shown: a table for a terminal, a page with charts.

Rule: every figure comes from this run's results, or from the judge's report, and says which. What is kept of a result
is numbers in arrays, for there are 200,000 in a full run. A run that was cut short shows what there is.

Calls are counted by when the last attempt of each got its permit, by the server's clock; earlier attempts of a call
aren't told to the client. Only the judge knows what arrived.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final

from rich.table import Table

from apiflux_grpc import charts as report
from apiflux_grpc.judge.durations import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from apiflux_grpc.judge.report import Report
    from apiflux_grpc.v1 import apiflux_pb2 as pb

NS: Final = 1_000_000_000


def _floats() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Request:
    """One request: when each of its results came, and when it ended, in seconds since it was sent; None: it hasn't."""

    came: array[float] = field(default_factory=_floats)
    ended: float | None = None


@dataclass(slots=True)
class Measured:
    """What the requests, of `calls` calls each, brought; times in seconds.

    `limits` are (max, per in ns) of each key by its label, as the server tells them; `sent` the instants (ns, the
    server's clock) of each key's calls.
    """

    requests: list[Request]
    calls: int
    limits: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    elapsed: float = 0.0
    results: int = 0
    succeeded: int = 0
    drawn_429: int = 0
    eta: float | None = None
    sent: dict[str, array[int]] = field(default_factory=dict)
    latencies: array[float] = field(default_factory=_floats)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return len(self.requests) * self.calls

    @property
    def first(self) -> list[float]:
        """How long each request waited for its first result."""
        return [request.came[0] for request in self.requests if request.came]

    @property
    def durations(self) -> list[float]:
        """How long each request took that has ended."""
        return [request.ended for request in self.requests if request.ended is not None]

    def add(self, result: pb.CallResult) -> None:
        """Take a result in."""
        self.results += 1
        status = result.response.status_code
        self.succeeded += 200 <= status < 300
        self.drawn_429 += status == 429
        if result.attempts:
            latency = result.latency.ToNanoseconds()
            self.latencies.append(latency / NS)
            sent = self.sent.setdefault(result.key_label, array("q"))
            sent.append(result.completed_at.ToNanoseconds() - latency)


def title_of(measured: Measured) -> str:
    """What was asked for."""
    return f"{len(measured.requests):,} concurrent requests of {measured.calls:,} calls"


def table(measured: Measured) -> Table:
    """The figures, for a terminal."""
    made = Table(title=title_of(measured))
    made.add_column("figure")
    made.add_column("value", justify="right")
    times = [(f"{name} p50 / p99", _p50_p99(values)) for name, values in _times(measured)]
    for row in (*_counts(measured), *times, *_by_key(measured)):
        made.add_row(*row)
    return made


def _counts(measured: Measured) -> list[tuple[str, str]]:
    rows = [
        ("requests", f"{len(measured.durations)}"),
        ("calls", f"{measured.results:,} of {measured.total:,}"),
        ("succeeded", f"{measured.succeeded:,}"),
        ("elapsed", f"{measured.elapsed:,.2f} s"),
        ("calls a second", f"{measured.results / max(measured.elapsed, 1e-9):,.0f}"),
        ("429s drawn", f"{measured.drawn_429:,}"),
    ]
    return rows + [(f"requests failed: {reason}", f"{count:,}") for reason, count in sorted(measured.errors.items())]


def _by_key(measured: Measured) -> list[tuple[str, str]]:
    return [(f"calls with {label}", f"{len(sent):,}") for label, sent in sorted(measured.sent.items())]


def _times(measured: Measured) -> list[tuple[str, Sequence[float]]]:
    return [("first result", measured.first), ("request", measured.durations), ("call latency", measured.latencies)]


def _p50_p99(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{report.quantile(values, 0.5) * 1000:.0f} / {report.quantile(values, 0.99) * 1000:.0f} ms"


def verdict(found: Report | None) -> list[str]:
    """What the judge says, a sentence each; None: there was none."""
    if found is None:
        return ["no judge was asked: only the upstream knows whether a limit was exceeded"]
    if found.violations:
        return [f"violation: {violation}" for violation in found.violations]
    worst = f"worst window at {found.worst:.3f} of its limit"
    return [f"the judge: no violation; {found.accepted} calls, {worst}, {found.rejected} rejected"]


# -- the page ------------------------------------------------------------------------------------

TIMES_HEAD: Final = ("seconds", "p50", "p90", "p99", "longest")
JUDGE_HEAD: Final = ("key", "arrivals", "accepted", "rejected", "most in any window")


def to_html(measured: Measured, found: Report | None) -> str:
    """One page: the verdict, the figures and the charts. `found` None: there was no judge."""
    parts = [f"<p><strong>{escape(sentence)}</strong></p>" for sentence in verdict(found)]
    if measured.results < measured.total:
        parts.append(f"<p>{measured.total - measured.results:,} of {measured.total:,} calls have no result.</p>")
    began = ("began", f"{measured.began:%Y-%m-%d %H:%M:%S} UTC")
    parts.append(report.table((), [began, *_counts(measured), *_by_key(measured)]))
    if times := [*_times_rows(measured)]:
        parts += ["<h2>Times</h2>", report.table(TIMES_HEAD, times)]
    parts += [report.svg(chart) for chart in charts(measured)]
    if found is not None:
        parts += ["<h2>The judge</h2>", report.table(JUDGE_HEAD, _judge_rows(found))]
    return report.page(f"apiflux stress: {title_of(measured)}", parts)


def _times_rows(measured: Measured) -> Iterable[tuple[str, ...]]:
    for name, values in _times(measured):
        if values:
            yield name, *(f"{report.quantile(values, part):,.3f}" for part in (0.5, 0.9, 0.99, 1))


def _judge_rows(found: Report) -> Iterable[tuple[str, ...]]:
    for key in found.keys:
        most = (f"{each.most} of {each.max} in {format_ns(each.per_ns)} ({each.ratio:.1%})" for each in key.limits)
        yield key.label, f"{key.arrivals:,}", f"{key.accepted:,}", f"{key.rejected:,}", "\n".join(most)


def charts(measured: Measured) -> list[report.Chart]:
    """Calls against the limit, the keys, the wait for the first result, latencies, and how the requests fared."""
    made = [*_calls(measured)]
    if measured.first:
        waits = [report.Series("first result", report.spread(measured.first), step=True)]
        made.append(report.Chart("Time to first result", "seconds since it was sent", "% of the requests", waits))
    if measured.latencies:
        milliseconds = report.spread(latency * 1000 for latency in measured.latencies)
        series = [report.Series("latency", milliseconds, step=True)]
        levels = [
            report.Line(f"p{part}: {report.quantile(measured.latencies, part / 100) * 1000:.0f} ms", part)
            for part in (50, 90, 99)
        ]
        made.append(report.Chart("Latency of the calls", "milliseconds at most", "% of the calls", series, levels))
    if measured.first:
        made.append(_progress(measured))
    if measured.durations:
        scale, unit = report.time_unit(max(measured.durations))
        ends = report.spread(duration / scale for duration in measured.durations)
        series = [report.Series("ended", ends, step=True)]
        made.append(report.Chart("When the requests ended", f"{unit} since it was sent", "% of the requests", series))
    return made


def _calls(measured: Measured) -> Iterable[report.Chart]:
    """Calls a second over the longest window, and each key's share of its own limit."""
    if not measured.sent:
        return
    start = min(map(min, measured.sent.values()))
    by_key = {label: sorted(at - start for at in sent) for label, sent in sorted(measured.sent.items())}
    together = sorted(at for sent in by_key.values() for at in sent)
    end = together[-1]
    scale, unit = report.time_unit(end / NS)
    longest = {label: max(limits, key=lambda limit: limit[1]) for label, limits in measured.limits.items() if limits}

    per = max((limit[1] for limit in longest.values()), default=NS)
    rates = [(at / NS / scale, count * NS / per) for at, count in report.counted(together, end, per)]
    levels = []
    if longest and len(longest) == len(measured.limits):  # else some key has no limit
        allowed = sum(min(most * NS / each for most, each in limits) for limits in measured.limits.values())
        levels.append(report.Line(f"what the keys' limits allow in the long run, {allowed:,.1f}", allowed))
    title = f"Calls a second, over the last {format_ns(per)}"
    series = [report.Series("calls", rates, step=True, area=True)]
    yield report.Chart(title, unit, "calls a second", series, levels, end / NS / scale)

    shown = [label for label in by_key if label in longest][: report.DISTINCT]
    uses = []
    for label in shown:
        most, per = longest[label]
        counts = report.counted(by_key[label], end, per)
        uses.append(report.Series(label, [(at / NS / scale, 100 * count / most) for at, count in counts], step=True))
    if uses:
        which = "each key" if len(shown) == len(by_key) else f"the first {len(shown)} keys"
        title = f"Use of the longest window of {which}"
        yield report.Chart(title, unit, "% of the limit", uses, [report.Line("limit", 100)], end / NS / scale)


def _progress(measured: Measured) -> report.Chart:
    """How far the requests were at each instant: furthest, in the middle, and least."""
    end = max(request.came[-1] for request in measured.requests if request.came)
    scale, unit = report.time_unit(end)
    names = ("the furthest batch", "the middle one", "the last")
    points: list[list[tuple[float, float]]] = [[] for _ in names]
    for sample in range(report.SAMPLES + 1):
        at = end * sample / report.SAMPLES
        done = sorted(100 * bisect_right(request.came, at) / measured.calls for request in measured.requests)
        for series, share in zip(points, (done[-1], done[len(done) // 2], done[0]), strict=True):
            series.append((at / scale, share))
    drawn = [report.Series(name, of, step=True) for name, of in zip(names, points, strict=True)]
    return report.Chart("Fairness: how far the batches are", f"{unit} since it was sent", "% of its calls", drawn)
