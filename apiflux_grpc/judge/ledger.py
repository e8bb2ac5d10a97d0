"""What the judge knows: every arrival, and what the limits say of it.

The rule: in no half-open window (t, t+T] are more than N arrivals of one key accepted; an arrival exactly T after
another isn't in one window with it. A rejected arrival occupies no window, but it did arrive, so it counts in the
most arrivals that a key had in any window.

An arrival that the judge injects a fault into is accepted all the same: it did arrive, its key was good and it fitted,
so it occupies a window, whatever it was answered. `accepted` counts it too, and the report counts its fault by kind.

Time is integer nanoseconds. Arrivals may be told late (their stamps out of order): they are judged as if they had
been told in time. Pure: no clock, no I/O; every decision receives `now`. It deliberately doesn't know HTTP, latency
or answers.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple

from apiflux_grpc.judge.report import KeyReport, LimitReport, Repeat, Report

EXAMPLES: Final = 5


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
        """In how many nanoseconds an arrival fits into every window; 0: it fits now."""
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
        """Record one arrival and judge it. `key` is the secret as it came, empty if none came.

        `attempt` is 0 if the call didn't say; it is reported as the first.
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
        """The text with labels for secrets: a client may put its key anywhere, into a path for example."""
        longest_first = sorted(self._keys.items(), key=lambda key: -len(key[1]))
        for label, secret in longest_first:
            text = text.replace(secret, f"<{label}>")
        return text
