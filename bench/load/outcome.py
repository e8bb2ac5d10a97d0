"""What came of one profile, and whether that is what it should come to.

Rule: what ghz, our own streams, the samples and the judge say is kept as it was said; `faults` alone decides. All of
it is pure: no process and no clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

from apiflux_grpc.charts import quantile
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.report import Report
from bench.load.profiles import Profile

PARTS: Final = (10, 25, 50, 75, 90, 95, 99)  # those that ghz tells
WARM_UP: Final = 10.0  # seconds, or a third of a run that is shorter than three of it
REFUSED: Final = "ResourceExhausted"


def percentiles(values: Sequence[float]) -> dict[int, float]:
    """The PARTS of some values; empty for none."""
    return {part: quantile(values, part / 100) for part in PARTS} if values else {}


@dataclass(frozen=True, slots=True)
class Ghz:
    """What ghz tells. `statuses` and `errors` count streams; `percentiles` (seconds) are those of the good ones."""

    count: int
    elapsed: float
    statuses: dict[str, int]
    errors: dict[str, int]
    percentiles: dict[int, float]


def read_ghz(text: str) -> Ghz:
    """ghz's JSON. Raises ValueError where it is none."""
    try:
        data = json.loads(text)
        return Ghz(
            count=data["count"],
            elapsed=data["total"] / SECOND,
            statuses=dict(data["statusCodeDistribution"]),
            errors=dict(data["errorDistribution"]),
            # null where no stream was good, and zeros for those it has no value for
            percentiles={
                each["percentage"]: each["latency"] / SECOND
                for each in data["latencyDistribution"] or ()
                if each["percentage"]
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is no report of ghz's: {error!r}") from error


@dataclass(slots=True)
class Own:
    """What our own streams saw, which ghz can't: times in seconds.

    `first` is from the request to the first result, `gaps` are those between two messages of results. `refusals`
    are the delays that the server told, None where it told none. `wrong` is what shouldn't be. `again` says, where
    refusals are expected, whether a stream was accepted at once when the load was over.
    """

    streams: int = 0
    results: int = 0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    refusals: list[float | None] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    again: bool | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at an instant: CPU seconds used so far, bytes of RSS; and the judge's arrivals so far."""

    at: float
    cpu: float
    rss: int
    arrivals: int


@dataclass(frozen=True, slots=True)
class Rate:
    """From one sample's instant, `since`, to the next: the share of one core that was used, and arrivals a second."""

    since: float
    cpu: float
    arrivals: float


def rates(samples: Sequence[Sample]) -> list[Rate]:
    """One for each two samples that follow each other."""
    return [
        Rate(
            before.at,
            (after.cpu - before.cpu) / (after.at - before.at),
            (after.arrivals - before.arrivals) / (after.at - before.at),
        )
        for before, after in pairwise(samples)
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of it. `samples` are in the order of time, at least two; `said` is what the server had to warn of."""

    profile: Profile
    ghz: Ghz
    own: Own
    samples: tuple[Sample, ...]
    report: Report
    said: str = ""

    @property
    def accepted(self) -> int:
        """The calls of all streams that the server accepted."""
        return self.ghz.statuses.get("OK", 0) * self.profile.calls + self.own.results

    @property
    def rss_growth(self) -> int:
        """Bytes, from the end of the warm-up to the last sample."""
        warm = min(WARM_UP, self.samples[-1].at / 3)
        return self.samples[-1].rss - next(sample.rss for sample in self.samples if sample.at >= warm)

    @property
    def mean(self) -> Rate:
        """Over the whole run."""
        return rates((self.samples[0], self.samples[-1]))[0]

    @property
    def fine(self) -> bool:
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What isn't as it should be, one sentence each."""
        found = [*self._streams(), *self._ours(), *self.report.violations]
        if self.report.seen_twice and not self.report.resent:
            found.append(f"The judge saw {self.report.seen_twice} calls twice, each of which has its own path.")
        if self.report.arrivals != self.accepted:
            found.append(f"{self.accepted} calls were accepted, but {self.report.arrivals} arrived at the judge.")
        if self.report.rejected:
            found.append(f"The judge rejected {self.report.rejected} calls.")
        bound = self.profile.most_growth
        if bound is not None and self.rss_growth > bound:
            found.append(f"After the warm-up the server grew by {self.rss_growth} bytes; the bound is {bound}.")
        if self.said:
            found.append(f"The server said: {self.said}")
        return found

    def _streams(self) -> list[str]:
        """What is wrong with ghz's streams."""
        expected = {"OK"} if self.profile.max_batches is None else {"OK", REFUSED}
        found = [f"None of ghz's streams ended as {name}." for name in sorted(expected - self.ghz.statuses.keys())]
        found += [
            f"{count} of ghz's streams ended as {name or 'no status'}."
            for name, count in sorted(self.ghz.statuses.items())
            if name not in expected
        ]
        if self.ghz.count != self.profile.requests or sum(self.ghz.statuses.values()) != self.ghz.count:
            found.append(f"ghz tells of {self.ghz.count} streams; it should have opened {self.profile.requests}.")
        return found

    def _ours(self) -> list[str]:
        """What is wrong with our own streams."""
        own, found = self.own, list(self.own.wrong)
        if not own.first:
            found.append("None of our own streams had a result.")
        if self.profile.max_batches is None:
            if own.refusals:
                found.append(f"{len(own.refusals)} of our own streams were refused.")
            return found
        if not own.refusals:
            found.append("None of our own streams was refused.")
        if untold := sum(not delay for delay in own.refusals):
            found.append(f"{untold} refusals had no RetryInfo that says when to come back.")
        if not own.again:
            found.append("When the load was over, the server didn't accept a stream again.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the derived figures."""
        own = asdict(self.own) | {
            "first_percentiles": percentiles(self.own.first),
            "gap_percentiles": percentiles(self.own.gaps),
        }
        return {
            "fine": self.fine,
            "faults": self.faults,
            "profile": asdict(self.profile),
            "ghz": asdict(self.ghz),
            "own": own,
            "accepted": self.accepted,
            "rss_growth": self.rss_growth,
            "samples": [asdict(sample) for sample in self.samples],
            "judge": self.report.to_json(),
        }
