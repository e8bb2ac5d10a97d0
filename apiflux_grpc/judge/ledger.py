"""What the judge knows: every arrival, and what the limits say of it.

The rule: in no half-open window (t, t+T] are more than N arrivals of one key accepted; an arrival exactly T after
another isn't in one window with it. What was rejected doesn't occupy a window, but it did arrive, so it counts in the
most arrivals that a key had in any window.

An arrival that the judge injects a fault into is accepted all the same: it did arrive, its key was good and it fitted,
so it occupies a window, whatever it was answered. So `accepted` counts it too, and its fault is told by kind besides.

Time is integer nanoseconds. Arrivals may be told late (their stamps out of order): they are judged as if they had
been told in time. Pure: no clock, no I/O; every decision receives `now`. It deliberately doesn't know HTTP, latency
or answers. A report shows labels, never the secret of a key.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from itertools import islice
from re import compile as regex
from typing import Any, Final, NamedTuple

EXAMPLES: Final = 5
NS: Final = 1_000_000_000
DURATION: Final = regex(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS}


class Limit(NamedTuple):
    """At most `max` arrivals in any half-open window of `per_ns` nanoseconds."""

    max: int
    per_ns: int


class Verdict(NamedTuple):
    """An HTTP status (200, 401 or 429) and, with 429, in how many nanoseconds there is room again."""

    status: int
    retry_after_ns: int = 0


ACCEPTED: Final = Verdict(200)
UNKNOWN_KEY: Final = Verdict(401)


class Repeat(NamedTuple):
    """A call that arrived more than once, with the attempt that each of its arrivals claimed to be."""

    call_id: str
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LimitReport:
    """The most arrivals of a key, accepted or rejected, in any window of one of its limits."""

    max: int
    per_ns: int
    most: int

    @property
    def ratio(self) -> float:
        """`most` as a share of the limit: above 1.0 the limit was broken."""
        return self.most / self.max


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What arrived with one configured key. `faults` counts by kind what the judge did to accepted arrivals."""

    label: str
    accepted: int
    rejected: int
    limits: tuple[LimitReport, ...]
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def arrivals(self) -> int:
        return self.accepted + self.rejected


@dataclass(frozen=True, slots=True)
class Report:
    """What arrived since the last reset. `rejected` were answered 429, `unknown_arrivals` 401.

    `seen_twice` counts the calls of which more than one arrival was accepted. `resent` counts those of them that came
    again though the arrival before had no fault, or as an attempt that had arrived already; the others are retries
    that the judge gave cause for. `repeats` are examples: of `resent` calls where there are any.
    `max_lag_ns` is how late the judge's own loop ran at worst: stamps are no better than that.
    """

    keys: tuple[KeyReport, ...]
    unknown_arrivals: int = 0
    unknown_keys: int = 0
    seen_twice: int = 0
    resent: int = 0
    repeats: tuple[Repeat, ...] = ()
    max_lag_ns: int = 0

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
    def faults(self) -> dict[str, int]:
        """The injected faults by kind. A whole request that was accepted and has none was answered 200."""
        return dict(sum((Counter(key.faults) for key in self.keys), Counter[str]()))

    @property
    def worst(self) -> float:
        """The highest ratio over all keys and limits; 0.0 where there is no limit."""
        return max((limit.ratio for key in self.keys for limit in key.limits), default=0.0)

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def violations(self) -> list[str]:
        """What the client did wrong, one plain sentence each."""
        found = [
            f"{key.label}: {limit.most} arrivals within {format_ns(limit.per_ns)}, its limit is {limit.max}."
            for key in self.keys
            for limit in key.limits
            if limit.most > limit.max
        ]
        if self.resent:
            calls = "call" if self.resent == 1 else "calls"
            found.append(f"{self.resent} {calls} arrived more than once: {_examples(self)}.")
        if self.unknown_arrivals:
            arrivals = "arrival" if self.unknown_arrivals == 1 else "arrivals"
            keys = "key" if self.unknown_keys == 1 else "keys"
            found.append(f"{self.unknown_arrivals} {arrivals} with {self.unknown_keys} unknown {keys}.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the derived figures."""
        return {
            "ok": self.ok,
            "violations": self.violations,
            "arrivals": self.arrivals,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "unknown_arrivals": self.unknown_arrivals,
            "unknown_keys": self.unknown_keys,
            "faults": self.faults,
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
                    "limits": [
                        {"max": limit.max, "per_ns": limit.per_ns, "most": limit.most, "ratio": limit.ratio}
                        for limit in key.limits
                    ],
                }
                for key in self.keys
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Report":
        """The report that `to_json` told of. Raises KeyError where a field is missing."""
        return cls(
            keys=tuple(
                KeyReport(
                    key["label"],
                    key["accepted"],
                    key["rejected"],
                    tuple(LimitReport(each["max"], each["per_ns"], each["most"]) for each in key["limits"]),
                    key["faults"],
                )
                for key in data["keys"]
            ),
            unknown_arrivals=data["unknown_arrivals"],
            unknown_keys=data["unknown_keys"],
            seen_twice=data["seen_twice"],
            resent=data["resent"],
            repeats=tuple(Repeat(each["call_id"], tuple(each["attempts"])) for each in data["repeats"]),
            max_lag_ns=data["max_lag_ns"],
        )


def parse_duration(text: str) -> int:
    """`10ms`, `1.5s`, `1m` in nanoseconds. Raises ValueError for any other form."""
    match = DURATION.fullmatch(text.strip())
    ns = Decimal(match[1]) * UNITS[match[2]] if match else Decimal("NaN")
    if ns.is_nan() or ns != int(ns):
        raise ValueError(f"{text!r} is no duration: expected a number with ns, us, ms, s, m or h, like 10ms")
    return int(ns)


def format_ns(ns: int) -> str:
    """A duration in the largest unit that shows it without a fraction: `60s`, `1500ms`."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{ns}ns"


def most_in_any_window(stamps: Iterable[int], per_ns: int) -> int:
    """The most of these sorted stamps that any half-open window of `per_ns` holds; one pass.

    Two pointers, the window never shrinking: it can only be beaten by one stamp more, so a single comparison with the
    stamp `most` places before tells.
    """
    stamps = list(stamps)
    most = 0
    for at, stamp in enumerate(stamps):
        if stamp - stamps[at - most] < per_ns:
            most += 1
    return most


@dataclass(slots=True)
class _Account:
    """The arrivals of one key. `accepted` is kept sorted: the Nth last of it says whether N more fit."""

    label: str
    accepted: "array[int]" = field(default_factory=lambda: array("q"))
    rejected: "array[int]" = field(default_factory=lambda: array("q"))
    faults: Counter[str] = field(default_factory=Counter)

    def wait(self, limits: tuple[Limit, ...], now: int) -> int:
        """In how many nanoseconds an arrival fits into every window; 0 where it fits now."""
        stamps = self.accepted
        count = len(stamps)
        if count and now < stamps[-1]:
            limits = tuple(limit for limit in limits if self._breaks(limit, now))
        wait = 0
        for most, per_ns in limits:
            if count >= most and (until := stamps[count - most] + per_ns - now) > wait:
                wait = until
        return wait

    def _breaks(self, limit: Limit, now: int) -> bool:
        """Whether an arrival told late would put one too many into a window on either side of it."""
        at = bisect_right(self.accepted, now)
        around = [*self.accepted[max(0, at - limit.max) : at], now, *self.accepted[at : at + limit.max]]
        return most_in_any_window(around, limit.per_ns) > limit.max

    def accept(self, now: int) -> None:
        stamps = self.accepted
        if stamps and now < stamps[-1]:
            stamps.insert(bisect_right(stamps, now), now)
        else:
            stamps.append(now)

    def report(self, limits: tuple[Limit, ...]) -> KeyReport:
        arrivals = sorted([*self.accepted, *self.rejected])
        return KeyReport(
            self.label,
            len(self.accepted),
            len(self.rejected),
            tuple(LimitReport(*limit, most_in_any_window(arrivals, limit.per_ns)) for limit in limits),
            dict(self.faults),
        )


class Ledger:
    """Owns what is recorded. `keys` maps labels to secrets; `limits` hold for each key by itself."""

    def __init__(self, keys: Mapping[str, str], limits: Iterable[Limit]) -> None:
        self._keys = dict(keys)
        self._limits = tuple(limits)
        self.reset()

    def reset(self) -> None:
        """Forget every arrival."""
        self._accounts = {secret: _Account(label) for label, secret in self._keys.items()}
        self._unknown_arrivals = 0
        self._unknown_keys: set[bytes] = set()
        # The first accepted attempt of each call. Strings to integers: the garbage collector need not walk it.
        self._attempts: dict[str, int] = {}
        self._repeats: dict[str, list[int]] = {}
        self._refused: dict[str, int] = {}  # arrivals that weren't accepted, by call
        self._excused: set[str] = set()  # calls whose last accepted arrival had a fault
        self._resent: dict[str, None] = {}  # a set that keeps the order

    def __repr__(self) -> str:
        return f"<Ledger keys={[*self._keys]} limits={[tuple(limit) for limit in self._limits]}>"

    def arrive(self, call_id: str, key: str, attempt: int, now: int) -> Verdict:
        """Record one arrival and judge it. `key` is the secret as it came, empty where none came.

        `attempt` is 0 where the call didn't say; it is reported as the first.
        """
        account = self._accounts.get(key)
        if account is None:
            self._unknown_arrivals += 1
            self._unknown_keys.add(blake2b(key.encode(errors="backslashreplace"), digest_size=16).digest())
            self._refuse(call_id)
            return UNKNOWN_KEY
        if wait := account.wait(self._limits, now):
            account.rejected.append(now)
            self._refuse(call_id)
            return Verdict(429, wait)
        account.accept(now)
        if call_id in self._attempts:
            attempts = self._repeats.setdefault(call_id, [self._attempts[call_id]])
            if call_id not in self._excused or (attempt and attempt in attempts):
                self._resent[call_id] = None
            self._excused.discard(call_id)
            attempts.append(attempt)
        else:
            self._attempts[call_id] = attempt
        return ACCEPTED

    def _refuse(self, call_id: str) -> None:
        self._refused[call_id] = self._refused.get(call_id, 0) + 1

    def fault(self, call_id: str, key: str, kind: str) -> None:
        """Record that the arrival of this call which was accepted last gets a fault for an answer."""
        self._accounts[key].faults[kind] += 1
        self._excused.add(call_id)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Accepted and rejected arrivals so far, by label; cheap."""
        return {each.label: (len(each.accepted), len(each.rejected)) for each in self._accounts.values()}

    @property
    def unknown_arrivals(self) -> int:
        return self._unknown_arrivals

    def label(self, key: str) -> str:
        """The label of a configured key."""
        return self._accounts[key].label

    def accepted_with(self, key: str) -> int:
        """How many arrivals with a configured key were accepted."""
        return len(self._accounts[key].accepted)

    def accepted_of(self, call_id: str) -> int:
        """How many arrivals of a call were accepted."""
        return len(self._repeats.get(call_id, ())) or int(call_id in self._attempts)

    def calls(self) -> dict[str, int]:
        """How many arrivals each call had, accepted or not. Takes about a second per million calls."""
        calls: Counter[str] = Counter()
        for call_id in self._attempts:
            calls[self._masked(call_id)] += self.accepted_of(call_id)
        for call_id, refused in self._refused.items():
            calls[self._masked(call_id)] += refused
        return dict(calls)

    def report(self, max_lag_ns: int = 0) -> Report:
        """Everything since the last reset. Takes about 0.2 s per million arrivals: ask when the run is over."""
        examples = {call_id: self._repeats[call_id] for call_id in self._resent} or self._repeats
        return Report(
            keys=tuple(account.report(self._limits) for account in self._accounts.values()),
            unknown_arrivals=self._unknown_arrivals,
            unknown_keys=len(self._unknown_keys),
            seen_twice=len(self._repeats),
            resent=len(self._resent),
            repeats=tuple(
                Repeat(self._masked(call_id), tuple(attempt or 1 for attempt in attempts[:EXAMPLES]))
                for call_id, attempts in islice(examples.items(), EXAMPLES)
            ),
            max_lag_ns=max_lag_ns,
        )

    def _masked(self, text: str) -> str:
        """A client may put its key where nobody expects it, in a path for one."""
        longest_first = sorted(self._keys.items(), key=lambda key: -len(key[1]))
        for label, secret in longest_first:
            text = text.replace(secret, f"<{label}>")
        return text


def _examples(report: Report) -> str:
    return ", ".join(
        f"{repeat.call_id!r} (attempts {', '.join(map(str, repeat.attempts))})" for repeat in report.repeats
    )
