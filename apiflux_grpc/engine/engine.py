"""The engine as the server sees it: two event loops, two mailboxes, nothing else shared.

Rule: only messages (messages.py) go to the other side, loop.py, which runs in a thread of its own. The same code
runs with both on one loop (tests, virtual time). Waiting here always has a timeout, so no shutdown can hang.

Owner: the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from apiflux_grpc.core.classes import paths_of
from apiflux_grpc.core.errors import Draining, EngineFailed, PoolNotFound
from apiflux_grpc.core.model import default_of
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.admission import Admission, Bounds
from apiflux_grpc.engine.loop import EngineLoop
from apiflux_grpc.engine.mailbox import Mailbox
from apiflux_grpc.engine.messages import (
    Ask,
    Beat,
    ChangeLimits,
    ChangeMaxInFlight,
    Down,
    Drain,
    Echo,
    Pause,
    Results,
    Rotate,
    Stop,
    Submit,
    Told,
    Up,
)
from apiflux_grpc.engine.ticket import Ticket
from apiflux_grpc.engine.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.model import Limit, Pool
    from apiflux_grpc.core.quotas import Account
    from apiflux_grpc.engine.batches import PoolParts
    from apiflux_grpc.engine.messages import BatchSpec, Change, Inbound, Outbound, Snapshot
    from apiflux_grpc.engine.ports import Clock, Observer

_log = logging.getLogger("apiflux.engine")


class Engine:
    """The engine as the server sees it: submit a batch, read its ticket, drain, stop."""

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
        on_pool: Callable[[str, bool], None] = lambda name, healthy: None,
    ) -> None:
        self._other_side = partial(EngineLoop, parts, observer=observer, clock=clock, batch_size=batch_size)
        self._loop_factory = loop_factory
        self._on_pool = on_pool
        self._unhealthy: frozenset[str] = frozenset()  # pools whose store of budgets is silent for too long
        self.clock = clock
        self.admission = Admission(bounds or Bounds())
        self.pools = {part.pool.name: part.pool for part in parts}
        self._paths = {name: paths_of(pool) for name, pool in self.pools.items()}
        self.default_pool = default_of(self.pools)
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
        self._watchdog = Watchdog(lambda: self.post(Beat(detail=False)), on_health)

    @property
    def healthy(self) -> bool:
        """It is up, and it answered within the last seconds."""
        return self._watchdog.healthy

    # -- life ---------------------------------------------------------------------------------

    async def start(self, *, own_thread: bool = True, timeout: float = 30.0) -> None:
        """Start the engine and wait until it is up. Raises EngineFailed when it doesn't come up."""
        loop = asyncio.get_running_loop()
        engine = self._other_side(post=Mailbox(loop, self._handle).post)
        if own_thread:
            self._thread = threading.Thread(
                target=engine.run, args=(self._loop_factory,), name="apiflux-engine", daemon=True
            )
            self._thread.start()
        else:
            self._tasks.append(loop.create_task(engine.serve()))
        waits = [loop.create_task(self._up.wait()), loop.create_task(self.down.wait())]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        # Down without Up: an adapter couldn't be made, or its file not read.
        if not self._up.is_set():
            raise EngineFailed(self.failure or "no answer")
        self._watchdog.heard()
        self._tasks.append(loop.create_task(self._watchdog.watch()))

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
            # A thread that said nothing until now is stuck; it is a daemon, so the process can end without it.
            await asyncio.to_thread(self._thread.join, timeout if down else 0)
            if self._thread.is_alive():
                self.failure = self.failure or "stuck"
                _log.error("the engine's thread did not end")

    # -- work ---------------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """The pool of this name; "": the default one. Raises PoolNotFound."""
        pool = self.pools.get(name or self.default_pool)
        if pool is None:
            raise PoolNotFound(name[:64], list(self.pools))
        return pool

    def submit(self, spec: BatchSpec, account: Account | None = None) -> Ticket:
        """Admit a batch or refuse it at once: raises PoolNotFound, Draining, Overloaded, BatchTooLarge or EngineFailed.

        `account`: what its caller has open, if that has quotas.
        """
        if self.failure is not None:
            raise EngineFailed(self.failure)
        if self.draining:
            raise Draining()
        self.pool(spec.pool)
        total = len(spec.calls)
        drain_time = partial(self.drain_time, spec.pool)
        if account is not None:
            account.check(total, self.clock(), drain_time)
        self.admission.admit(total, spec.size, drain_time)
        if account is not None:
            account.open(total, self.clock())
        self._next_id += 1
        ticket = Ticket(self.post, self.admission, self._next_id, total, spec.size, spec.deadline, account)
        self._tickets[ticket.id] = ticket
        self._idle.clear()
        self.post(Submit(ticket.id, spec))
        return ticket

    def expect(self, calls: int, size: int, pool: str = "") -> None:
        """Raises what `submit` would of a batch of so many calls and bytes at least: Draining or Overloaded."""
        if self.draining:
            raise Draining()
        self.admission.check(calls, size, partial(self.drain_time, pool))

    # -- limits -------------------------------------------------------------------------------

    def change_limits(self, pool: str, label: str, limits: Sequence[Limit]) -> None:
        """Other limits for a key from now on. What was spent stays spent, and what nobody has counted counts as spent.

        They end with this process. Raises PoolNotFound; LookupError for a label that the pool hasn't, and ValueError
        for paths that none of its limits had when it began.
        """
        found, index = self._place(pool, label)
        self._check(found, limits)
        keys = [*found.keys]
        keys[index] = replace(keys[index], limits=tuple(limits))
        self._change(replace(found, keys=tuple(keys)), ChangeLimits(found.name, index, tuple(limits), of_group=False))

    def change_group_limits(self, pool: str, label: str, limits: Sequence[Limit]) -> None:
        """The same for the limits which the key with this label shares with others; LookupError if it has no group."""
        found, _ = self._place(pool, label)
        self._check(found, limits)
        groups = [*found.groups]
        index = next((place for place, group in enumerate(groups) if label in group.keys), None)
        if index is None:
            raise LookupError(f"key {label} shares its limits with no other")
        groups[index] = replace(groups[index], limits=tuple(limits))
        self._change(
            replace(found, groups=tuple(groups)), ChangeLimits(found.name, index, tuple(limits), of_group=True)
        )

    def change_max_in_flight(self, pool: str, label: str, most: int | None) -> None:
        """Another bound on a key's calls in flight, None: none; those that are go on. Raises PoolNotFound and
        LookupError as above, and ValueError for less than 1."""
        found, index = self._place(pool, label)
        if most is not None and most < 1:
            raise ValueError(f"max_in_flight is {most}; it must be 1 at least")
        keys = [*found.keys]
        keys[index] = replace(keys[index], max_in_flight=most)
        self._change(replace(found, keys=tuple(keys)), ChangeMaxInFlight(found.name, index, most))

    def pause(self, pool: str, label: str, *, paused: bool) -> None:
        """No call gets this key until it is resumed, or calls may get it again. Raises PoolNotFound and LookupError."""
        found, index = self._place(pool, label)
        self.post(Pause(found.name, index, paused))

    def rotate(self, pool: str, label: str, secret: str) -> None:
        """Another secret for this key, for calls that begin from now on. Raises PoolNotFound and LookupError."""
        found, index = self._place(pool, label)
        keys = [*found.keys]
        keys[index] = replace(keys[index], secret=secret)
        self._change(replace(found, keys=tuple(keys)), Rotate(found.name, index, secret))

    def _place(self, pool: str, label: str) -> tuple[Pool, int]:
        found = self.pool(pool)
        index = next((place for place, key in enumerate(found.keys) if key.label == label), None)
        if index is None:
            raise LookupError(f"pool {found.name} has no key {label}")
        return found, index

    def _check(self, pool: Pool, limits: Sequence[Limit]) -> None:
        for limit in limits:
            if limit.paths and limit.paths not in self._paths[pool.name]:
                raise ValueError(f"no limit of the pool has these paths, so its calls aren't told apart: {limit.paths}")

    def _change(self, pool: Pool, change: Change) -> None:
        self.pools[pool.name] = pool  # what callers are told
        self.post(change)

    def drain_time(self, pool: str) -> int:
        """How long (ns) what waits now takes, by the last snapshot; at least a second."""
        known = None if self.snapshot is None or not pool else self.snapshot.pools[pool].drain_time
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
                if ticket.account is not None:
                    ticket.account.received(len(items))
                if over is not None:
                    self._forget(ticket)
            case Echo(state, detail):
                self._watchdog.heard()
                self.snapshot = state
                self._tell_pools(state)
                if detail:
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

    def _tell_pools(self, state: Snapshot) -> None:
        stores = ((name, pool.store) for name, pool in state.pools.items())
        unhealthy = frozenset(name for name, store in stores if store is not None and not store.is_healthy)
        for name in unhealthy ^ self._unhealthy:
            self._on_pool(name, name not in unhealthy)
        self._unhealthy = unhealthy

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        self.admission.over(ticket.total - ticket.received, ticket.size)
        if ticket.account is not None:
            ticket.account.over(ticket.total - ticket.received)
        if not self._tickets:
            self._idle.set()

    def _end(self, error_id: str | None) -> None:
        """Down: the last word for every open batch."""
        self._inbox = None
        if error_id is not None and self.failure is None:
            self.failure = error_id
        self._watchdog.end()
        for ticket in list(self._tickets.values()):
            ticket.fail(EngineFailed(self.failure or "stopped"))
            self._forget(ticket)
        for echo in self._echoes:
            if not echo.done():
                echo.cancel()
        self.down.set()


async def _wait(event: asyncio.Event, timeout: float) -> bool:
    waiter = asyncio.get_running_loop().create_task(event.wait())
    try:
        done, _ = await asyncio.wait([waiter], timeout=timeout)
        return bool(done)
    finally:
        waiter.cancel()
