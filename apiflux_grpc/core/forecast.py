"""How long work will take, in closed form from the budgets.

Rule: an estimate is arithmetic over what the budgets hold now, never a simulation, and costs the same for one call
and for a million. A slot that is free now, or comes back at e, can be used again every `per + min(latency, J)`
after that. Keys with the same limits are summed into one supply, so the cost follows the number of different
limits and not of keys.

Not known here: who asks, and why.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.budget import FAR

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from apiflux_grpc.core.model import Batch
    from apiflux_grpc.core.scheduler import KeyState
    from apiflux_grpc.core.window import Window

MOST_ENDS: Final = 64  # groups of one supply are merged down to so many, each to its latest end
_HORIZON: Final = 1 << 60


@dataclass(slots=True)
class _Slots:
    """One window of one supply: what is free, and what comes back when."""

    period: int
    free: int
    ends: list[tuple[int, int]]


def _permits(windows: Sequence[_Slots], at: int, start: int) -> int:
    """Permits that these windows, the shortest first, allow from `start` until `at`.

    What is free in a longer window goes out no faster than the shorter ones let it, and comes back as it went.
    """
    *shorter, window = windows
    period = window.period
    total = 0
    if window.free > 0:
        rounds, rest = divmod(at - start, period)
        last = min(window.free, _permits(shorter, start + rest, start)) if shorter else window.free
        total = window.free * rounds + last
    for end, amount in window.ends:
        if end > at:
            break
        total += amount * (1 + (at - max(end, start)) // period)
    return min(total, _permits(shorter, at, start)) if shorter else total


class Forecast:
    """What the keys of a pool can do from `now` on, given what is on its way and how long a call takes (ns).

    `slots` is the most calls in flight at once over all keys.
    """

    def __init__(self, keys: Sequence[KeyState], now: int, latency: int, slots: int) -> None:
        self._now = now
        self._latency = latency
        self._slots = slots
        self._unlimited = False
        groups: dict[tuple[object, int], list[KeyState]] = {}
        for key in keys:
            groups.setdefault((key.key.limits, max(key.blocked_until, now)), []).append(key)
        self._supplies: list[tuple[int, list[_Slots]]] = []
        for (_, start), members in groups.items():
            windows = [_merge(column, members, now, latency) for column in range(len(members[0].budget.windows))]
            windows.sort(key=lambda window: window.period)
            if windows:
                self._supplies.append((start, windows))
            else:
                self._unlimited = True

    def permits_by(self, at: int) -> int:
        """How many calls can have got their permit until `at`."""
        if self._unlimited:
            return FAR
        return sum(_permits(windows, at, start) for start, windows in self._supplies if at >= start)

    def time_for(self, calls: int) -> int | None:
        """How long (ns) until the last of `calls` has its result; None: no key will ever have room."""
        if calls <= 0:
            return 0
        low, high = self._now, self._now
        step = max(self._latency, 1_000_000)
        while self.permits_by(high) < calls:
            low, high = high, high + step
            step *= 2
            if step > _HORIZON:
                return None
        while high - low > 1_000_000:  # a millisecond is exact enough for an estimate
            middle = (low + high) // 2
            if self.permits_by(middle) < calls:
                low = middle
            else:
                high = middle
        by_limits = high - self._now
        by_slots = (calls - 1) // max(1, self._slots) * self._latency
        return max(by_limits, by_slots) + self._latency


def _merge(column: int, members: list[KeyState], now: int, latency: int) -> _Slots:
    """The same window of several keys as one."""
    windows: list[Window] = [key.budget.windows[column] for key in members]
    jitter = members[0].budget.jitter
    period = windows[0].kept + min(latency, jitter)
    ends = sorted(end for window in windows for end in window.ends())
    for key, window in zip(members, windows, strict=True):
        # What is taken and has no end yet: sent, or about to be. It ends a period from now at the latest.
        pending = window.used - sum(amount for _, amount in window.ends())
        if pending > 0:
            ends.append((now + key.budget.jitter + window.kept, pending))
    if len(ends) > MOST_ENDS:
        size = -(-len(ends) // MOST_ENDS)
        chunks = [ends[place : place + size] for place in range(0, len(ends), size)]
        ends = [(chunk[-1][0], sum(amount for _, amount in chunk)) for chunk in chunks]
    return _Slots(period, sum(max(0, window.free) for window in windows), ends)


def work_before(batches: Collection[Batch]) -> dict[int, int]:
    """For each batch, by id: the calls that the pool makes until the batch has made its last one.

    Fair queueing on two levels, as a fluid: a batch with r calls left and weight w is done when every other of its
    caller has made min(its own, r * its weight / w); callers count alike, and share in the same way.
    """
    callers: dict[str, _Shares] = {}
    for batch in batches:
        if batch.waiting:
            callers.setdefault(batch.caller, _Shares()).add(batch.waiting, batch.weight)
    everyone = _Shares()
    for shares in callers.values():
        everyone.add(shares.total, 1.0)
    return {
        batch.id: everyone.made(callers[batch.caller].made(batch.waiting / batch.weight))
        for batch in batches
        if batch.waiting
    }


class _Shares:
    """Flows that share by weight: how much all have made when each has got so much for each unit of its weight."""

    def __init__(self) -> None:
        self.total = 0
        self._flows: list[tuple[float, int, float]] = []
        self._sums: list[tuple[float, int, float]] | None = None

    def add(self, calls: int, weight: float) -> None:
        self.total += calls
        self._flows.append((calls / weight, calls, weight))

    def made(self, each: float) -> int:
        """The calls made by all when every flow has made min(its own, each * its weight)."""
        if self._sums is None:
            # (what the flow needs for each unit of weight, calls of those done by then, weight of those that aren't)
            self._sums, done, weight = [], 0, sum(flow[2] for flow in self._flows)
            for needs, calls, its_weight in sorted(self._flows):
                self._sums.append((needs, done, weight))
                done, weight = done + calls, weight - its_weight
        place = bisect_left(self._sums, each, key=lambda entry: entry[0])
        if place == len(self._sums):
            return self.total
        _, done, weight = self._sums[place]
        return min(self.total, round(done + each * weight))
