"""What bounds the use of a key, over the record of a run: its windows, its group's, and its calls in flight.

Rule: a bound tells for any instant how much of it is in use, and from when on there is room for one more call. A
window counts calls or cost, and of a limit with paths only the calls that meet it.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING

from apiflux_grpc.core.model import Counts, Kind, Limit
from apiflux_grpc.core.units import format_limit
from apiflux_grpc.plan.record import Sends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.classes import Classes
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.plan.record import Run

OF_A_GROUP = " of a group"


def limit_name(limit: Limit) -> str:
    """`1000 calls per 60s`, `30 calls per 60s for /search/`, without its kind and burst."""
    name = format_limit(limit.max, limit.per, limit.counts.value)
    return f"{name} for {', '.join(limit.paths)}" if limit.paths else name


def burst_name(limit: Limit) -> str:
    """How a limit is called that lets fewer calls pass at once than a window holds."""
    return f"bursts of {limit.depth} at {limit_name(limit)}"


def smoothest(limits: Iterable[Limit]) -> Limit | None:
    """The slowest of the limits that let fewer calls pass at once than a window holds; None: there is none."""
    bursts = [limit for limit in limits if limit.kind is Kind.BUCKET or limit.depth < limit.max]
    return min(bursts, key=lambda limit: limit.max / limit.per, default=None)


def meeting(limit: Limit, classes: Classes) -> frozenset[int] | None:
    """The path classes whose calls the limit counts; None: all."""
    if not limit.paths:
        return None
    return frozenset(number for number in range(classes.count) if classes.meets(number, limit))


def only(sends: Sends, met: frozenset[int] | None) -> Sends:
    """The sends of these path classes; None: all."""
    if met is None:
        return sends
    some = Sends()
    for taken, answered, cost, number in zip(sends.taken, sends.answered, sends.costs, sends.classes, strict=True):
        if number in met:
            some.add(taken, answered, cost, number)
    return some


def together(sends: Sequence[Sends]) -> Sends:
    """Those of several keys as one, in the order of their permits."""
    if len(sends) == 1:
        return sends[0]
    merged = Sends()
    rows = (zip(one.taken, one.answered, one.costs, one.classes, strict=True) for one in sends)
    for row in heapq.merge(*rows, key=itemgetter(0)):
        merged.add(*row)
    return merged


class Bound:
    """Something of which `most` may be in use at once: taken at some instants, free again at others.

    `costs` None: each call takes 1, else its cost. `met` are the path classes that it counts; None: all.
    """

    __slots__ = ("_back", "_frees", "_most", "_sums", "_taken", "is_window", "met", "name")

    def __init__(
        self,
        name: str,
        most: int,
        taken: Sequence[int],
        frees: Sequence[int],
        *,
        costs: Sequence[int] | None = None,
        met: frozenset[int] | None = None,
        is_window: bool = True,
    ) -> None:
        self.name = name
        self.met = met
        self.is_window = is_window
        self._most = most
        self._taken = taken
        self._sums: Sequence[int] | None = None  # what the first n took, and what the first n gave back
        self._back: Sequence[int] = ()
        if costs is None:
            self._frees = array("q", sorted(frees))
            return
        order = sorted(range(len(frees)), key=frees.__getitem__)
        self._frees = array("q", [frees[place] for place in order])
        self._sums = array("q", accumulate(costs, initial=0))
        self._back = array("q", accumulate((costs[place] for place in order), initial=0))

    def at(self, instant: int, cost: int) -> tuple[float, int]:
        """(the share in use, when there is room for a call of this cost), right after this instant."""
        taken, freed = bisect_right(self._taken, instant), bisect_right(self._frees, instant)
        if self._sums is None:
            used = taken - freed
            lacking = used + 1 - self._most
            place = freed + lacking
        else:
            used = self._sums[taken] - self._back[freed]
            lacking = used + cost - self._most
            place = bisect_left(self._back, self._back[freed] + lacking) if lacking > 0 else 0
        if lacking <= 0 or not self._frees:
            return used / self._most, instant
        return used / self._most, self._frees[min(place, len(self._frees)) - 1]


def bounds_of(pool: Pool, run: Run, classes: Classes) -> list[list[Bound]]:
    """Those of each key."""
    shared: dict[str, list[Bound]] = {}
    place_of = {key.label: place for place, key in enumerate(pool.keys)}
    for group in pool.groups:
        members = together([run.sends[place_of[label]] for label in group.keys])
        bounds = _windows(group.limits, members, pool.arrival_jitter, classes, OF_A_GROUP)
        shared |= dict.fromkeys(group.keys, bounds)
    found = []
    for key, sends in zip(pool.keys, run.sends, strict=True):
        bounds = [*_windows(key.limits, sends, pool.arrival_jitter, classes), *shared.get(key.label, [])]
        if key.max_in_flight is not None:
            name = f"{key.max_in_flight} in flight"
            bounds.append(Bound(name, key.max_in_flight, sends.taken, sends.answered, is_window=False))
        # Of several that open at the same instant the first is named: rather one that holds back every call.
        found.append(sorted(bounds, key=lambda bound: bound.met is not None))
    return found


def _windows(limits: Iterable[Limit], sends: Sends, jitter: int, classes: Classes, of: str = "") -> list[Bound]:
    found = []
    for limit in limits:
        if limit.kind is not Kind.WINDOW:
            continue
        met = meeting(limit, classes)
        some = only(sends, met)
        frees = array(
            "q", [min(end, at + jitter) + limit.per for at, end in zip(some.taken, some.answered, strict=True)]
        )
        costs = some.costs if limit.counts is Counts.COST else None
        found.append(Bound(limit_name(limit) + of, limit.max, some.taken, frees, costs=costs, met=met))
    return found
