"""When each limit held calls back, and how full it was at worst.

Rule: a limit is told once, whichever keys have it: its share is that of the time of these keys, and its spans are when
it held back any of them. Spans that are close together are told as one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.model import Kind, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit as JudgedLimit
from apiflux_grpc.judge.limits import fullest
from apiflux_grpc.plan.bounds import OF_A_GROUP, burst_name, limit_name, meeting, only, together
from apiflux_grpc.plan.held import CLOSE, united

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.plan.held import HeldKey, Span
    from apiflux_grpc.plan.record import Run, Sends


@dataclass(frozen=True, slots=True)
class LimitPlan:
    """One limit. `keys` have it, or share it as a group; `most` is what its fullest window held, None of a bucket.

    `share` is the part of the time of its keys in which it held back calls that it counts.
    """

    name: str
    limit: Limit
    keys: int
    most: int | None
    share: float
    spans: tuple[Span, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; seconds and shares."""
        limit = self.limit
        return {
            "name": self.name,
            "max": limit.max,
            "per_seconds": limit.per / SECOND,
            "counts": limit.counts.value,
            "paths": list(limit.paths),
            "keys": self.keys,
            "most": self.most,
            "share": self.share,
            "spans_seconds": [[since / SECOND, until / SECOND] for since, until in self.spans],
        }


def limit_plans(pool: Pool, run: Run, held: Sequence[HeldKey]) -> tuple[LimitPlan, ...]:
    """Every limit of the pool, the one that held back most first."""
    classes = classes_of(pool)
    place_of = {key.label: place for place, key in enumerate(pool.keys)}
    owners: dict[tuple[str, Limit], list[list[int]]] = defaultdict(list)  # the keys of each, by their place
    for place, key in enumerate(pool.keys):
        for limit in key.limits:
            owners["", limit].append([place])
    for group in pool.groups:
        for limit in group.limits:
            owners[OF_A_GROUP, limit].append([place_of[label] for label in group.keys])
    plans = []
    for (of, limit), places in owners.items():
        met = meeting(limit, classes)
        name = limit_name(limit) + of
        names = {name, burst_name(limit)}
        keys = [place for some in places for place in some]
        totals = [
            total
            for place in keys
            for its_name, total in (held[place].whole if met is None else held[place].with_paths).items()
            if its_name in names
        ]
        most = None
        if limit.kind is Kind.WINDOW:
            sends = (only(together([run.sends[place] for place in some]), met) for some in places)
            most = max(worst_window(limit, some) for some in sends)
        share = sum(total.length for total in totals) / max(1, run.ended * len(keys))
        spans = united((span for total in totals for span in total.spans), run.ended // CLOSE)
        plans.append(LimitPlan(name, limit, len(keys), most, share, spans))
    return tuple(sorted(plans, key=lambda plan: -plan.share))


def worst_window(limit: Limit, sends: Sends) -> int:
    """How much of a window limit was used at most, within any window."""
    by_cost = limit.counts.value == "cost"
    judged = JudgedLimit(limit.max, limit.per, limit.counts.value)
    return fullest(judged, sends.taken, sends.costs if by_cost else None)
