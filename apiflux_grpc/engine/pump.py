"""assign -> call -> settle, for one pool.

Rule: nothing is decided here. A pass takes what ended, has the dispatcher settle it, delivers the results, tells the
events, has it assign, begins what was assigned and sets the one timer. Passes are coalesced, one in a turn of the
loop; no task and no timer exists per waiting call. The clock is read anew at every pass: a timer that rings early
costs one empty pass and nothing else.

Owner: the engine's loop.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.engine.leasing import Lessee
from apiflux_grpc.engine.messages import ChangeLimits, ChangeMaxInFlight, Pause, Rotate
from apiflux_grpc.engine.ports import Attempt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from apiflux_grpc.core.batch import FedCall
    from apiflux_grpc.core.dispatcher import Dispatcher
    from apiflux_grpc.core.endings import Ended
    from apiflux_grpc.core.info import PoolSnapshot
    from apiflux_grpc.core.outcome import Outcome, Result
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.engine.flusher import Flusher
    from apiflux_grpc.engine.messages import Change
    from apiflux_grpc.engine.outbox import Outbox
    from apiflux_grpc.engine.ports import Clock, LeaseStore, Observer, Upstream

STARTS: Final = 200  # attempts begun in one pass, so that answers are read in between


class Pump:
    """Drives the dispatcher of one pool with a clock, an upstream and the outboxes of its batches."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        upstream: Upstream,
        flusher: Flusher,
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        guard: Callable[[Callable[[], None]], Callable[[], None]],
        over: Callable[[Outbox], None],
        draw: Callable[[], float] = random.random,
        store: LeaseStore | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.pool = dispatcher.pool
        self.upstream = upstream
        self._open: dict[int, Outbox] = {}
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
        self.lessee: Lessee | None = None  # of a pool that shares its budgets
        if store is not None and (borrowing := dispatcher.borrowing) is not None:
            ask, kick, tell = dispatcher.ask, self._kick, self._tell_events
            self.lessee = Lessee(store, borrowing, ask, kick, loop, clock, guard, draw, tell)
            self._kick()  # the store is to know it before there is work

    # -- doors --------------------------------------------------------------------------------

    def submit(self, outbox: Outbox) -> None:
        """An admitted batch."""
        self._open[outbox.batch.id] = outbox
        now = self._clock()
        self._deliver(outbox, self.dispatcher.submit(outbox.batch, now), now)

    def feed(self, outbox: Outbox, calls: Sequence[FedCall], wrong: Sequence[tuple[int, str]]) -> None:
        """More calls of a batch that is fed, and those that are wrong."""
        now = self._clock()
        self._deliver(outbox, self.dispatcher.feed(outbox.batch, calls, wrong, now), now)

    def end(self, outbox: Outbox) -> None:
        """No more calls come."""
        self.dispatcher.end(outbox.batch)
        self._deliver(outbox, (), self._clock())

    def stop(self, outbox: Outbox) -> None:
        """The caller has had enough: what waits ends as STOPPED, what is in flight goes on."""
        now = self._clock()
        self._deliver(outbox, self.dispatcher.stop(outbox.batch, now), now)

    def credit(self, outbox: Outbox, results: int, size: int) -> None:
        """The reader has taken results."""
        if outbox.credit(results, size):
            self.dispatcher.room(outbox.batch)
            self._kick()

    def cancel(self, outbox: Outbox) -> None:
        """Unsent calls are dropped, the others stopped; the batch is over when none is in flight. Idempotent."""
        self.dispatcher.cancel(outbox.batch)
        for attempt in list(outbox.attempts):
            self.upstream.cancel(attempt)
        self._deliver(outbox, (), self._clock())

    def change(self, change: Change) -> None:
        """Something of a key is another from now on."""
        now = self._clock()
        match change:
            case ChangeLimits(_, index, limits, of_group):
                of = self.dispatcher.change_group_limits if of_group else self.dispatcher.change_limits
                of(index, limits, now)
            case ChangeMaxInFlight(_, index, most):
                self.dispatcher.change_max_in_flight(index, most, now)
            case Pause(_, index, paused):
                (self.dispatcher.pause if paused else self.dispatcher.resume)(index, now)
            case Rotate(_, index, secret):
                self.dispatcher.rotate(index, secret, now)
        self._tell_events()
        self._kick()

    def drain(self) -> None:
        """What was never sent ends as DRAINING; what is in flight goes on."""
        self._end(self.dispatcher.drain(now := self._clock()), now)

    def cut(self) -> None:
        """The grace has passed: stop what is still in flight; each of those calls still gets its result."""
        for outbox in list(self._open.values()):
            for attempt in list(outbox.attempts):
                self.upstream.cancel(attempt)

    def tick(self, now: int) -> None:
        """What is due about once a second."""
        self._end(self.dispatcher.tick(now), now)

    def info(self, now: int, *, detail: bool) -> PoolSnapshot:
        """The state of the pool; with `detail` of every key too."""
        return self.dispatcher.info(now, self.upstream.connecting(), detail=detail)

    def close(self) -> None:
        """No more passes."""
        self._due = True
        if self.lessee is not None:
            self.lessee.close()
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
            self._settle(now)
        permits, wake_at = self.dispatcher.assign(now, STARTS)
        self._starting = True  # what is sent at once makes one timer, not one each
        for permit in permits:
            self._begin(permit)
        self._starting = False
        if self.lessee is not None:
            self.lessee.look(now)
        if wake_at is not None and wake_at <= now:
            self._kick()
        else:
            self._set_timer(now)

    def _settle(self, now: int) -> None:
        """All that ended first, then all that may start: so each pass assigns once, over all that is free."""
        ended, self._ended = self._ended, []
        settle, draw, wall_now = self.dispatcher.settle, self._draw, datetime.now(UTC)
        touched: dict[int, Outbox] = {}
        for attempt, outcome in ended:
            permit = attempt.permit
            outbox = touched[permit.batch.id] = self._open[permit.batch.id]
            outbox.attempts.discard(attempt)
            result = settle(permit, outcome, now, wall_now, draw())
            if result is not None and outbox.put(result):
                self.dispatcher.room(outbox.batch)
        for outbox in touched.values():
            self._offer(outbox, now)
        self._tell_events()

    def _begin(self, permit: Permit) -> None:
        outbox = self._open[permit.batch.id]
        call = outbox.batch.call_at(permit.place)
        timeout = self.pool.timeout if call.timeout is None else call.timeout
        attempt = Attempt(permit, call, timeout, self._sent, self._done)
        within = permit.send_within
        if within is not None:
            attempt.send_by = permit.taken_at + within
        outbox.attempts.add(attempt)
        self.upstream.begin(attempt)

    def _sent(self, attempt: Attempt, at: int) -> None:
        self.dispatcher.sent(attempt.permit, at)
        if not self._starting:
            self._set_timer(at)  # its slot comes back by itself, answer or not

    def _done(self, attempt: Attempt, outcome: Outcome) -> None:
        self._ended.append((attempt, outcome))
        self._kick()

    def _set_timer(self, now: int) -> None:
        wake_at = self.dispatcher.wake_at
        if wake_at is not None and (self._timer is None or wake_at != self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = wake_at
            # Whole milliseconds, rounded up: uvloop cuts its clock to them, and a shorter wait would spin.
            delay = -(-max(0, wake_at - now) // MILLISECOND) / 1_000
            self._timer = self._loop.call_later(delay, self._on_timer)

    # -- results ------------------------------------------------------------------------------

    def _deliver(self, outbox: Outbox, results: Iterable[Result], now: int) -> None:
        for result in results:
            outbox.put(result)
        self._offer(outbox, now)
        self._kick()

    def _end(self, ended: Ended, now: int) -> None:
        for batch, results in ended:
            self._deliver(self._open[batch.id], results, now)
        self._tell_events()

    def _offer(self, outbox: Outbox, now: int) -> None:
        """Post what there is when it is time; a batch that is over at once, and for the last time."""
        if outbox.batch.finished:
            if self._open.pop(outbox.batch.id, None) is None:
                return
            self._over(outbox)
        self._flusher.offer(outbox, now)

    def _tell_events(self) -> None:
        for event in self.dispatcher.take_events():
            self._observer.tell(self.pool.name, event)

    def __repr__(self) -> str:
        return f"<Pump of {self.dispatcher!r}>"
