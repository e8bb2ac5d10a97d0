"""How many calls a pool makes before a batch has made its last one.

Rule: what fair queueing (fairqueue.py) comes to, as a fluid and in closed form: nobody's turns are played through. When
they will be made is the forecast's.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from apiflux_grpc.core.batch import Batch

_Name = TypeVar("_Name")


def work_before(batches: Collection[Batch], waiting: Mapping[int, int] | None = None) -> dict[int, int]:
    """For each batch, by id: the calls that the pool makes until the batch has made its last one.

    `waiting`: count only so many calls of each batch, by id, and what the pool makes of these.

    Fair queueing on two levels, as a fluid: a batch with r calls left and weight w is done when every other of its
    caller has made min(its own, r * its weight / w); callers count alike, and share in the same way.
    """
    if waiting is None:
        waiting = {batch.id: batch.left for batch in batches}
    callers: dict[str, _Shares] = {}
    for batch in batches:
        if calls := waiting[batch.id]:
            callers.setdefault(batch.caller, _Shares()).add(calls, batch.weight)
    everyone = _Shares()
    for shares in callers.values():
        everyone.add(shares.total, 1.0)
    return {
        batch.id: everyone.made(callers[batch.caller].made(waiting[batch.id] / batch.weight))
        for batch in batches
        if waiting[batch.id]
    }


def rates(total: float, batches: Iterable[Batch], most: Mapping[int, float]) -> dict[int, float]:
    """What each batch gets of all that the pool does at this rate, by id, until one of them has made its last call.

    `most`: what limits of their own allow to some. What these leave goes to others of their caller, then to all.
    """
    callers: dict[str, list[Batch]] = {}
    for batch in batches:
        if batch.left:
            callers.setdefault(batch.caller, []).append(batch)
    caps = {who: sum(most.get(batch.id, inf) for batch in those) for who, those in callers.items()}
    found: dict[int, float] = {}
    for who, its in _filled(total, [(who, 1.0, cap) for who, cap in caps.items()]):
        found.update(_filled(its, [(one.id, one.weight, most.get(one.id, inf)) for one in callers[who]]))
    return found


def _filled(total: float, flows: Iterable[tuple[_Name, float, float]]) -> Iterator[tuple[_Name, float]]:
    """Share `total` by weight among flows (name, weight, most): who can't use its share leaves it to the others."""
    waiting = sorted(flows, key=lambda flow: flow[2] / flow[1])
    weights = sum(weight for _, weight, _ in waiting)
    for name, weight, most in waiting:
        its = min(most, total * weight / weights)
        total, weights = total - its, weights - weight
        yield name, its


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
