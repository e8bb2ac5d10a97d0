"""Where server and engine meet: two event loops, two mailboxes, nothing else shared.

Rule: `Engine` lives on the server's loop and `_Works` on the engine's own, in a second thread; only messages cross.
The same code runs with both on one loop (tests, virtual time). Every entry into the engine, timers included, is
guarded: an exception there would only reach the loop's handler and the pump would die silently. A crash says Down
first and cleans up second; the thread's outermost `finally` says it too, so no stream can hang.

Waiting here always has a timeout. Beat and Echo are the watchdog: no echo for five seconds, and `healthy` is False.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.errors import Draining, EngineFailed, PoolNotFound
from apiflux_grpc.core.model import SECOND
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.engine.control import snapshot
from apiflux_grpc.engine.intake import (
    Admission,
    Ask,
    BatchSpec,
    Beat,
    Bounds,
    Cancel,
    Credit,
    Drain,
    End,
    EndUnsent,
    Feed,
    Inbound,
    Stop,
    Submit,
)
from apiflux_grpc.engine.mailbox import Mailbox
from apiflux_grpc.engine.outbox import FLUSH_BYTES, Down, Echo, Flusher, Outbound, Outbox, Results, Told, Up
from apiflux_grpc.engine.pump import Pump

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from apiflux_grpc.core.budget import PacerFactory
    from apiflux_grpc.core.model import Call, Pool
    from apiflux_grpc.engine.control import Snapshot
    from apiflux_grpc.engine.ports import Clock, Observer, Upstream

_log = logging.getLogger("apiflux.engine")

BEAT_EVERY: Final = 1.0  # seconds
SILENCE: Final = 5.0  # seconds without an echo until the engine counts as stuck
STANDING_EVERY: Final = SECOND


@dataclass(frozen=True, slots=True)
class PoolParts:
    """What a pool is made of. The factories are called on the engine's loop."""

    pool: Pool
    make_upstream: Callable[[], Upstream]
    make_pacer: PacerFactory | None


class _Works:
    """The engine's side: pools, pumps and open batches. Lives on the engine's loop alone."""

    def __init__(
        self,
        parts: Sequence[PoolParts],
        post: Callable[[Outbound], None],
        observer: Observer,
        clock: Clock,
        batch_size: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
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
                Scheduler(part.pool, part.make_pacer, clock()),
                part.make_upstream(),
                self._flusher,
                observer,
                self._loop,
                clock,
                self._guard,
                self._over,
            )
            for part in parts
        }
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
                outbox = Outbox(id, spec, self._clock())
                self._open[id] = (pump, outbox)
                self._flusher.streams += 1
                pump.submit(outbox)
            case Feed(id) | End(id) | EndUnsent(id) | Credit(id) | Cancel(id):
                if id in self._open:
                    self._pass_on(message, *self._open[id])
            case Beat(detail):
                state = snapshot(self.pumps.values(), len(self._open), self._clock(), detail)
                self._post(Echo(state))
            case Ask(id, pool, caller, calls, cost):
                makespan, binding = self.pumps[pool].makespan(caller, calls, cost, self._clock())
                self._post(Told(id, makespan, binding))
            case Drain(grace):
                for pump in self.pumps.values():
                    pump.drain()
                self._arm("grace", grace, self._guard(self._cut))
            case Stop():
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
                pump.end_unsent(outbox)
            case Credit(_, results, size):
                pump.credit(outbox, results, size)
            case Cancel():
                pump.cancel(outbox)

    def _over(self, outbox: Outbox) -> None:
        if self._open.pop(outbox.batch.id, None) is not None:
            self._flusher.streams -= 1

    def _cut(self) -> None:
        for pump in self.pumps.values():
            pump.cut()

    def _tell_standing(self) -> None:
        now = self._clock()
        for pump in self.pumps.values():
            pump.give_up(now)
            pump.estimate(now)
        for _, outbox in list(self._open.values()):
            if now - outbox.posted_at >= STANDING_EVERY:
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
        for pump in self.pumps.values():
            pump.close()
        self._flusher.close()


class Ticket:
    """The server's hold on one batch: its results come out of here. Lives on the server's loop."""

    __slots__ = (
        "_engine",
        "_failed",
        "_inbox",
        "_over",
        "_sizes",
        "_stirred",
        "_waiter",
        "deadline",
        "held",
        "id",
        "received",
        "size",
        "total",
    )

    def __init__(self, engine: Engine, id: int, total: int, size: int, deadline: int | None = None) -> None:
        self._engine = engine
        self.id = id
        self.deadline = deadline
        self.total = total
        self.size = size
        self.received = 0
        self._inbox: deque[Results] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._failed: Exception | None = None
        self.held = 0  # bytes of calls that were fed and have no result yet
        self._sizes: dict[int, int] = {}
        self._stirred: asyncio.Future[None] | None = None

    async def next(self, most: int) -> Results:
        """Wait for results, up to `most` where they came in smaller pieces; maybe none, with the standing alone.

        Raises EngineFailed after the last result that came, if a fault of ours ended the batch.
        """
        inbox = self._inbox
        while not inbox:
            if self._failed is not None:
                raise self._failed
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        first = inbox.popleft()
        items, size, standing, over = first.items, first.size, first.standing, first.over
        while inbox and len(items) + len(inbox[0].items) <= most and size + inbox[0].size <= FLUSH_BYTES:
            more = inbox.popleft()
            items += more.items
            size += more.size
            standing, over = more.standing, more.over
        return Results(self.id, items, size, standing, over)

    def feed(
        self, calls: Sequence[tuple[int, Call, int]], wrong: Sequence[tuple[int, str]], sizes: Mapping[int, int]
    ) -> None:
        """More calls of a batch that is fed: (index, call, cost), or (index, what is wrong); bytes of each by index."""
        if not self._over and self._failed is None:
            self._sizes.update(sizes)
            self.held += sum(sizes.values())
            count = len(calls) + len(wrong)
            self.total += count
            self._engine.admission.calls += count
            self._engine.post(Feed(self.id, calls, wrong))

    def end(self) -> None:
        """No more calls will be fed."""
        if not self._over:
            self._engine.post(End(self.id))

    def end_unsent(self) -> None:
        """No more calls will be fed, and those that wait end as STOPPED."""
        if not self._over:
            self._engine.post(EndUnsent(self.id))

    @property
    def unfinished(self) -> int:
        """Calls that were fed and have no result yet."""
        return self.total - self.received

    async def progress(self) -> None:
        """Wait until more results have come, or the batch is over."""
        if self._over or self._failed is not None:
            return
        if self._stirred is None:
            self._stirred = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._stirred)

    @property
    def is_over(self) -> bool:
        return self._over or self._failed is not None

    def credit(self, results: int, size: int) -> None:
        """Results were written: their places are free again."""
        if not self._over:
            self._engine.post(Credit(self.id, results, size))

    def cancel(self) -> None:
        """Stop the batch if it isn't over. Idempotent; never waits."""
        if not self._over and self._failed is None:
            self._engine.post(Cancel(self.id))

    def deliver(self, message: Results) -> None:
        self.received += len(message.items)
        if self._sizes:
            for item in message.items:
                self.held -= self._sizes.pop(item.index, 0)
        self._inbox.append(message)
        self._over = message.over is not None
        self._ring()

    def check(self) -> None:
        """Raises what ended the batch, if it was a fault."""
        if self._failed is not None:
            raise self._failed

    def fail(self, error: Exception) -> None:
        """End it for the reader, after what has come."""
        self._failed = error
        self._ring()

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._stirred is not None:
            stirred, self._stirred = self._stirred, None
            if not stirred.done():
                stirred.set_result(None)


class Engine:
    """The engine as the server sees it: submit a batch, read its ticket, drain, stop. Lives on the server's loop."""

    def __init__(
        self,
        parts: Sequence[PoolParts],
        observer: Observer,
        *,
        bounds: Bounds | None = None,
        clock: Clock = time.monotonic_ns,
        batch_size: int = 100,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        on_health: Callable[[bool], None] = lambda healthy: None,
    ) -> None:
        self._parts = parts
        self._observer = observer
        self._clock = clock
        self._batch_size = batch_size
        self._loop_factory = loop_factory
        self._on_health = on_health
        self.admission = Admission(bounds or Bounds())
        self.pools: Mapping[str, Pool] = {part.pool.name: part.pool for part in parts}
        self.healthy = False
        self.draining = False
        self.failure: str | None = None  # the error id of a crash
        self.snapshot: Snapshot | None = None  # at most a beat old
        self._tickets: dict[int, Ticket] = {}
        self._next_id = 0
        self._inbox: Mailbox[Inbound] | None = None
        self._thread: threading.Thread | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asked: dict[int, asyncio.Future[Told]] = {}
        self._echoes: list[asyncio.Future[Snapshot]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._up = asyncio.Event()
        self.down = asyncio.Event()
        self._echo_at = 0.0
        self._outbox: Mailbox[Outbound] | None = None

    # -- life ---------------------------------------------------------------------------------

    async def start(self, *, own_thread: bool = True, timeout: float = 30.0) -> None:
        """Start the engine and wait until it is up. Raises EngineFailed when it doesn't come up."""
        loop = asyncio.get_running_loop()
        self._outbox = Mailbox(loop, self._handle)
        if own_thread:
            self._thread = threading.Thread(target=self._run_thread, name="apiflux-engine", daemon=True)
            self._thread.start()
        else:
            self._tasks.append(loop.create_task(self._main()))
        waits = [loop.create_task(self._up.wait()), loop.create_task(self.down.wait())]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not self._up.is_set():
            raise EngineFailed(self.failure or "no answer")
        self._echo_at = loop.time()
        self._set_health(True)
        self._tasks.append(loop.create_task(self._beat()))

    def drain(self, grace: int) -> None:
        """Refuse new batches; unsent calls end as DRAINING; calls in flight have `grace` ns to finish."""
        self.draining = True
        self.post(Drain(grace))

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until no batch is open; False: it took longer than `timeout` seconds."""
        return await _wait(self._idle, timeout)

    async def stop(self, timeout: float = 5.0) -> None:
        """End everything that is open, and the thread."""
        self.draining = True
        self.post(Stop())
        down = await _wait(self.down, timeout)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout if down else 0)
            if self._thread.is_alive():
                self.failure = self.failure or "stuck"
                _log.error("the engine's thread did not end")

    # -- work ---------------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """The pool of this name; raises PoolNotFound."""
        pool = self.pools.get(name)
        if pool is None:
            raise PoolNotFound(name[:64], list(self.pools))
        return pool

    def submit(self, spec: BatchSpec) -> Ticket:
        """Admit a batch or refuse it at once: raises PoolNotFound, Draining, Overloaded or EngineFailed."""
        if self.failure is not None:
            raise EngineFailed(self.failure)
        if self.draining:
            raise Draining(5 * SECOND)
        self.pool(spec.pool)
        total = len(spec.calls)
        self.admission.admit(total, spec.size, self.drain_time(spec.pool))
        self._next_id += 1
        ticket = Ticket(self, self._next_id, total, spec.size, spec.deadline)
        self._tickets[ticket.id] = ticket
        self._idle.clear()
        self.post(Submit(ticket.id, spec))
        return ticket

    def drain_time(self, pool: str) -> int:
        """How long (ns) what waits now takes, by the last snapshot; at least a second."""
        known = None if self.snapshot is None else self.snapshot.pools[pool].drain_time
        return max(SECOND, known or 0)

    async def look(self, timeout: float = 5.0) -> Snapshot | None:
        """The engine's state now, with every key; None: it doesn't answer."""
        future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._echoes.append(future)
        self.post(Beat(detail=True))
        done, _ = await asyncio.wait([future], timeout=timeout)
        return future.result() if done and not future.cancelled() else None

    async def ask(self, pool: str, caller: str, calls: int, cost: float, timeout: float = 5.0) -> Told:
        """How long so many calls would take now. Raises PoolNotFound, EngineFailed."""
        self.pool(pool)
        self._next_id += 1
        id = self._next_id
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._asked[id] = future
        self.post(Ask(id, pool, caller, calls, cost))
        try:
            await asyncio.wait([future], timeout=timeout)
            if not future.done():
                raise EngineFailed(self.failure or "no answer")
            return future.result()
        finally:
            self._asked.pop(id, None)

    def post(self, message: Inbound) -> None:
        """To the engine; dropped when it isn't there any more."""
        if self._inbox is not None:
            self._inbox.post(message)

    # -- the server's side of the mailboxes -----------------------------------------------------

    def _handle(self, message: Outbound) -> None:
        match message:
            case Results(id, items, _, _, over):
                ticket = self._tickets[id]
                ticket.deliver(message)
                self.admission.received(len(items))
                if over is not None:
                    self._forget(ticket)
            case Echo(state):
                self._echo_at = asyncio.get_running_loop().time()
                self._set_health(self.failure is None)
                self.snapshot = state
                if any(pool.keys for pool in state.pools.values()):
                    echoes, self._echoes = self._echoes, []
                    for echo in echoes:
                        if not echo.done():
                            echo.set_result(state)
            case Told(id):
                if id in self._asked and not self._asked[id].done():
                    self._asked[id].set_result(message)
            case Up(inbox):
                self._inbox = inbox
                self._up.set()
            case Down(error_id):
                self._end(error_id)

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        self.admission.over(ticket.total - ticket.received, ticket.size)
        if not self._tickets:
            self._idle.set()

    def _end(self, error_id: str | None) -> None:
        """Down: the last word for every open batch."""
        self._inbox = None
        if error_id is not None and self.failure is None:
            self.failure = error_id
        self._set_health(False)
        for ticket in list(self._tickets.values()):
            ticket.fail(EngineFailed(self.failure or "stopped"))
            self._forget(ticket)
        for echo in self._echoes:
            if not echo.done():
                echo.cancel()
        self.down.set()

    def _set_health(self, healthy: bool) -> None:
        if healthy != self.healthy:
            self.healthy = healthy
            self._on_health(healthy)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.down.is_set():
            self.post(Beat(detail=False))
            await asyncio.sleep(BEAT_EVERY)
            if loop.time() - self._echo_at > SILENCE:
                if self.healthy:
                    _log.error("the engine has not answered for %.0f s", SILENCE)
                self._set_health(False)

    # -- the engine's thread --------------------------------------------------------------------

    def _run_thread(self) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._main())
        except BaseException as caught:
            error = caught
        finally:
            self._say_down(error)

    async def _main(self) -> None:
        assert self._outbox is not None
        post = self._outbox.post
        works: _Works | None = None
        error: BaseException | None = None
        try:
            works = _Works(self._parts, post, self._observer, self._clock, self._batch_size)
            post(Up(Mailbox(asyncio.get_running_loop(), works.handle)))
            await works.stopped.wait()
        except Exception as caught:
            error = caught
        finally:
            if works is not None:
                await works.close()
            if self._thread is None or error is not None:
                self._say_down(error)

    def _say_down(self, error: BaseException | None) -> None:
        assert self._outbox is not None
        error_id = None
        if error is not None:
            error_id = uuid.uuid4().hex[:12]
            self._observer.crashed(error, error_id)
        self._outbox.post(Down(error_id))


async def _wait(event: asyncio.Event, timeout: float) -> bool:
    waiter = asyncio.get_running_loop().create_task(event.wait())
    try:
        done, _ = await asyncio.wait([waiter], timeout=timeout)
        return bool(done)
    finally:
        waiter.cancel()
