"""What the judge knows: every arrival, and what the limits say of it.

The rule: an arrival is accepted if, with it, every limit of its key still holds (limits.py says what that means). A
rejected arrival spends nothing, but it did arrive, so it counts in how full its key made a limit. Other users of a key
(others.py) are always admitted and spend what they take; what the client did wrong is judged by its own arrivals alone.

An arrival that the judge injects a fault into is accepted all the same: it did arrive, its key was good and it fitted,
so it occupies a window, whatever it was answered. `accepted` counts it too, and the report counts its fault by kind.

Time is integer nanoseconds. Arrivals may be told late (their stamps out of order): they are judged as if they had
been told in time. Pure: no clock, no I/O; every decision receives `now`. It deliberately doesn't know HTTP, latency
or answers.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple

from apiflux_grpc.judge.limits import Left, Limit, fullest, meter
from apiflux_grpc.judge.others import Others
from apiflux_grpc.judge.report import KeyReport, LimitReport, Repeat, Report

EXAMPLES: Final = 5


class Verdict(NamedTuple):
    """An HTTP status (200, 401 or 429); with 429, in how many nanoseconds there is room again, and in which limit."""

    status: int
    retry_after_ns: int = 0
    limit: Limit | None = None


ACCEPTED: Final = Verdict(200)
UNKNOWN_KEY: Final = Verdict(401)


class _History:
    """What was admitted of one key, sorted, and what is left of each of its limits."""

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.stamps = array("q")
        self._sums = array("q", [0]) if any(limit.counts == "cost" for limit in limits) else None
        self._meters = [meter(limit, self.stamps, self._sums) for limit in limits]

    def refusal(self, now: int, cost: int, own: Sequence[int]) -> Verdict | None:
        """Why this arrival doesn't fit; None: it does. `own` are the client's stamps, others' windows may overflow."""
        stamps = self.stamps
        late = bool(stamps) and now < stamps[-1]
        worst = None
        most = 0
        for each in self._meters:
            if late:
                wait = max(1, each.wait(now, cost)) if each.breaks(now, cost, own) else 0
            else:
                wait = each.wait(now, cost)
            if wait > most:
                worst, most = each.limit, wait
        return Verdict(429, most, worst) if worst else None

    def add(self, now: int, cost: int) -> None:
        stamps, sums = self.stamps, self._sums
        if stamps and now < stamps[-1]:
            place = bisect_right(stamps, now)
            stamps.insert(place, now)
            if sums is not None:
                sums.insert(place + 1, sums[place] + cost)
                for at in range(place + 2, len(sums)):
                    sums[at] += cost
        else:
            place = len(stamps)
            stamps.append(now)
            if sums is not None:
                sums.append(sums[place] + cost)
        for each in self._meters:
            each.added(place)

    def left(self, now: int) -> list[Left]:
        if self.stamps:
            now = max(now, self.stamps[-1])
        return [each.left(now) for each in self._meters]

    def costs(self) -> list[int]:
        sums = self._sums
        assert sums is not None
        return [sums[at + 1] - sums[at] for at in range(len(self.stamps))]


class _Account:
    """The arrivals of one key: the client's own, and with others (`all`) those too."""

    def __init__(self, label: str, limits: tuple[Limit, ...], others: Others | None) -> None:
        self.label = label
        self._limits = limits
        self._others = others
        self.own = _History(limits)
        self.all = _History(limits) if others else self.own
        self.rejected = array("q")
        self._rejected_costs = array("q")  # of the same arrivals
        self.rejected_for_others = 0
        self._passed = self.others = 0  # calls of others, with those before the start and without
        self.faults: Counter[str] = Counter()

    def pass_to(self, now: int) -> None:
        """Others' calls up to `now` arrive."""
        if self._others:
            for at in self._others.due(self._passed, now):
                self.all.add(at, self._others.cost)
                self._passed += 1
                self.others += at > self._others.start

    def arrive(self, now: int, cost: int) -> Verdict:
        self.pass_to(now)
        own = self.own
        refusal = self.all.refusal(now, cost, own.stamps)
        if refusal is not None:
            self.rejected.append(now)
            self._rejected_costs.append(cost)
            if self._others and own.refusal(now, cost, own.stamps) is None:
                self.rejected_for_others += 1
            return refusal
        own.add(now, cost)
        if self._others:
            self.all.add(now, cost)
        return ACCEPTED

    def report(self) -> KeyReport:
        own = self.own.stamps
        stamps: Sequence[int] = sorted([*own, *self.rejected])
        costs: list[int] | None = None
        if any(limit.counts == "cost" for limit in self._limits):
            rejected = zip(self.rejected, self._rejected_costs, strict=True)
            arrivals = sorted([*zip(own, self.own.costs(), strict=True), *rejected])
            costs = [cost for _, cost in arrivals]
        return KeyReport(
            self.label,
            len(own),
            len(self.rejected),
            tuple(
                LimitReport.of(limit, fullest(limit, stamps, costs if limit.counts == "cost" else None))
                for limit in self._limits
            ),
            dict(self.faults),
            self.others,
            self.rejected_for_others,
        )


class Ledger:
    """Owns what is recorded. `keys` maps labels to secrets; `limits` hold for each key by itself.

    `others` is the share of each key's limits that somebody else spends, from `start` (ns) on.
    """

    def __init__(self, keys: Mapping[str, str], limits: Iterable[Limit], others: float = 0.0, start: int = 0) -> None:
        self._keys = dict(keys)
        self._limits = tuple(limits)
        self._share = Fraction(str(others))
        self.reset(start)

    def reset(self, start: int = 0) -> None:
        """Forget every arrival; others begin anew at `start`."""
        others = Others(self._share, self._limits, start) if self._share and self._limits else None
        self._accounts = {secret: _Account(label, self._limits, others) for label, secret in self._keys.items()}
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

    def arrive(self, call_id: str, key: str, attempt: int, now: int, cost: int = 1) -> Verdict:
        """Record one arrival and judge it. `key` is the secret as it came, empty if none came.

        `attempt` is 0 if the call didn't say; it is reported as the first.
        """
        verdict = self.admit(key, now, cost)
        self.name(call_id, attempt, accepted=verdict is ACCEPTED)
        return verdict

    def admit(self, key: str, now: int, cost: int = 1) -> Verdict:
        """The half of `arrive` that judges. Which call it was may be told later, by `name`."""
        account = self._accounts.get(key)
        if account is None:
            self._unknown_arrivals += 1
            self._unknown_keys.add(blake2b(key.encode(errors="backslashreplace"), digest_size=16).digest())
            return UNKNOWN_KEY
        return account.arrive(now, cost)

    def name(self, call_id: str, attempt: int, *, accepted: bool) -> None:
        """The half of `arrive` that tells calls apart: which call an arrival was."""
        if not accepted:
            self._refused[call_id] = self._refused.get(call_id, 0) + 1
        elif call_id in self._attempts:
            attempts = self._repeats.setdefault(call_id, [self._attempts[call_id]])
            if call_id not in self._excused or (attempt and attempt in attempts):
                self._resent[call_id] = None
            self._excused.discard(call_id)
            attempts.append(attempt)
        else:
            self._attempts[call_id] = attempt

    def left(self, key: str, now: int) -> list[Left]:
        """What is left of each limit of a configured key."""
        return self._accounts[key].all.left(now)

    def pass_to(self, now: int) -> None:
        """Others' calls arrive up to `now`, as they also do before each arrival of their key."""
        for account in self._accounts.values():
            account.pass_to(now)

    def fault(self, call_id: str, key: str, kind: str) -> None:
        """Record that the arrival of this call which was accepted last gets a fault for an answer."""
        self._accounts[key].faults[kind] += 1
        self._excused.add(call_id)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Accepted and rejected arrivals so far, by label; cheap."""
        return {each.label: (len(each.own.stamps), len(each.rejected)) for each in self._accounts.values()}

    @property
    def unknown_arrivals(self) -> int:
        return self._unknown_arrivals

    def label(self, key: str) -> str:
        """The label of a configured key."""
        return self._accounts[key].label

    def accepted_with(self, key: str) -> int:
        """How many arrivals with a configured key were accepted."""
        return len(self._accounts[key].own.stamps)

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
            keys=tuple(account.report() for account in self._accounts.values()),
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
