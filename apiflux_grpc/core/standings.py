"""How each open batch stands: when its last result comes, how fast it goes, and what its calls wait for.

Rule: for people and programs that look at a batch; nothing is decided by it. It is found out about once a second, for
all batches of a pool at once, so that what the keys say is asked for only once.

Owner: the dispatcher, and here alone `eta`, `rate`, `held_by` and `waits_for` of a batch are written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apiflux_grpc.core.holding import of_pool
from apiflux_grpc.core.waiting import for_limit, for_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apiflux_grpc.core.batch import Batch
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.outlooks import Outlooks
    from apiflux_grpc.core.pulse import Pulse
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.core.waiting import Known


class Standings:
    """Tells the batches of one pool how they stand."""

    __slots__ = ("_outlooks", "_pulse", "_scheduler", "_since")

    def __init__(self, scheduler: Scheduler, pulse: Pulse, outlooks: Outlooks) -> None:
        self._scheduler = scheduler
        self._pulse = pulse
        self._outlooks = outlooks
        self._since: dict[str, int] = {}  # by its words, since when a limit is waited for

    def tell(self, batches: Mapping[int, Batch], now: int) -> None:
        """All that are open."""
        etas = self._outlooks.etas(batches, now)
        rates = self._outlooks.rates(batches, now)
        waits = self._scheduler.waiting > 0
        held_by = self._held_by(now) if waits else ()
        limits = self._limits(batches, now) if waits and not self._store_holds(now) else {}
        # Asked for once, however many batches there are: all calls that wait for their next attempt are gone through.
        backoff = self._scheduler.retries.first_of_each() if any(map(_is_in_backoff, batches.values())) else {}
        for id, batch in batches.items():
            batch.eta, batch.rate = etas[id], rates.get(id)
            batch.held_by = held_by if batch.waiting else ()
            batch.waits_for = self._waits_for(batch, limits, backoff, now)

    def _held_by(self, now: int) -> Sequence[Held]:
        scheduler = self._scheduler
        return (
            *of_pool(scheduler.breaker, self._pulse.last_failure, scheduler.keys, now),
            *self._store_holds(now),
        )

    def _store_holds(self, now: int) -> Sequence[Held]:
        borrowing = self._scheduler.keyring.borrowing
        return () if borrowing is None else borrowing.holds(now)

    def _limits(self, batches: Mapping[int, Batch], now: int) -> dict[int, Held | None]:
        """For each path class of which calls wait, the limit that they wait for: every key is asked for each."""
        scheduler = self._scheduler
        head = scheduler.head
        is_full = scheduler.in_flight >= scheduler.pool.max_connections
        if head is None or is_full or scheduler.breaker.ready_at(now) > now:
            return {}
        costs = {head.number: head.next_cost}  # of a class the next call's, since most may have room for a smaller one
        if len(costs) < scheduler.classes.count:
            turns = (turn for batch in batches.values() for turn in scheduler.turns(batch) if turn.has_work)
            costs = {turn.number: turn.next_cost for turn in turns} | costs
        found: dict[int, Held | None] = {}
        known: Known = {}
        rows = map(scheduler.waiting_by_class, batches.values())
        for number in {number for row in rows for number, calls in enumerate(row) if calls}:
            found[number] = for_limit((key.seats[number] for key in scheduler.keys), costs.get(number, 1), now, known)
        told = [one for one in found.values() if one is not None]
        self._since = {one.reason: self._since.get(one.reason, now) for one in told}
        return {n: None if one is None else replace(one, since=self._since[one.reason]) for n, one in found.items()}

    def _waits_for(
        self, batch: Batch, limits: Mapping[int, Held | None], backoff: Mapping[int, int], now: int
    ) -> Held | None:
        if not batch.waiting:
            return None
        if batch.waiting == batch.retrying:
            # A wait that an upstream asked for is told as such.
            is_told = batch.held_by or not _is_in_backoff(batch)
            return None if is_told else for_time(batch.retrying, backoff[batch.id], now)
        waiting = self._scheduler.waiting_by_class(batch)
        those = [limits.get(number) for number, calls in enumerate(waiting) if calls]
        found = [one for one in those if one is not None]
        if len(found) < len(those) or not found:
            return None  # some of its calls have room
        return min(found, key=lambda one: now if one.until is None else one.until)

    def __repr__(self) -> str:
        return f"<Standings of {self._scheduler!r}>"


def _is_in_backoff(batch: Batch) -> bool:
    """Whether its calls only wait for their next attempts."""
    return 0 < batch.retrying == batch.waiting and not batch.in_flight
