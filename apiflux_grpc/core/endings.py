"""How calls and batches end: every call of a batch gets one result, and a batch that has all of them is forgotten.

Rule: a call has one result, which is counted here, whatever ended it: its last attempt, its batch, or the longest wait
that its pool allows. Why it ends is decided elsewhere.

Owner: the dispatcher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.batch import CUT_SHORT, ENDINGS
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.comeback import expires_at
from apiflux_grpc.core.outcome import Reason, Result

if TYPE_CHECKING:
    from apiflux_grpc.core.batch import Again, Batch
    from apiflux_grpc.core.scheduler import Scheduler

Ended = list[tuple["Batch", list[Result]]]  # the results of calls that ended while they waited, by batch


class Endings:
    """The open batches of one pool, by id, until their ends. `expires_at`: not before has a call waited for as long as
    it may."""

    __slots__ = ("_longest", "_scheduler", "expires_at", "open")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._longest = scheduler.pool.longest_wait
        self.open: dict[int, Batch] = {}
        self.expires_at = FAR

    def waits(self, again: Again) -> None:
        """A call waits to be attempted again."""
        if again.waited >= 0:
            self.expires_at = min(self.expires_at, expires_at(again, self._longest))

    def expire(self, now: int) -> Ended:
        """End the calls that have waited for as long as the pool lets them; their batches go on."""
        if now < self.expires_at:
            return []
        self.expires_at = FAR
        ended: Ended = []
        for batch in list(self.open.values()):
            over = self._scheduler.take_back(batch, lambda one: one.waited >= 0 and self._is_over(one, now))
            for again in self._scheduler.waiting_again(batch):
                self.waits(again)
            if over:
                ended.append((batch, [self.limited(batch, again, now) for again in over]))
        return ended

    def _is_over(self, again: Again, now: int) -> bool:
        return expires_at(again, self._longest) <= now

    def limited(self, batch: Batch, again: Again, now: int, detail: str = "") -> Result:
        """The result of a call that waits no longer for a limit."""
        detail = detail or "limited for longer than the pool's longest_wait"
        return self.result(batch, self._unsent(batch, again, Reason.LIMITED, now, detail))

    def _unsent(self, batch: Batch, again: Again, reason: Reason, now: int, detail: str = "") -> Result:
        made = again.number - 1
        # One that isn't idempotent waits for a retry only if it certainly was not executed.
        never_ran = not made or not batch.call_at(again.place).idempotent
        index = batch.take_off(again.place)
        return Result(index, None, reason, again.label, made, again.queue_time, 0, now, detail, never_ran)

    def end_unsent(self, batch: Batch, reason: Reason, now: int) -> list[Result]:
        """Results for all that waits: retries first, then what was never attempted."""
        if batch.ending is not None:
            return []
        batch.ending = ENDINGS[reason]
        if reason is Reason.DRAINING:
            batch.closed = True  # whoever feeds it hears of the end
        waiting, unstarted = self._scheduler.drop(batch)
        results = [self._unsent(batch, again, reason, now) for again in waiting]
        for place in unstarted:
            queued = now - batch.came_at(place)
            results.append(Result(batch.take_off(place), None, reason, "", 0, queued, 0, now, never_ran=True))
        results = [self.result(batch, result) for result in results]
        self.forget_if_finished(batch)  # it may have waited for nothing
        return results

    def result(self, batch: Batch, result: Result) -> Result:
        """The one place where a call that took part gets its result."""
        batch.tally.ended(result, cut_short=result.failure in CUT_SHORT)
        batch.done += 1
        self.forget_if_finished(batch)
        return result

    def refuse(self, batch: Batch, index: int, reason: Reason, now: int, detail: str = "") -> Result:
        """The result of a call that never took part."""
        result = Result(index, None, reason, "", 0, 0, 0, now, detail, never_ran=True)
        batch.tally.ended(result, cut_short=reason in CUT_SHORT)
        batch.rejected += 1
        return result

    def forget_if_finished(self, batch: Batch) -> None:
        """The batch may be over: then it is let go of."""
        # In this order: most of the time the batch isn't finished, and that is cheaper to see.
        if batch.finished and self.open.pop(batch.id, None) is not None:
            batch.tally.total = batch.total + batch.rejected
            self._scheduler.over(batch)
            batch.let_go()  # the fair queue drops it when it comes up, which may be long after

    def __repr__(self) -> str:
        return f"<Endings of {len(self.open)} open batches>"
