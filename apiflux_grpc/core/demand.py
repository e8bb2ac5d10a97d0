"""What waits in a pool, as far as it bounds what its keys borrow.

Rule: read off the scheduler when it's asked for; nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.classqueue import ClassQueue
from apiflux_grpc.core.outlook import mean_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.batch import Batch
    from apiflux_grpc.core.pulse import Pulse
    from apiflux_grpc.core.scheduler import Scheduler


class PoolDemand:
    """Fulfils Demand."""

    __slots__ = ("_open", "_pulse", "_scheduler")

    def __init__(self, scheduler: Scheduler, pulse: Pulse, open: Mapping[int, Batch]) -> None:
        self._open = open
        self._scheduler = scheduler
        self._pulse = pulse

    def waiting_for(self, paths: tuple[str, ...]) -> int:
        scheduler, queue = self._scheduler, self._scheduler.queue
        if not paths or not isinstance(queue, ClassQueue):
            return scheduler.waiting
        numbers = range(scheduler.classes.count)
        return queue.waiting([number for number in numbers if paths in scheduler.classes.scopes(number)])

    def begun_within(self, length: int) -> int:
        slots, latency = self._scheduler.slots, self._pulse.latency
        free = max(0, slots - self._scheduler.in_flight)
        # Those in flight end meanwhile, and each makes room for another. Nobody knows how soon before the first answer.
        return free + slots * length // latency if latency else slots + length

    def mean_cost(self) -> float:
        return mean_cost(self._open.values())
