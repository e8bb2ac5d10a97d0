"""When what waits in a pool will be done: one curve of permits over time, asked again and again.

Rule: a forecast costs as much as there are keys, so it isn't made for every question. It is kept for as long as what
happens is what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.forecast import Curve
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.batch import Batch
    from apiflux_grpc.core.forecast import Forecast

PRECISION: Final = 100  # an outlook tells instants apart to one in so many of the time since it was made
RENEW: Final = 2 * MILLISECOND  # of an outlook, for each key or group
KEEP: Final = 20 * MILLISECOND


class Outlook:
    """When the waiting batches of a pool will be done: one curve for all of them, kept for a while.

    The curve is of absolute instants and counts permits from when it was made, so it holds while permits are handed
    out as it says. What changes it (a block, a key that is rejected) is seen when it is made anew. To make it costs as
    much as there are keys, so that it isn't made for every tick: it is kept at least RENEW and at most KEEP for each
    key or group, and between these as long as it is true. It isn't any more when by it the next permit should have
    been handed out a while ago: capacity was left unused, or isn't there.
    """

    __slots__ = ("_assigned", "_cost", "_curve", "_forecast", "_keep_until", "_renew_at")

    def __init__(self, forecast: Forecast, cost: float, assigned: int) -> None:
        self._forecast = forecast
        self._cost = cost
        self._assigned = assigned
        self._curve = Curve(forecast, cost, PRECISION)
        self._renew_at = forecast.now + max(SECOND // 2, forecast.owners * RENEW)
        self._keep_until = forecast.now + max(SECOND // 2, forecast.owners * KEEP)

    def holds(self, now: int, cost: float, assigned: int) -> bool:
        """Whether it may still be used, for calls of this mean cost, `assigned` permits having been handed out."""
        if now >= self._keep_until or abs(cost - self._cost) > self._cost / 10:
            return False
        if now < self._renew_at:
            return True
        due = self._curve.reaches(assigned - self._assigned + 1)
        return due is not None and due >= now - SECOND  # what only a probe can tell may have been told since

    @property
    def rate(self) -> float | None:
        """Calls per second in the long run; None: nothing limits them."""
        return self._forecast.rate(self._cost)

    def time_for(self, calls: int, assigned: int, now: int, latency: int) -> int | None:
        """How long (ns) from `now` until the last of `calls` has its result, `assigned` permits having been handed
        out in all, at today's `latency`; None: no key will ever have room."""
        at = self._curve.reaches(assigned - self._assigned + calls)
        return self._forecast.with_latency(None if at is None else max(0, at - now), calls, latency)


def mean_cost(batches: Iterable[Batch]) -> float:
    """Of the calls that wait or are still expected."""
    waiting = cost = 0.0
    for batch in batches:
        waiting += batch.left
        cost += batch.left * batch.mean_cost
    return cost / waiting if waiting else 1.0
