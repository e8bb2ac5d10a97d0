"""How much of a pool one call is worth, for fair shares.

Rule: a call's size is its share of the pool's dominant resource, in seconds of the whole pool: of calls or of cost,
whichever it takes more of, by the limits that its path class meets. So a caller of a narrow endpoint isn't owed as
many calls as one of a wide one. Source: Ghodsi et al., "Dominant Resource Fairness" (NSDI 2011).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.model import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.model import Limit


def sizes(keys: Sequence[KeyState], number: int = 0) -> tuple[float, float]:
    """(size of a call, size of one unit of its cost) for calls of this path class; 0 if nothing limits that kind."""
    rates = []
    for counts in Counts:
        total = 0.0
        shared: dict[tuple[GroupState, ...], float] = {}
        for key in keys:
            others = key.seats[number].others
            own = [other for other in others if len(other.members) == 1]
            rate = _rate((key.budget.limits, *(other.budget.limits for other in own)), counts)
            if len(own) == len(others):
                total += rate
            else:
                group = tuple(other for other in others if len(other.members) > 1)
                shared[group] = shared.get(group, 0.0) + rate
        for group, members in shared.items():
            total += min(members, _rate((other.budget.limits for other in group), counts))
        rates.append(1 / total if 0 < total < float("inf") else 0.0)
    calls, cost = rates
    return calls or (1e-9 if cost else 1.0), cost  # a call of cost 0 takes its turn too


def _rate(limits: Iterable[Sequence[Limit]], counts: Counts) -> float:
    """Per second, by the tightest limit of this kind; infinite without one."""
    rates = [limit.max * 1e9 / limit.per for each in limits for limit in each if limit.counts is counts]
    return min(rates, default=float("inf"))
