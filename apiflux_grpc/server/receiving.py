"""Requests on their way in: how many may come at once.

Until a message is here as a whole nobody knows its size, and gRPC lets its sender send all of it as soon as we ask for
it. Before that it takes no more than a window of 64 KiB.

Rule: we ask for so many messages at once as memory allows if each were as large as may be. A large one keeps its place
until it was decoded, checked and admitted, one after the other. Of those that wait they come first over whose
connection a small one came last, for most likely they are small too; then the newest: when there are too many, its
caller is the one that still waits for an answer. Who waits for too long is refused, so that no request ages unseen.

A sender that is slow gives its place to others and goes on without one; but if what comes so takes too much memory, it
is refused, the oldest first.

Owner: the server's loop.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.errors import TooManyAtOnce
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.memory import resident

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.errors import FluxError

PLACES: Final = 6  # of up to twice server.max_batch_bytes each, with the defaults 64 MiB
SMALL: Final = 1 << 16  # bytes of a message that is decoded and checked within one turn of the loop
LONGEST_WAIT: Final = 30.0  # seconds
MOST_WAITING: Final = 2_000  # of a window each
PATIENCE: Final = 1.0  # seconds that a message may take while others wait
MOST_SLOW: Final = 200
SLOW_BYTES: Final = 128 << 20  # by which the process may grow while slow ones come
TICK: Final = 0.05  # seconds
KNOWN: Final = 10_000  # connections of which we know that they sent a small one last

_entered: ContextVar[tuple[Receiving, Place] | None] = ContextVar("_entered", default=None)


class Place:
    """One message on its way in over a connection, since a time of the loop's, and how to refuse it."""

    __slots__ = ("has_turn", "is_here", "is_slow", "peer", "refuse", "since")

    def __init__(self, peer: str, refuse: Callable[[FluxError], object], since: float) -> None:
        self.peer = peer
        self.refuse = refuse
        self.since = since
        self.is_here = False
        self.is_slow = False
        self.has_turn = False


class Receiving:
    """The places. Whoever has one gives it back by `leave`, which may be called again."""

    def __init__(self, places: int = PLACES, memory: Callable[[], int] = resident) -> None:
        self._free = places
        self._memory = memory
        self._waiting: list[tuple[asyncio.Future[None], float]] = []
        self._first: list[tuple[asyncio.Future[None], float]] = []  # those that come before them
        self._small: dict[str, None] = {}
        self._turn = asyncio.Lock()
        self._held: dict[Place, None] = {}  # in the order of `since`
        self._slow: dict[Place, None] = {}
        self._before_slow = 0  # bytes of the process when the first of the slow ones became one
        self._watch: asyncio.TimerHandle | None = None

    async def enter(self, peer: str, refuse: Callable[[FluxError], object]) -> Place:
        """Wait for a place; `peer` is the connection. `refuse` is called if the message must not go on.

        Raises TooManyAtOnce.
        """
        loop = asyncio.get_running_loop()
        if self._free:
            self._free -= 1
        else:
            await self._wait(peer, loop)
        place = Place(peer, refuse, loop.time())
        self._held[place] = None
        return place

    def received(self, place: Place, size: int) -> bool:
        """The message is here. A small one needs no place any more; False: it is large, and must wait for its turn."""
        place.is_here = True
        if size > SMALL:
            self._small.pop(place.peer, None)
            return False
        self.leave(place)
        if place.peer not in self._small:
            if len(self._small) >= KNOWN:
                del self._small[next(iter(self._small))]
            self._small[place.peer] = None
        return True

    async def turn(self, place: Place) -> None:
        """Wait until this large message may be decoded. Its turn lasts until `admitted` or `leave`."""
        await self._turn.acquire()
        place.has_turn = True
        _entered.set((self, place))

    def leave(self, place: Place) -> None:
        """Give the place back."""
        if place.has_turn:
            place.has_turn = False
            self._turn.release()
        if place.is_slow:
            self._slow.pop(place, None)
        elif place in self._held:
            del self._held[place]
            self._give()

    def __repr__(self) -> str:
        return f"<Receiving {len(self._held)} messages, {self._waiting_count} wait, {len(self._slow)} slow>"

    @property
    def _waiting_count(self) -> int:
        return len(self._waiting) + len(self._first)

    async def _wait(self, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting_count >= MOST_WAITING:
            raise self._too_many()
        waiter = loop.create_future()
        (self._first if peer in self._small else self._waiting).append((waiter, loop.time()))
        self._tick_soon(loop)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give()  # it was given, and nobody took it
            raise

    def _give(self) -> None:
        for waiting in (self._first, self._waiting):
            while waiting:
                waiter, _ = waiting.pop()
                if not waiter.done():
                    waiter.set_result(None)
                    return
        self._free += 1

    def _too_many(self) -> TooManyAtOnce:
        return TooManyAtOnce(len(self._held) + self._waiting_count, limit=MOST_WAITING, retry_after=SECOND)

    # -- what takes too long, looked at only while somebody waits or is slow ----------------------

    def _tick_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watch is None:
            self._watch = loop.call_later(TICK, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        late = loop.time() - LONGEST_WAIT
        for waiting in (self._first, self._waiting):
            waiting[:] = [entry for entry in waiting if not entry[0].done()]
            while waiting and waiting[0][1] <= late:
                waiter, _ = waiting.pop(0)
                waiter.set_exception(self._too_many())
        late = loop.time() - PATIENCE
        for place in [place for place in self._held if not place.is_here and place.since <= late][
            : self._waiting_count
        ]:
            self._to_slow(place)
        self._bound_slow()
        if self._waiting_count or self._slow:
            self._tick_soon(loop)

    def _to_slow(self, place: Place) -> None:
        if not self._slow:
            self._before_slow = self._memory()
        del self._held[place]
        place.is_slow = True
        self._slow[place] = None
        self._give()

    def _bound_slow(self) -> None:
        if not self._slow:
            return
        too_many = len(self._slow) - MOST_SLOW
        if self._memory() - self._before_slow > SLOW_BYTES:
            too_many = max(too_many, (len(self._slow) + 1) // 2)
        for place in list(self._slow)[: max(0, too_many)]:
            del self._slow[place]
            if not place.is_here:
                place.refuse(self._too_many())


def admitted() -> None:
    """The batch of the RPC that is being handled was admitted: its message is counted there from now on."""
    entered = _entered.get()
    if entered is not None:
        receiving, place = entered
        receiving.leave(place)
