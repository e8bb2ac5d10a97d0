"""The engine's side of the two mailboxes: pools, pumps and open batches.

Rule: every entry into the engine, timers included, is guarded. An exception there would only reach the loop's own
handler, and the pump would stop without a word. A crash says Down first and cleans up second.

Owner: the engine's loop. Nothing here is called from another; only messages go in and out.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.leased import Leasing
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.flusher import Flusher
from apiflux_grpc.engine.messages import (
    Ask,
    Beat,
    Cancel,
    ChangeLimits,
    ChangeMaxInFlight,
    Credit,
    Down,
    Drain,
    Echo,
    End,
    EndUnsent,
    Feed,
    Inbound,
    Pause,
    Rotate,
    Snapshot,
    Stop,
    Submit,
    Told,
)
from apiflux_grpc.engine.outbox import Outbox
from apiflux_grpc.engine.pump import Pump

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.engine.messages import BatchSpec, Outbound
    from apiflux_grpc.engine.ports import Clock, LeaseStore, Observer, Upstream

STANDING_EVERY: Final = SECOND


@dataclass(frozen=True, slots=True)
class PoolParts:
    """What a pool is made of. The factories are called on the engine's loop, and so is the store.

    `life` is that of its leases (ns), None: as follows from each budget's shortest limit and the store. `trust`: an
    empty store means that nothing was spent before.
    """

    pool: Pool
    make_upstream: Callable[[], Upstream]
    make_pacer: PacerFactory | None
    draw: Callable[[], float] = random.random  # in [0, 1); spreads retries
    store: LeaseStore | None = None  # where it shares its budgets with others; None: they are its own
    life: int | None = None
    trust: bool = True


class Batches:
    """The pools at work, and every open batch."""

    def __init__(
        self,
        parts: Sequence[PoolParts],
        post: Callable[[Outbound], None],
        observer: Observer,
        clock: Clock,
        batch_size: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()  # so the engine's objects can only be made on its own loop
        self._post = post
        self._observer = observer
        self._clock = clock
        self.stopped = asyncio.Event()
        self.crashed = False
        self._open: dict[int, tuple[Pump, Outbox]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._flusher = Flusher(post, self._loop, clock, self._guard, batch_size)
        self.pumps = {
            part.pool.name: Pump(
                Dispatcher(part.pool, part.make_pacer, clock(), _leasing(part)),
                part.make_upstream(),
                self._flusher,
                observer,
                self._loop,
                clock,
                self._guard,
                self._over,
                part.draw,
                part.store,
            )
            for part in parts
        }
        self._stores = [part.store for part in parts if part.store is not None]
        self._tick = self._guard(self._tell_standing)
        self._arm("standing", STANDING_EVERY, self._tick)

    def handle(self, message: Inbound) -> None:
        """One message from the server."""
        try:
            self._dispatch(message)
        except Exception as error:
            self.crash(error)

    def _dispatch(self, message: Inbound) -> None:
        if self.crashed:
            return
        match message:
            case Submit(id, spec):
                pump = self.pumps[spec.pool]
                outbox = Outbox(self._batch(id, spec), ordered=spec.ordered)
                self._open[id] = (pump, outbox)
                self._flusher.streams += 1
                pump.submit(outbox)
            case Feed(id) | End(id) | EndUnsent(id) | Credit(id) | Cancel(id):
                if id in self._open:  # it may have ended while this was on its way
                    self._pass_on(message, *self._open[id])
            case Beat(detail):
                now = self._clock()
                pools = {name: pump.info(now, detail=detail) for name, pump in self.pumps.items()}
                self._post(Echo(Snapshot(pools, len(self._open)), detail))
            case Ask(id, pool, caller, calls, cost):
                makespan, binding = self.pumps[pool].dispatcher.makespan(caller, calls, cost, self._clock())
                self._post(Told(id, makespan, binding))
            case ChangeLimits(pool) | ChangeMaxInFlight(pool) | Pause(pool) | Rotate(pool):
                self.pumps[pool].change(message)
            case Drain(grace):
                for pump in self.pumps.values():
                    pump.drain()
                self._arm("grace", grace, self._guard(self._cut))
            case Stop():  # what is in flight ends in close()
                for pump, outbox in list(self._open.values()):
                    pump.cancel(outbox)
                self.stopped.set()

    def _pass_on(self, message: Feed | End | EndUnsent | Credit | Cancel, pump: Pump, outbox: Outbox) -> None:
        match message:
            case Feed(_, calls, wrong):
                pump.feed(outbox, calls, wrong)
            case End():
                pump.end(outbox)
            case EndUnsent():
                pump.stop(outbox)
            case Credit(_, results, size):
                pump.credit(outbox, results, size)
            case Cancel():
                pump.cancel(outbox)

    def _batch(self, id: int, spec: BatchSpec) -> Batch:
        return Batch(
            id,
            spec.caller,
            len(spec.calls),
            admitted_at=self._clock(),
            calls=spec.calls,
            costs=spec.costs,
            fed=spec.fed,
            expected=spec.expected,
            policy=spec.retry,
            weight=spec.weight,
            caller_weight=spec.caller_weight,
            deadline=spec.deadline,
            classes=spec.classes,
        )

    def _over(self, outbox: Outbox) -> None:
        if self._open.pop(outbox.batch.id, None) is not None:
            self._flusher.streams -= 1

    def _cut(self) -> None:
        for pump in self.pumps.values():
            pump.cut()

    def _tell_standing(self) -> None:
        now = self._clock()
        for pump in self.pumps.values():
            pump.tick(now)
        for _, outbox in list(self._open.values()):
            is_news = outbox.batch.eta is not None and not outbox.eta_posted
            if is_news or now - outbox.posted_at >= STANDING_EVERY:
                self._flusher.tell(outbox, now)
        self._arm("standing", STANDING_EVERY, self._tick)

    def _arm(self, name: str, delay: int, callback: Callable[[], None]) -> None:
        self._timers[name] = self._loop.call_later(delay / 1e9, callback)

    def _guard(self, function: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            if self.crashed:
                return
            try:
                function()
            except Exception as error:
                self.crash(error)

        return guarded

    def crash(self, error: BaseException) -> None:
        """A fault of ours: say Down first, then end."""
        if self.crashed:
            return
        self.crashed = True
        error_id = uuid.uuid4().hex[:12]
        # Before the observer is told: its log may be slow.
        self._post(Down(error_id))
        self._observer.crashed(error, error_id)
        self.stopped.set()

    async def close(self) -> None:
        """End every attempt and every connection."""
        for timer in self._timers.values():
            timer.cancel()
        for pump in self.pumps.values():
            await pump.upstream.close()
        await asyncio.sleep(0)  # what close() ended is settled in one more pass
        lessees = [pump.lessee for pump in self.pumps.values() if pump.lessee is not None]
        if not self.crashed:
            await asyncio.gather(*(lessee.leave() for lessee in lessees))
        for pump in self.pumps.values():
            pump.close()
        self._flusher.close()
        for store in self._stores:
            await store.close()


def _leasing(part: PoolParts) -> Leasing | None:
    if part.store is None:
        return None
    return Leasing(secrets.token_hex(16), part.life, part.trust, part.store.least_life, part.store.is_near)
