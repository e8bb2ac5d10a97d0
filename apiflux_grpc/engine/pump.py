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

from apiflux_grpc.core.batch import Again, Batch
from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.cost import cost_of
from apiflux_grpc.core.forecast import Forecast, work_before
from apiflux_grpc.core.hints import hints
from apiflux_grpc.core.margin import RoundTrips
from apiflux_grpc.core.model import MILLISECOND, SECOND, Counts
from apiflux_grpc.core.outcome import Answer, Cause, NotSent, Reason, Result
from apiflux_grpc.core.retry import KEY_AT_FAULT, again_in, failure_of
from apiflux_grpc.core.waits import LONGEST_BACK_OFF, block_for, retry_after
from apiflux_grpc.engine.messages import Ending
from apiflux_grpc.engine.ports import Attempt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.call import Call
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.core.outcome import Outcome
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.scheduler import Scheduler
    from apiflux_grpc.engine.flusher import Flusher
    from apiflux_grpc.engine.outbox import Outbox
    from apiflux_grpc.engine.ports import Clock, Observer, Upstream

UPSTREAM_AT_FAULT: Final = frozenset({Reason.HTTP_5XX, Reason.TIMEOUT, Reason.UNKNOWN, Reason.NOT_SENT})
KEY_UNSEEN: Final = frozenset({Reason.HTTP_429, Reason.HTTP_5XX})
# How a batch ends whose unsent calls end for this reason.
ENDINGS: Final = {
    Reason.DRAINING: Ending.DRAINING,
    Reason.NO_USABLE_KEY: Ending.GIVEN_UP,
    Reason.STOPPED: Ending.STOPPED,
}
MOST_LATE: Final = 3  # for each call of a batch, on average; further ones count as attempts
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
        self.round_trips = RoundTrips()
        self.cuts = 0  # 429s although every limit was kept, once per limit and window
        self.malformed = 0  # values of headers about limits that couldn't be read
        self._unusable_since: int | None = None
        self._last_failure = ""  # of the upstream, in words
        self._draining = False

    @property
    def pool(self) -> Pool:
        return self.scheduler.pool

    # -- doors --------------------------------------------------------------------------------

    def submit(self, outbox: Outbox) -> None:
        """An admitted batch."""
        if outbox.spec.deadline is not None:
            now = self._clock()
            takes = self.shortest(outbox, now)
            if takes is None or takes > outbox.spec.deadline:
                outbox.ending, outbox.eta = Ending.INFEASIBLE, takes
                self._over(outbox)
                self._flusher.tell(outbox, now)
                return
        self.open[outbox.batch.id] = outbox
        self.scheduler.add(outbox.batch, outbox.spec.caller_weight)
        if self._draining:
            self._end_unsent(outbox, self._clock())
        self._kick()

    def feed(self, outbox: Outbox, calls: Sequence[tuple[int, Call, int]], wrong: Sequence[tuple[int, str]]) -> None:
        """More calls of a batch that is fed, and those that are wrong."""
        now = self._clock()
        if outbox.ending is Ending.CANCELLED:
            return
        for index, detail in wrong:
            self._reject(outbox, Result(index, None, Reason.INVALID_CALL, "", 0, 0, 0, now, detail, never_ran=True))
        if outbox.ending is None:
            outbox.feed(calls, now)
            self.scheduler.grow(outbox.batch, len(calls))
            self._kick()
        else:
            reason = next(reason for reason, ending in ENDINGS.items() if ending is outbox.ending)
            for index, _, _ in calls:
                self._reject(outbox, Result(index, None, reason, "", 0, 0, 0, now, never_ran=True))
        self._flusher.offer(outbox, now)

    def _reject(self, outbox: Outbox, result: Result) -> None:
        self._count(outbox, result)
        outbox.reject(result)

    def end(self, outbox: Outbox) -> None:
        """No more calls come."""
        outbox.closed = True
        self._finish_if_done(outbox, self._clock())

    def end_unsent(self, outbox: Outbox) -> None:
        """The caller has had enough: what waits ends as STOPPED, what is in flight goes on."""
        self._end_unsent(outbox, self._clock(), Reason.STOPPED)
        self.end(outbox)

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
        call = outbox.call(permit.index)
        timeout = self.pool.timeout if call.timeout is None else call.timeout
        attempt = Attempt(permit, call, timeout, self._sent, self._done)
        key = permit.key
        if key.budget.buckets or (key.group is not None and key.group.budget.buckets):
            attempt.send_by = permit.taken_at + key.budget.jitter // 2  # a bucket's pacer counts from the permit
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
        answered_at = actual = None
        if isinstance(outcome, Answer):
            answered_at = outcome.answered_at
            self._latency += (now - permit.taken_at - self._latency) / 16
            if not permit.index & 7:
                self.round_trips.add(max(0, answered_at - attempt.written_at))  # a sample is enough
            if self.pool.cost_from is not None:
                actual = cost_of(outcome, self.pool.cost_from)
        if permit.flight is None and not isinstance(outcome, NotSent):
            self.scheduler.sent(permit, now)
        self.scheduler.settle(permit, now, answered_at, actual)
        if (
            isinstance(outcome, NotSent)
            and outcome.cause is Cause.LATE
            and outbox.ending is None
            and outbox.late < MOST_LATE * outbox.batch.total
        ):
            # The connection took too long to open for a bucket's pacer. It is open now: that was no attempt.
            outbox.late += 1
            self._tell_breakers(permit, None, None, now)
            self.scheduler.retry(outbox.batch, Again(permit.index, permit.number, permit.queue_time), now)
            return outbox
        tally = outbox.tally
        tally.calls_by_key[key.key.label] = tally.calls_by_key.get(key.key.label, 0) + 1
        tally.time_in_calls += now - permit.taken_at
        if permit.number > 1:
            tally.retries += 1
        failure = failure_of(outcome, self.pool)
        told = self._judge(permit, outcome, failure, outbox.ending is Ending.CANCELLED, now)
        if outbox.ending is Ending.CANCELLED:
            return outbox
        if failure is not None and outbox.ending is None:
            idempotent = attempt.call.idempotent
            wait = again_in(outbox.spec.retry, failure, permit.number, idempotent, self._draw())
            if wait is not None:
                avoid = key if failure in KEY_AT_FAULT else None
                again = Again(permit.index, permit.number + 1, permit.queue_time, avoid)
                self.scheduler.retry(outbox.batch, again, now + max(wait, told))
                return outbox
        latency = now - permit.taken_at
        result = Result(permit.index, outcome, failure, key.key.label, permit.number, permit.queue_time, latency, now)
        self._put(outbox, result)
        return outbox

    # -- what an outcome says of its key and of the upstream --------------------------------------

    def _judge(self, permit: Permit, outcome: Outcome, failure: Reason | None, cancelled: bool, now: int) -> int:
        """Tell the scheduler; returns how long (ns) the call itself was told to wait."""
        # A gateway's 5xx, or a 429 before the key was looked at, says nothing of the key.
        works = None if failure in KEY_UNSEEN else failure is not Reason.KEY_REJECTED
        if failure is None and permit.key.breaker.calm and self.scheduler.breaker.calm:
            permit.key.drawn_429 = 0  # the usual case: nothing to say but that it works
            assert isinstance(outcome, Answer)
            for name in outcome.headers:
                if "rate" in name:
                    self._take_hints(permit.key, self._hints(outcome, datetime.now(UTC)), now)
                    break
            return 0
        elif cancelled and not isinstance(outcome, Answer):
            self._tell_breakers(permit, None, None, now)
        elif not isinstance(outcome, Answer):
            self._last_failure = outcome.detail
            self._tell_breakers(
                permit, None, None if isinstance(outcome, NotSent) and outcome.cause.ours else False, now
            )
        else:
            self._last_failure = f"HTTP {outcome.status}"
            self._tell_breakers(permit, works, failure not in UPSTREAM_AT_FAULT, now, outcome.status)
        if not isinstance(outcome, Answer):
            return 0
        wall_now = datetime.now(UTC)
        told = self._hints(outcome, wall_now)
        if failure is Reason.HTTP_429:
            self._block(permit, outcome, told, now, wall_now)
        else:
            permit.key.drawn_429 = 0
        if failure is not Reason.HTTP_429 or "retry-after" not in outcome.headers:
            self._take_hints(permit.key, told, now)  # Retry-After goes before
        if outcome.status == 503 and "retry-after" in outcome.headers:
            return retry_after(outcome.headers["retry-after"], wall_now) or 0
        return 0

    def _tell_breakers(
        self, permit: Permit, key_works: bool | None, upstream_works: bool | None, now: int, status: int = 0
    ) -> None:
        """None: that says nothing."""
        key, scheduler, observer, name = permit.key, self.scheduler, self._observer, self.pool.name
        if key_works is None:
            changed = key.breaker.abandoned(now, permit.key_era)
        elif key_works:
            changed = key.breaker.succeeded(now, permit.key_era)
            if changed:
                observer.key_accepted(name, key.key.label)
        else:
            changed = key.breaker.failed(now, permit.key_era)
            if changed:
                seconds = (key.breaker.ready_at(now) - now) / SECOND
                observer.key_rejected(name, key.key.label, seconds, status)
        if changed:
            scheduler.judged(key, now)
        if upstream_works is None:
            scheduler.breaker.abandoned(now, permit.pool_era)
        elif upstream_works:
            if scheduler.breaker.succeeded(now, permit.pool_era):
                observer.upstream_back(name)
        elif scheduler.breaker.failed(now, permit.pool_era):
            seconds = (scheduler.breaker.ready_at(now) - now) / SECOND
            observer.upstream_failing(name, seconds, self._last_failure)

    def _block(self, permit: Permit, outcome: Answer, told: Sequence[Hint], now: int, wall_now: datetime) -> None:
        key = permit.key
        if permit.taken_at >= key.blocked_until or not key.drawn_429:
            key.drawn_429 += 1  # those that were in flight with the first one say nothing new
        wait = block_for(outcome, key.key, key.drawn_429, wall_now)
        self.scheduler.block(key, now + wait)
        self._observer.key_blocked(self.pool.name, key.key.label, wait / SECOND, outcome.status)
        owner = key.budget
        if key.group is not None and key.group.budget.rank(now) < owner.rank(now):
            owner = key.group.budget
        spent = [(hint.counts, hint.per) for hint in told if not hint.remaining]
        cut = owner.cut(now, permit.taken_at, *(spent[0] if spent else (None, None)))
        if cut is not None:
            self.cuts += 1
            name = f"{cut.max}/{cut.per / SECOND:g}s {cut.counts.value}"
            self._observer.limit_cut(self.pool.name, key.key.label, name)

    def _hints(self, outcome: Answer, wall_now: datetime) -> Sequence[Hint]:
        told, malformed = hints(outcome.headers, wall_now)
        self.malformed += malformed
        return told

    def _take_hints(self, key: KeyState, told: Sequence[Hint], now: int) -> None:
        """What is left of its limits, less what is on its way, is the most that may still go until they reset."""
        for hint in told:
            counts = hint.counts or _counts_of(key, hint)
            flying = key.in_flight if counts is Counts.CALLS else key.cost_in_flight
            periods = [limit.per for limit in key.budget.limits if limit.counts is counts]
            lasts = hint.reset_in if hint.reset_in is not None else hint.per or min(periods, default=LONGEST_BACK_OFF)
            key.budget.tighten(counts, max(0, hint.remaining - flying), now + lasts)

    def _put(self, outbox: Outbox, result: Result) -> None:
        self._count(outbox, result)
        had = outbox.batch.room
        outbox.put(result)
        if had <= 0 < outbox.batch.room:
            self.scheduler.queue.wake(outbox.batch)

    def _count(self, outbox: Outbox, result: Result) -> None:
        tally = outbox.tally
        tally.time_waiting += result.queue_time
        if result.failure is None:
            tally.succeeded += 1
        elif result.failure in (Reason.DRAINING, Reason.STOPPED):
            tally.cancelled += 1
        else:
            tally.failed[result.failure] = tally.failed.get(result.failure, 0) + 1

    # -- endings ------------------------------------------------------------------------------

    def give_up(self, now: int) -> None:
        """Where no key could be used for longer than the pool's patience, end what waits."""
        if self.scheduler.usable(now) or not self.open:
            self._unusable_since = None
            return
        if self._unusable_since is None:
            self._unusable_since = now
        if now - self._unusable_since >= self.pool.patience:
            upstream = self.scheduler.breaker.state is not State.CLOSED
            why = f"the upstream fails: {self._last_failure}" if upstream else "it rejects every key"
            waiting = self.scheduler.waiting
            if waiting:
                self._observer.nothing_usable(self.pool.name, waiting, why)
            for outbox in list(self.open.values()):
                self._end_unsent(outbox, now, Reason.NO_USABLE_KEY)

    def _end_unsent(self, outbox: Outbox, now: int, reason: Reason = Reason.DRAINING) -> None:
        if outbox.ending is not None:
            return
        outbox.ending = ENDINGS[reason]
        outbox.closed = outbox.closed or reason is Reason.DRAINING  # whoever feeds it hears of the end
        batch = outbox.batch
        first = batch.next_index
        for again in self.scheduler.drop(batch):
            attempts = again.number - 1
            # One that isn't idempotent waits for a retry only where it certainly was not executed.
            never_ran = not attempts or not outbox.call(again.index).idempotent
            queued = again.queue_time
            self._put(outbox, Result(again.index, None, reason, "", attempts, queued, 0, now, never_ran=never_ran))
        for index in range(first, batch.total):
            came = batch.admitted_at if batch.since is None else batch.since[index]
            self._put(outbox, Result(index, None, reason, "", 0, now - came, 0, now, never_ran=True))
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
        return Forecast(keys, now, int(self._latency), slots, self.scheduler.groups)

    def estimate(self, now: int) -> None:
        """Give every open batch its ETA."""
        if not self.open:
            return
        forecast = self.forecast(now)
        cost = self._mean_cost()
        work = work_before([outbox.batch for outbox in self.open.values()])
        for id, outbox in self.open.items():
            outbox.eta = forecast.time_for(work.get(id, 1), cost)

    def shortest(self, outbox: Outbox, now: int) -> int | None:
        """How long (ns) the batch takes at least, with all capacity to itself; None: no key can be used."""
        batch = outbox.batch
        return self.forecast(now).permits_for(batch.total, outbox.cost)

    def makespan(self, caller: str, calls: int, cost: float, now: int) -> tuple[int | None, str]:
        """(ns, what binds) for a batch that came now and got its fair share."""
        forecast = self.forecast(now)
        guest = Batch(0, caller, calls, admitted_at=now)
        open_now = [outbox.batch for outbox in self.open.values()]
        work = work_before([*open_now, guest])[0] if calls > 0 else 0
        waiting = sum(batch.waiting for batch in open_now)
        mean = (self._mean_cost() * waiting + cost * calls) / max(1, waiting + calls)
        return forecast.time_for(work, mean), forecast.binding(work, mean)

    def _mean_cost(self) -> float:
        """Of the calls that wait."""
        waiting = cost = 0.0
        for outbox in self.open.values():
            waiting += outbox.batch.waiting
            cost += outbox.batch.waiting * outbox.cost
        return cost / waiting if waiting else 1.0

    def __repr__(self) -> str:
        return f"<Pump of {self.scheduler!r}: {len(self.open)} batches open>"


def _counts_of(key: KeyState, hint: Hint) -> Counts:
    """What a hint that doesn't say so counts: as the limit that it means, else the only kind that the key has."""
    limits = key.budget.limits
    for limit in limits:
        if hint.max == limit.max and hint.per in (None, limit.per):
            return limit.counts
    kinds = {limit.counts for limit in limits}
    return kinds.pop() if len(kinds) == 1 else Counts.CALLS
