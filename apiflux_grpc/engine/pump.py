"""assign -> call -> settle, for one pool.

Rule: one coalesced pass per turn of the loop settles everything that ended and then starts everything that may
start; no task and no timer exists per waiting call, one timer per pool is set to the scheduler's `wake_at`. An
attempt is accounted in one place only, `_settle`. The clock is read again at every pass: a timer that fires early
costs one empty pass and nothing else.

A call never sent is refunded; a call sent stays charged; where the upstream can't say, the moment the attempt
ended counts as its sending.

Owner: the engine's loop.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.feedback import block_for
from apiflux_grpc.core.forecast import Forecast, work_before
from apiflux_grpc.core.model import MILLISECOND, SECOND, Again, Answer, NotSent, Reason, Result
from apiflux_grpc.core.retry import again_in, failure_of
from apiflux_grpc.engine.outbox import Ending
from apiflux_grpc.engine.ports import Attempt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from apiflux_grpc.core.model import Outcome, Permit, Pool
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.engine.outbox import Flusher, Outbox
    from apiflux_grpc.engine.ports import Clock, Observer, Upstream

STARTS: Final = 200  # attempts begun in one pass, so that answers are read in between


class Pump:
    """The batches, keys and attempts of one pool at work."""

    def __init__(
        self,
        scheduler: Scheduler,
        upstream: Upstream,
        flusher: Flusher,
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        guard: Callable[[Callable[[], None]], Callable[[], None]],
        over: Callable[[Outbox], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.scheduler = scheduler
        self.upstream = upstream
        self.open: dict[int, Outbox] = {}
        self._flusher = flusher
        self._observer = observer
        self._loop = loop
        self._clock = clock
        self._over = over
        self._draw = draw
        self._ended: list[tuple[Attempt, Outcome]] = []
        self._on_pass = guard(self._pass)
        self._on_timer = guard(self._ring)
        self._due = False
        self._starting = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._latency = 0.0  # of answered attempts, ns, a moving mean
        self._draining = False

    @property
    def pool(self) -> Pool:
        return self.scheduler.pool

    # -- doors --------------------------------------------------------------------------------

    def submit(self, outbox: Outbox) -> None:
        """An admitted batch."""
        self.open[outbox.batch.id] = outbox
        self.scheduler.add(outbox.batch, outbox.spec.caller_weight)
        if self._draining:
            self._end_unsent(outbox, self._clock())
        self._kick()

    def credit(self, outbox: Outbox, results: int, size: int) -> None:
        """The reader has taken results."""
        had = outbox.batch.room
        outbox.credit(results, size)
        if had <= 0 < outbox.batch.room and outbox.ending is None:
            self.scheduler.queue.wake(outbox.batch)
            self._kick()

    def cancel(self, outbox: Outbox) -> None:
        """Unsent calls are dropped, the others stopped; the batch is over when none is in flight."""
        if outbox.ending is Ending.CANCELLED:
            return
        outbox.ending = Ending.CANCELLED
        self.scheduler.drop(outbox.batch)
        for attempt in list(outbox.attempts):
            self.upstream.cancel(attempt)
        self._finish_if_done(outbox, self._clock())

    def drain(self) -> None:
        """What was never sent ends as DRAINING; what is in flight goes on."""
        self._draining = True
        now = self._clock()
        for outbox in list(self.open.values()):
            self._end_unsent(outbox, now)

    def cut(self) -> None:
        """The grace has passed: stop what is still in flight; each of those calls still gets its result."""
        for outbox in list(self.open.values()):
            for attempt in list(outbox.attempts):
                self.upstream.cancel(attempt)

    def close(self) -> None:
        """No more passes."""
        self._due = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the pass -----------------------------------------------------------------------------

    def _kick(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._on_pass)

    def _ring(self) -> None:
        self._timer = None
        self._kick()

    def _pass(self) -> None:
        self._due = False
        now = self._clock()
        if self._ended:
            ended, self._ended = self._ended, []
            touched: dict[int, Outbox] = {}
            for attempt, outcome in ended:
                outbox = self._settle(attempt, outcome, now)
                touched[outbox.batch.id] = outbox
            for outbox in touched.values():
                if not self._finish_if_done(outbox, now):
                    self._flusher.offer(outbox, now)
        permits, wake_at = self.scheduler.assign(now, STARTS)
        self._starting = True  # what is sent at once makes one timer, not one each
        for permit in permits:
            self._start(permit)
        self._starting = False
        if wake_at is not None and wake_at <= now:
            self._kick()
        else:
            self._set_timer(now)

    def _set_timer(self, now: int) -> None:
        wake_at = self.scheduler.wake_at
        if wake_at is not None and (self._timer is None or wake_at != self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = wake_at
            # Whole milliseconds, rounded up: uvloop cuts its clock to them, and a shorter wait would spin.
            delay = -(-max(0, wake_at - now) // MILLISECOND) / 1_000
            self._timer = self._loop.call_later(delay, self._on_timer)

    def _start(self, permit: Permit) -> None:
        outbox = self.open[permit.batch.id]
        call = outbox.spec.calls[permit.index]
        timeout = self.pool.timeout if call.timeout is None else call.timeout
        attempt = Attempt(permit, call, timeout, self._sent, self._done)
        outbox.attempts.add(attempt)
        self.upstream.begin(attempt)

    def _sent(self, attempt: Attempt, at: int) -> None:
        self.scheduler.sent(attempt.permit, at)
        if not self._starting:
            self._set_timer(at)  # its slot comes back by itself, answer or not

    def _done(self, attempt: Attempt, outcome: Outcome) -> None:
        self._ended.append((attempt, outcome))
        self._kick()

    def _settle(self, attempt: Attempt, outcome: Outcome, now: int) -> Outbox:
        permit = attempt.permit
        key = permit.key
        outbox = self.open[permit.batch.id]
        outbox.attempts.discard(attempt)
        answered_at = None
        if isinstance(outcome, Answer):
            answered_at = outcome.answered_at
            self._latency += (now - permit.taken_at - self._latency) / 16
        if permit.flight is None and not isinstance(outcome, NotSent):
            self.scheduler.sent(permit, now)
        self.scheduler.settle(permit, now, answered_at)
        tally = outbox.tally
        tally.calls_by_key[key.key.label] = tally.calls_by_key.get(key.key.label, 0) + 1
        tally.time_in_calls += now - permit.taken_at
        if permit.number > 1:
            tally.retries += 1
        failure = failure_of(outcome, self.pool)
        if failure is Reason.HTTP_429:
            self._block(permit, outcome, now)
        elif answered_at is not None:
            key.drawn_429 = 0
        if outbox.ending is Ending.CANCELLED:
            return outbox
        if failure is not None and outbox.ending is None:
            idempotent = attempt.call.idempotent
            wait = again_in(outbox.spec.retry, failure, permit.number, idempotent, self._draw())
            if wait is not None:
                again = Again(permit.index, permit.number + 1, permit.queue_time)
                self.scheduler.retry(outbox.batch, again, now + wait)
                return outbox
        latency = now - permit.taken_at
        result = Result(permit.index, outcome, failure, key.key.label, permit.number, permit.queue_time, latency, now)
        self._put(outbox, result)
        return outbox

    def _put(self, outbox: Outbox, result: Result) -> None:
        tally = outbox.tally
        tally.time_waiting += result.queue_time
        if result.failure is None:
            tally.succeeded += 1
        elif result.failure is Reason.DRAINING:
            tally.cancelled += 1
        else:
            tally.failed[result.failure] = tally.failed.get(result.failure, 0) + 1
        had = outbox.batch.room
        outbox.put(result)
        if had <= 0 < outbox.batch.room:
            self.scheduler.queue.wake(outbox.batch)

    def _block(self, permit: Permit, outcome: Outcome, now: int) -> None:
        assert isinstance(outcome, Answer)
        key = permit.key
        if permit.taken_at >= key.blocked_until or not key.drawn_429:
            key.drawn_429 += 1  # those that were in flight with the first one say nothing new
        wait = block_for(outcome, key.key, key.drawn_429, datetime.now(UTC))
        self.scheduler.block(key, now + wait)
        self._observer.key_blocked(self.pool.name, key.key.label, wait / SECOND, outcome.status)

    # -- endings ------------------------------------------------------------------------------

    def _end_unsent(self, outbox: Outbox, now: int) -> None:
        if outbox.ending is not None:
            return
        outbox.ending = Ending.DRAINING
        batch = outbox.batch
        first, queue_time = batch.next_index, now - batch.admitted_at
        for again in self.scheduler.drop(batch):
            attempts = again.number - 1
            self._put(outbox, Result(again.index, None, Reason.DRAINING, "", attempts, again.queue_time, 0, now))
        for index in range(first, batch.total):
            self._put(outbox, Result(index, None, Reason.DRAINING, "", 0, queue_time, 0, now))
        if not self._finish_if_done(outbox, now):
            self._flusher.offer(outbox, now)

    def _finish_if_done(self, outbox: Outbox, now: int) -> bool:
        if not outbox.finished:
            return False
        if self.open.pop(outbox.batch.id, None) is not None:
            self.scheduler.over(outbox.batch)
            self._over(outbox)
            self._flusher.offer(outbox, now)
        return True

    # -- what it knows ------------------------------------------------------------------------

    def forecast(self, now: int) -> Forecast:
        """What the keys can do from now on."""
        self.scheduler.advance(now)
        keys = self.scheduler.keys
        slots = self.pool.max_connections
        if all(key.key.max_in_flight is not None for key in keys):
            slots = min(slots, sum(key.most for key in keys))
        return Forecast(keys, now, int(self._latency), slots)

    def estimate(self, now: int) -> None:
        """Give every open batch its ETA."""
        if not self.open:
            return
        forecast = self.forecast(now)
        work = work_before([outbox.batch for outbox in self.open.values()])
        for id, outbox in self.open.items():
            outbox.eta = forecast.time_for(work.get(id, 1))

    def __repr__(self) -> str:
        return f"<Pump of {self.scheduler!r}: {len(self.open)} batches open>"
