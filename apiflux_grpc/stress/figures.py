"""What a stress run measured, and its figures as texts.

Rule: every figure comes from this run's results, or from the judge's report, and says which. Of a result only numbers
are kept, in arrays: a full run has 200,000 results. A run that was cut short shows what it has.

A call is counted at the time when its last attempt got its permit, by the server's clock; the server doesn't tell the
client of earlier attempts. Only the judge knows what arrived.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table

from apiflux_grpc import charts
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apiflux_grpc.judge.report import Report
    from apiflux_grpc.v1 import apiflux_pb2 as pb


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
    def least_time(self) -> float | None:
        """The seconds that the keys' limits need for this many results at least; None: some key has no limit."""
        if not self.limits or not all(self.limits.values()):
            return None
        low, high = 0, self.results * max(per for limits in self.limits.values() for _, per in limits)
        while low < high:
            at = (low + high) // 2
            allowed = sum(min(most * (at // per + 1) for most, per in limits) for limits in self.limits.values())
            low, high = (low, at) if allowed >= self.results else (at + 1, high)
        return low / SECOND

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
            self.latencies.append(latency / SECOND)
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
    took = [(f"{name} p50 / p99", _p50_p99(values)) for name, values in times(measured)]
    for row in (*counts(measured), *took, *by_key(measured)):
        made.add_row(*row)
    return made


def _p50_p99(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{charts.quantile(values, 0.5) * 1000:.0f} / {charts.quantile(values, 0.99) * 1000:.0f} ms"


def counts(measured: Measured) -> list[tuple[str, str]]:
    """How many of everything, as texts."""
    rows = [
        ("requests", f"{len(measured.durations):,}"),
        ("calls", f"{measured.results:,} of {measured.total:,}"),
        ("succeeded", f"{measured.succeeded:,}"),
        ("elapsed", f"{measured.elapsed:,.2f} s"),
        *_possible(measured),
        ("calls a second", f"{measured.results / max(measured.elapsed, 1e-9):,.0f}"),
        ("429s drawn", f"{measured.drawn_429:,}"),
    ]
    return rows + [(f"requests failed: {reason}", f"{count:,}") for reason, count in sorted(measured.errors.items())]


def _possible(measured: Measured) -> list[tuple[str, str]]:
    least = measured.least_time
    if not least or not measured.elapsed:
        return []
    share = min(1.0, least / measured.elapsed)
    return [("possible at best", f"{least:,.2f} s by the keys' limits ({share:.0%} used)")]


def by_key(measured: Measured) -> list[tuple[str, str]]:
    """Calls of each key, as texts."""
    return [(f"calls with {label}", f"{len(sent):,}") for label, sent in sorted(measured.sent.items())]


def times(measured: Measured) -> list[tuple[str, Sequence[float]]]:
    """What is told as percentiles, in seconds."""
    return [("first result", measured.first), ("request", measured.durations), ("call latency", measured.latencies)]


def verdict(found: Report | None) -> list[str]:
    """What the judge says, a sentence each; None: there was none."""
    if found is None:
        return ["no judge was asked: only the upstream knows whether a limit was exceeded"]
    if found.violations:
        return [f"violation: {violation}" for violation in found.violations]
    worst = f"worst window at {found.worst:.3f} of its limit"
    return [f"the judge: no violation; {found.accepted:,} calls, {worst}, {found.rejected:,} rejected"]
