"""What limits allow in the long run, in closed form.

Rule: a slot of a window comes back one window after its call arrived, so a key makes max / (per + min(latency, J))
calls a second, J being the arrival margin; a bucket's rate is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import shape
from apiflux_grpc.core.model import Kind, Limit
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.plan.question import Question


def _charged(latency: tuple[int, int], jitter: int) -> float:
    """The mean of min(latency, jitter), the latency evenly between its ends: what a slot is held beyond its window."""
    least, most = latency
    if most <= jitter:
        return (least + most) / 2
    if least >= jitter:
        return jitter
    return ((jitter**2 - least**2) / 2 + jitter * (most - jitter)) / (most - least)


def capacity_of(limits: Iterable[Limit], question: Question) -> float | None:
    """Calls a second that these limits allow in the long run; None: any number."""
    jitter = question.pool.arrival_jitter
    charged = _charged(question.draws.latency, jitter)
    rates = []
    for limit in limits:
        if limit.kind is Kind.WINDOW:
            rates.append(limit.max * SECOND / (limit.per + charged))
        else:
            burst, seconds = shape(limit, jitter)
            rates.append(burst / seconds)
    return min(rates, default=None)


def capacity_of_all(question: Question) -> float | None:
    """Calls a second that the limits of all keys and groups allow in the long run; None: any number.

    Keys that are rejected add nothing.
    """
    pool, rejected = question.pool, question.draws.rejected
    capacities = {key.label: 0.0 if key.label in rejected else capacity_of(key.limits, question) for key in pool.keys}
    supplies: list[float | None] = []
    for group in pool.groups:
        members = _sum([capacities.pop(label) for label in group.keys])
        bounds = [rate for rate in (members, capacity_of(group.limits, question)) if rate is not None]
        supplies.append(min(bounds, default=None))
    return _sum([*supplies, *capacities.values()])


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [*rates]
    return None if None in known else sum(rate for rate in known if rate is not None)
