"""The run of a plan: the service's own dispatcher on virtual time.

Rule: nothing is decided here. The dispatcher decides, with its windows, pacers, fair queue, retries and breakers; this
module is its pump, with a heap of answers for a network: it settles what is answered, has calls assigned, and asks
again at the dispatcher's wake-ups, which are in whole milliseconds as the service's timers are. What an upstream
answers is drawn in draws.py.

Modelled: a call goes out with its permit, arrives at once, and is answered after its latency; its slot is charged with
the arrival margin as in the service. All batches are of one caller and equal weight, the budgets start unspent, and
readers take results at once.

Not modelled: a network whose delay differs on the way out, connecting, CPU time, limits that others use up too, answers
that tell what a call really cost, and slow readers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import LONGEST, MILLISECOND, SECOND
from apiflux_grpc.engine.pump import STARTS
from apiflux_grpc.plan.record import Run, State
from apiflux_grpc.testing import FakePacer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.plan.draws import Drawn
    from apiflux_grpc.plan.question import Question


HORIZON: Final = 100 * LONGEST  # a plan that takes longer is refused
TICK: Final = SECOND
TOLD: Final = 1000  # results between two words on how far it is
_WALL: Final = datetime(2000, 1, 1, tzinfo=UTC)  # for answers that tell a date, which none does here


def simulate(question: Question, *, keep: bool = False, tell: Callable[[int], object] = lambda done: None) -> Run:
    """The dispatcher at work on virtual time. `keep`: the results too; `tell` is told how many there are, now and then.

    Raises ValueError if it would take more than a hundred years.
    """
    return _Simulation(question, keep, tell).run()


class _Simulation:
    """What the engine's pump keeps, with heaps for the loop's timers."""

    def __init__(self, question: Question, keep: bool, tell: Callable[[int], object]) -> None:
        self._pool = replace(question.pool, cost_from=None)
        self._draws = question.draws
        self._dispatcher = Dispatcher(self._pool, FakePacer)
        self._run = Run(self._pool.keys, question.arrivals, keep=keep)
        self._tell = tell
        self._told_at = 0
        self._arrivals = arrivals = question.arrivals
        self._coming = deque(sorted(range(len(arrivals)), key=lambda place: arrivals[place].at))
        self._ending: list[tuple[int, int, Permit, Drawn]] = []  # a heap of (answer, number, ...)
        self._sends = 0
        self._timer: int | None = None  # when it rings
        self._timer_at: int | None = None  # the wake-up that it was set for
        self._tick_at: int | None = None
        self._impatient = False  # at the last tick no key was usable

    def run(self) -> Run:
        now = 0
        while True:
            # In the order of the engine's loop: timers, what ended, and then what comes.
            if now == self._tick_at:
                self._tick(now)
            if now == self._timer or (self._ending and self._ending[0][0] <= now):
                self._settle(now)
                self._assign(now)
            if self._arrive(now):
                self._assign(now)
            following = self._next()
            if following is None:
                break
            now = max(now, following)
            if now > HORIZON:
                raise ValueError("this plan would take more than a hundred years; plan fewer calls or more keys")
        if not self._run.is_over:
            raise ValueError("a call waits that no key can ever pay for; raise the smallest limit")
        return self._run

    def _next(self) -> int | None:
        """When anything happens next; None: all is over."""
        if self._run.is_over:
            return None
        following = [self._ending[0][0]] if self._ending else []
        if self._coming:
            following.append(self._run.batches[self._coming[0]].at)
        if self._timer is not None:
            following.append(self._timer)
        if self._tick_at is not None:
            following.append(self._tick_at)
        return min(following, default=None)

    def _arrive(self, now: int) -> bool:
        """Submit the batches that come now."""
        came = False
        while self._coming and self._run.batches[self._coming[0]].at <= now:
            came = True
            place = self._coming.popleft()
            size, load = self._arrivals[place].size, self._arrivals[place].load
            batch = Batch(
                place,
                "plan",
                size,
                admitted_at=now,
                calls=load.calls(size),
                costs=load.costs,
                classes=load.path_classes(size, self._dispatcher.scheduler.classes),
                policy=self._pool.retry,
            )
            self._deliver(batch, self._dispatcher.submit(batch, now), now)
        return came

    def _settle(self, now: int) -> None:
        while self._ending and self._ending[0][0] <= now:
            _, _, permit, drawn = heappop(self._ending)
            outcome = Answer(drawn.status, NO_HEADERS, b"", now)
            result = self._dispatcher.settle(permit, outcome, now, _WALL, drawn.draw)
            if result is not None:
                self._run.ended_one(permit.batch.id, result, now)
        if self._run.done - self._told_at >= TOLD:
            self._told_at = self._run.done
            self._tell(self._told_at)

    def _assign(self, now: int) -> None:
        wake_at: int | None = now
        while wake_at is not None and wake_at <= now:
            permits, wake_at = self._dispatcher.assign(now, STARTS)
            for permit in permits:
                self._begin(permit, now)
        self._set_timer(now)
        self._note(now)
        self._set_tick(now)

    def _begin(self, permit: Permit, now: int) -> None:
        key = permit.key
        call = self._run.call_number(permit.batch.id, permit.place)
        drawn = self._draws.send(call, permit.number, key.key.label)
        self._dispatcher.sent(permit, now)
        answer = now + drawn.latency
        self._sends += 1
        heappush(self._ending, (answer, self._sends, permit, drawn))
        self._run.sends[key.index].add(now, answer, permit.cost, permit.path_class)

    def _set_timer(self, now: int) -> None:
        """As the pump does: a timer is set anew only for another wake-up, and rings in whole milliseconds."""
        if self._timer is not None and self._timer <= now:
            self._timer = None
        wake_at = self._dispatcher.wake_at
        if wake_at is not None and (self._timer is None or wake_at != self._timer_at):
            self._timer_at = wake_at
            self._timer = now + max(1, -(-(wake_at - now) // MILLISECOND)) * MILLISECOND

    def _tick(self, now: int) -> None:
        self._impatient = self._unusable(now)
        for batch, results in self._dispatcher.tick(now):
            self._deliver(batch, results, now)
        self._note(now)
        self._set_tick(now)

    def _set_tick(self, now: int) -> None:
        """A tick matters to results only while no key is usable, once after that, when patience begins anew, and when
        a call may have waited for as long as its pool lets it.

        All others are left out: a plan of weeks would have millions.
        """
        needed = self._impatient or self._unusable(now)
        at = now if needed else self._dispatcher.expires_at
        self._tick_at = (at // TICK + 1) * TICK if at < FAR else None

    def _unusable(self, now: int) -> bool:
        scheduler = self._dispatcher.scheduler
        return (scheduler.waiting > 0 or scheduler.in_flight > 0) and not scheduler.usable()

    def _deliver(self, batch: Batch, results: Iterable[Result], now: int) -> None:
        for result in results:
            self._run.ended_one(batch.id, result, now)

    def _note(self, now: int) -> None:
        for event in self._dispatcher.take_events():
            self._run.note_event(event, now)
        scheduler = self._dispatcher.scheduler
        waits = scheduler.head is not None
        full = scheduler.in_flight >= self._pool.max_connections
        self._run.note_state(State(now, waits, not waits and scheduler.waiting > 0, full))
