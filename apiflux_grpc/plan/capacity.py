"""What limits allow in the long run, in closed form.

Rule: a slot of a window comes back one window after its call arrived, so a key makes max / (per + min(latency, J))
calls a second, J being the arrival margin; a bucket's rate is its own. Of a limit that counts cost a call takes its
cost, and one with paths is met by a share of the calls: both as they are in the mix of the whole job.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import shape
from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.model import Counts, Kind, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.plan.bounds import meeting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.plan.question import Question


class Capacity:
    """Calls a second that limits allow in the long run."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._jitter = question.pool.arrival_jitter
        self._charged = _charged(question.draws.latency, self._jitter)
        self._classes = classes_of(question.pool)
        self._mix = _Mix(question)

    def of(self, limits: Iterable[Limit]) -> float | None:
        """Of one key, or one group, with these limits; None: any number."""
        return min((rate for limit in limits if (rate := self._rate(limit)) is not None), default=None)

    def of_all(self) -> float | None:
        """Of all keys and groups together; None: any number. Keys that are rejected add nothing."""
        pool, rejected = self._question.pool, self._question.draws.rejected
        capacities = {key.label: 0.0 if key.label in rejected else self.of(key.limits) for key in pool.keys}
        supplies: list[float | None] = []
        for group in pool.groups:
            members = _sum([capacities.pop(label) for label in group.keys])
            bounds = [rate for rate in (members, self.of(group.limits)) if rate is not None]
            supplies.append(min(bounds, default=None))
        return _sum([*supplies, *capacities.values()])

    def _rate(self, limit: Limit) -> float | None:
        calls, cost, same = self._mix.meeting(meeting(limit, self._classes))
        if not calls or (limit.counts is Counts.COST and not cost):
            return None  # none of these calls takes anything of it
        size = 1.0 if limit.counts is Counts.CALLS else cost / calls
        most: float = limit.max
        if limit.counts is Counts.COST and same and limit.kind is Kind.WINDOW:
            most = limit.max // same * same  # the rest of a window is too small for one more
        share = calls / self._mix.calls
        if limit.kind is Kind.WINDOW:
            return most * SECOND / (limit.per + self._charged) / size / share
        burst, seconds = shape(limit, self._jitter)
        return burst / seconds / size / share


class _Mix:
    """How many calls there are of each path class, and what they cost."""

    def __init__(self, question: Question) -> None:
        self.calls = 0
        self._calls: Counter[int] = Counter()
        self._costs: Counter[int] = Counter()
        self._same: dict[int, int] = {}  # what each call of a class costs; 0: they differ
        for size, load in ((arrival.size, arrival.load) for arrival in question.arrivals):
            self.calls += size
            for number, cost, count in load.mix(size):
                self._calls[number] += count
                self._costs[number] += cost * count
                self._same[number] = cost if self._same.get(number, cost) == cost else 0

    def meeting(self, met: frozenset[int] | None) -> tuple[int, int, int]:
        """(calls, their cost in all, that of each, 0: they differ) of some path classes; None: of all."""
        numbers = [number for number in self._calls if met is None or number in met]
        each = {self._same[number] for number in numbers}
        same = each.pop() if len(each) == 1 else 0
        return sum(self._calls[number] for number in numbers), sum(self._costs[number] for number in numbers), same


def _charged(latency: tuple[int, int], jitter: int) -> float:
    """The mean of min(latency, jitter), the latency evenly between its ends: what a slot is held beyond its window."""
    least, most = latency
    if most <= jitter:
        return (least + most) / 2
    if least >= jitter:
        return jitter
    return ((jitter**2 - least**2) / 2 + jitter * (most - jitter)) / (most - least)


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [*rates]
    return None if None in known else sum(rate for rate in known if rate is not None)
