"""The judge's report: what arrived at each key, the fullest window of each limit, and what the client did wrong.

The rule: plain figures and sentences. A report goes through JSON and back without a loss, and shows labels, never the
secret of a key. How the figures come about is in ledger.py.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from apiflux_grpc.core.units import counted, format_duration
from apiflux_grpc.judge.limits import Limit


class Repeat(NamedTuple):
    """A call that arrived more than once, with the attempt that each of its arrivals claimed to be."""

    call_id: str
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LimitReport:
    """How full a key's own arrivals, accepted or rejected, made one of its limits at worst.

    `most` counts what `counts` says: in any window, or what a bucket would have needed as its `depth`.
    """

    max: int
    per_ns: int
    most: int
    counts: str = "calls"
    kind: str = "sliding"
    depth: int = 0

    @classmethod
    def of(cls, limit: Limit, most: int) -> "LimitReport":
        return cls(limit.max, limit.per_ns, most, limit.counts, limit.kind, limit.depth)

    @property
    def allowed(self) -> int:
        """What a key may spend at once."""
        return self.depth if self.kind == "bucket" else self.max

    def words(self, cost: str = "cost") -> str:
        """As people say it: `9 of 10 in 5s (90.0%)`, `700 of 1000 tokens in 60s (70.0%)` where cost is in tokens.

        Without commas, so that a row of the report fits into 80 columns.
        """
        unit = "" if self.counts == "calls" else f" {cost}"
        of = f"{self.max}{unit} in" if self.kind != "bucket" else f"{self.depth}{unit} at once, {self.max} per"
        return f"{self.most} of {of} {format_duration(self.per_ns)} ({self.ratio:.1%})"

    @property
    def ratio(self) -> float:
        """`most` as a share of what is allowed: above 1.0 the limit was broken."""
        return self.most / self.allowed

    def violation(self) -> str:
        """Plain words for a limit that was broken."""
        what = "arrivals" if self.counts == "calls" else "in cost"
        if self.kind == "bucket":
            return f"{self.most:,} {what} at once, its bucket holds {self.depth:,}."
        return f"{self.most:,} {what} within {format_duration(self.per_ns)}, its limit is {self.max:,}."


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What arrived with one configured key. `faults` counts by kind what the judge did to accepted arrivals.

    `others` are the second user's calls, which nothing else here counts; `rejected_for_others` are those of `rejected`
    that would have been accepted without them.
    """

    label: str
    accepted: int
    rejected: int
    limits: tuple[LimitReport, ...]
    faults: Mapping[str, int] = field(default_factory=dict)
    others: int = 0
    rejected_for_others: int = 0

    @property
    def arrivals(self) -> int:
        return self.accepted + self.rejected


@dataclass(frozen=True, slots=True)
class Report:
    """What arrived since the last reset. `rejected` were answered 429, `unknown_arrivals` 401.

    `seen_twice` counts the calls of which more than one arrival was accepted. `resent` counts those of them that came
    again though the arrival before had no fault, or as an attempt that had arrived already; the others are retries
    that the judge gave cause for. `repeats` are examples, of `resent` calls if there are any.
    `refused` counts by status the accepted arrivals that the API which the judge speaks would refuse for what they ask.
    `max_lag_ns` is how late the judge's own loop ran at worst: stamps are no better than that.
    """

    keys: tuple[KeyReport, ...]
    unknown_arrivals: int = 0
    unknown_keys: int = 0
    seen_twice: int = 0
    resent: int = 0
    repeats: tuple[Repeat, ...] = ()
    max_lag_ns: int = 0
    refused: Mapping[int, int] = field(default_factory=dict)

    @property
    def arrivals(self) -> int:
        return self.accepted + self.rejected + self.unknown_arrivals

    @property
    def accepted(self) -> int:
        return sum(key.accepted for key in self.keys)

    @property
    def rejected(self) -> int:
        return sum(key.rejected for key in self.keys)

    @property
    def others(self) -> int:
        """The second user's calls."""
        return sum(key.others for key in self.keys)

    @property
    def rejected_for_others(self) -> int:
        """Those of `rejected` that would have been accepted without others."""
        return sum(key.rejected_for_others for key in self.keys)

    @property
    def faults(self) -> dict[str, int]:
        """The injected faults by kind. A whole request that was accepted and has none was answered 200."""
        return dict(sum((Counter(key.faults) for key in self.keys), Counter[str]()))

    @property
    def worst(self) -> float:
        """The highest ratio over all keys and limits; 0.0 without limits."""
        return max((limit.ratio for key in self.keys for limit in key.limits), default=0.0)

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def violations(self) -> list[str]:
        """What the client did wrong, one plain sentence each."""
        found = [
            f"{key.label}: {limit.violation()}"
            for key in self.keys
            for limit in key.limits
            if limit.most > limit.allowed
        ]
        if self.resent:
            found.append(f"{counted(self.resent, 'call')} arrived more than once: {_examples(self)}.")
        if self.unknown_arrivals:
            arrivals, keys = counted(self.unknown_arrivals, "arrival"), counted(self.unknown_keys, "unknown key")
            found.append(f"{arrivals} with {keys}.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the derived figures."""
        return {
            "ok": self.ok,
            "violations": self.violations,
            "arrivals": self.arrivals,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "others": self.others,
            "rejected_for_others": self.rejected_for_others,
            "unknown_arrivals": self.unknown_arrivals,
            "unknown_keys": self.unknown_keys,
            "faults": self.faults,
            "refused": {str(status): count for status, count in self.refused.items()},
            "seen_twice": self.seen_twice,
            "resent": self.resent,
            "repeats": [{"call_id": repeat.call_id, "attempts": [*repeat.attempts]} for repeat in self.repeats],
            "worst": self.worst,
            "max_lag_ns": self.max_lag_ns,
            "keys": [
                {
                    "label": key.label,
                    "arrivals": key.arrivals,
                    "accepted": key.accepted,
                    "rejected": key.rejected,
                    "faults": {**key.faults},
                    "others": key.others,
                    "rejected_for_others": key.rejected_for_others,
                    "limits": [{**asdict(limit), "ratio": limit.ratio} for limit in key.limits],
                }
                for key in self.keys
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Report":
        """The report that `to_json` wrote. Raises KeyError if a field is missing."""
        return cls(
            keys=tuple(
                KeyReport(
                    key["label"],
                    key["accepted"],
                    key["rejected"],
                    tuple(
                        LimitReport(**{name: value for name, value in each.items() if name != "ratio"})
                        for each in key["limits"]
                    ),
                    key["faults"],
                    key["others"],
                    key["rejected_for_others"],
                )
                for key in data["keys"]
            ),
            unknown_arrivals=data["unknown_arrivals"],
            unknown_keys=data["unknown_keys"],
            seen_twice=data["seen_twice"],
            resent=data["resent"],
            repeats=tuple(Repeat(each["call_id"], tuple(each["attempts"])) for each in data["repeats"]),
            max_lag_ns=data["max_lag_ns"],
            refused={int(status): count for status, count in data["refused"].items()},
        )


def _examples(report: Report) -> str:
    return ", ".join(
        f"{repeat.call_id!r} (attempts {', '.join(map(str, repeat.attempts))})" for repeat in report.repeats
    )


@dataclass(frozen=True, slots=True)
class Live:
    """A cheap look at a run: `keys` maps labels to (accepted, rejected); `in_flight` wait for their answer.

    `most_in_flight` did at once, with all keys together. A call that hangs is in flight until its client goes.
    """

    arrivals: int
    unknown_arrivals: int
    in_flight: int
    keys: Mapping[str, tuple[int, int]]
    most_in_flight: int = 0
