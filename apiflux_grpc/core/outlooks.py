"""When what waits in a pool will be done: each batch, and all of it.

Rule: a batch is done when its last call is, whatever limits that one meets. So there is an outlook on the whole pool
and, if limits have paths, one for each path class, on the calls that meet at least its limits; what comes last counts.
An outlook is made for all batches and kept: to ask every key for each of them once a second took nine tenths of a core
at a thousand keys and four hundred batches.

Not known here: who gets the next turn. What waits is shared out as a fluid (turns.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.outlook import Outlook, mean_cost
from apiflux_grpc.core.turns import rates, work_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from apiflux_grpc.core.batch import Batch
    from apiflux_grpc.core.forecast import Forecast
    from apiflux_grpc.core.pulse import Pulse
    from apiflux_grpc.core.scheduler import Scheduler

    Look = Callable[[int, frozenset[tuple[str, ...]]], Forecast]  # from an instant on, for calls that meet these paths


class Outlooks:
    """The outlooks of one pool. All lengths of time are ns; None: no key will ever have room."""

    __slots__ = ("_by_class", "_look", "_pulse", "_scheduler")

    def __init__(self, scheduler: Scheduler, pulse: Pulse, look: Look) -> None:
        self._scheduler = scheduler
        self._pulse = pulse
        self._look = look
        self._by_class: dict[int, Outlook] = {}  # 0: of all calls

    def forget(self) -> None:
        """The limits have changed."""
        self._by_class.clear()

    def etas(self, batches: Mapping[int, Batch], now: int) -> dict[int, int | None]:
        """How long until the last result of each of these, which are all that are open."""
        everyone = batches.values()
        cost = mean_cost(everyone)
        work = work_before(everyone)
        # What is all in flight needs no permit any more: its results come when those calls end.
        flying = self._pulse.latency or None  # nothing was answered yet
        etas = {id: self._time_for(0, work[id], cost, now) if id in work else flying for id in batches}
        if self._scheduler.classes.count > 1:  # of a stream that nothing came of, nobody knows which limits it meets
            etas.update((id, None) for id, batch in batches.items() if batch.to_come and not batch.total)
        for number, waiting in self._narrower(batches):
            for id, calls in work_before(everyone, _with_expected(waiting, batches)).items():
                etas[id] = _later(etas[id], self._time_for(number, calls, cost, now))
        return etas

    def rates(self, batches: Mapping[int, Batch], now: int) -> dict[int, float]:
        """Calls per second that each of these gets in the long run by its share, if limits bound it. Not known of one
        whose calls meet different limits, for then it changes with what is left of each."""
        by_class: dict[int, list[Batch]] = {}
        is_plain = self._scheduler.classes.count == 1
        for batch in batches.values():
            left = [batch.left] if is_plain else self._scheduler.waiting_by_class(batch)
            numbers = [number for number, calls in enumerate(left) if calls]
            if len(numbers) == 1:
                by_class.setdefault(numbers[0], []).append(batch)
        cost = mean_cost(batches.values())
        most: dict[int, float] = {}
        for number, those in by_class.items():
            if number and (rate := self._rate(number, cost, now)) is not None:
                most.update(rates(rate, those, {}))
        told = {batch.id for those in by_class.values() for batch in those}
        total = self._rate(0, cost, now) if told else None
        found = most if total is None else rates(total, batches.values(), most)
        return {id: rate for id, rate in found.items() if id in told}

    def _rate(self, number: int, cost: float, now: int) -> float | None:
        return self._outlook(number, cost, self._assigned(number), now).rate

    def drain_time(self, batches: Mapping[int, Batch], now: int) -> int | None:
        """How long until all that waits has its results."""
        if not self._scheduler.waiting:
            return 0
        cost = mean_cost(batches.values())
        takes = self._time_for(0, self._scheduler.waiting, cost, now)
        for number, waiting in self._narrower(batches):
            takes = _later(takes, self._time_for(number, sum(waiting.values()), cost, now))
        return takes

    def _narrower(self, batches: Mapping[int, Batch]) -> Iterator[tuple[int, dict[int, int]]]:
        """(path class, by batch how many of its calls wait that meet at least the limits of that class)."""
        classes = self._scheduler.classes
        if classes.count == 1:
            return
        rows = {id: self._scheduler.waiting_by_class(batch) for id, batch in batches.items()}
        for number in range(1, classes.count):
            within = classes.within(number)
            waiting = {id: sum(row[one] for one in within) for id, row in rows.items()}
            if any(waiting.values()):
                yield number, waiting

    def _time_for(self, number: int, calls: int, cost: float, now: int) -> int | None:
        """How long until so many more calls of this class have their results."""
        assigned = self._assigned(number)
        return self._outlook(number, cost, assigned, now).time_for(calls, assigned, now, self._pulse.latency)

    def _assigned(self, number: int) -> int:
        """Permits that were ever handed out to calls of at least this class."""
        scheduler = self._scheduler
        if not number:
            return scheduler.assigned
        return sum(scheduler.assigned_by_class[one] for one in scheduler.classes.within(number))

    def _outlook(self, number: int, cost: float, assigned: int, now: int) -> Outlook:
        outlook = self._by_class.get(number)
        if outlook is None or not outlook.holds(now, cost, assigned):
            met = self._scheduler.classes.scopes(number)
            outlook = self._by_class[number] = Outlook(self._look(now, met), cost, assigned)
        return outlook

    def __repr__(self) -> str:
        return f"<Outlooks {self._by_class}>"


def _with_expected(waiting: Mapping[int, int], batches: Mapping[int, Batch]) -> dict[int, int]:
    """So many calls of each batch wait, and with those that are still expected: nobody knows their paths, so they are
    taken to be like those that wait."""
    return {id: calls * batches[id].left // max(1, batches[id].waiting) for id, calls in waiting.items()}


def _later(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
