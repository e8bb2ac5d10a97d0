"""What the keys of one pool borrow is asked of a store here, and the replies are handed on.

Rule: nothing is decided here. Whoever has a round to send is asked for at the end of a pass; the rounds of one pool go
out together, in one exchange at a time, and its replies make another pass. No task and no timer exists for a call or a
key. What got no reply is asked again under the same number, after a while that doubles and is drawn, so that a fleet
doesn't come all at once to a store that is back.

Owner: the engine's loop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.borrower import Borrower
    from apiflux_grpc.core.borrowing import Borrowing
    from apiflux_grpc.core.lease.words import Reply
    from apiflux_grpc.core.slots import SlotBorrower
    from apiflux_grpc.engine.ports import Clock, LeaseStore

AGAIN: Final = (50 * MILLISECOND, SECOND)  # after how long what got no reply is asked again, and the bound on that
LEAVE: Final = 2 * SECOND  # an orderly end waits no longer for its store


class Lessee:
    """One pool's side of a lease store. `ask` is Dispatcher.ask, `kick` makes a pass, `tell` tells its events."""

    def __init__(
        self,
        store: LeaseStore,
        borrowing: Borrowing,
        ask: Callable[[int], list[Borrower | SlotBorrower]],
        kick: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        guard: Callable[[Callable[[], None]], Callable[[], None]],
        draw: Callable[[], float],
        tell: Callable[[], None],
    ) -> None:
        self._store = store
        self._borrowing = borrowing
        self._ask = ask
        self._loop = loop
        self._clock = clock
        self._draw = draw
        self._kick = kick
        self._tell = tell
        self._on_done = guard(self._done)
        self._on_timer = guard(self._ring)
        self._task: asyncio.Task[Sequence[Reply | None]] | None = None
        self._asked: list[Borrower | SlotBorrower] = []  # whose rounds are on their way
        self._unanswered: list[Borrower | SlotBorrower] = []  # whose rounds are to be sent again
        self._failures = 0  # exchanges in a row that had no reply at all, or not all of them
        self._again_at = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0

    def look(self, now: int) -> None:
        """A pass has been: send the rounds that are due."""
        if self._task is not None or self._closed:
            return
        again = self._unanswered if now >= self._again_at else []
        # Of a store that didn't answer at all nothing new is asked meanwhile.
        fresh = self._ask(now) if again is self._unanswered or not self._borrowing.store.is_silent else []
        if not again and not fresh:
            self._set_timer(now)
            return
        rounds = [borrower.ledger.again(now) for borrower in again]
        rounds += [round for borrower in fresh if (round := borrower.ledger.under_way) is not None]
        self._asked = [*again, *fresh]
        if again:
            self._unanswered = []
        self._task = self._loop.create_task(self._store.exchange(rounds))
        self._task.add_done_callback(lambda task: self._on_done())

    def _done(self) -> None:
        task, asked, now = self._task, self._asked, self._clock()
        self._task, self._asked = None, []
        if task is None or self._closed:
            return
        try:
            replies: Sequence[Reply | None] = task.result()
        except ConnectionError as error:
            self._borrowing.store.silent(now, str(error))
            replies = [None] * len(asked)
        else:
            self._borrowing.store.answered(now)
        silent = []
        for borrower, reply in zip(asked, replies, strict=True):
            if reply is None:
                silent.append(borrower)
            else:
                self._borrowing.hear(borrower, reply, now)
        self._unanswered += silent
        if silent:
            first, longest = AGAIN
            wait = min(longest, first << min(self._failures, 10))
            self._again_at = now + int(wait * (1 + self._draw()) / 2)
            self._failures += 1
        else:
            self._failures = 0
        self._tell()
        self._kick()

    def _set_timer(self, now: int) -> None:
        at = FAR if self._borrowing.store.is_silent else self._borrowing.next_at()
        if self._unanswered:
            at = min(at, self._again_at)
        if at >= FAR or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        # Whole milliseconds, rounded up, as the pump's.
        delay = -(-max(0, at - now) // MILLISECOND) / 1_000
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _ring(self) -> None:
        self._timer = None
        self._kick()

    # -- an orderly end -----------------------------------------------------------------------

    async def leave(self) -> None:
        """Return all leases; ends within LEAVE. What is on its way isn't cancelled."""
        last = self._loop.create_task(self._leave())
        await asyncio.wait([last], timeout=LEAVE / 1e9)

    async def _leave(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])
        self.close()
        if self._borrowing.store.is_silent:
            return
        leaving = self._borrowing.leave(self._clock())
        rounds = [round for borrower in leaving if (round := borrower.ledger.under_way) is not None]
        if rounds:
            with suppress(ConnectionError):  # then its leases end by themselves
                await self._store.exchange(rounds)

    def close(self) -> None:
        """Nothing more is asked."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<Lessee of {self._borrowing!r}>"
