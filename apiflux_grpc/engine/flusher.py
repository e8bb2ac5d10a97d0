"""When results leave for the server.

Rule: the first and the last result of a batch at once; else at `count` results or FLUSH_BYTES; else after 1 ms for
each open batch, at least 5 and at most 100 ms. A message costs ten times what a result in it does, so with many
batches results wait a little for company. One timer serves all outboxes, oldest first.

Owner: the engine's loop.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from apiflux_grpc.core.batch import Ending
from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.engine.messages import FLUSH_BYTES, Over, Results

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from apiflux_grpc.engine.messages import Outbound
    from apiflux_grpc.engine.outbox import Outbox
    from apiflux_grpc.engine.ports import Clock


class Flusher:
    """Posts results when it is time. `streams` is the number of open batches."""

    def __init__(
        self,
        post: Callable[[Outbound], None],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        guard: Callable[[Callable[[], None]], Callable[[], None]],
        count: int = 100,
    ) -> None:
        self._post = post
        self._loop = loop
        self._clock = clock
        self._count = count
        self._waiting: deque[Outbox] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._on_timer = guard(self._flush_due)
        self.streams = 0

    def offer(self, outbox: Outbox, now: int) -> None:
        """The outbox has something new, or its batch is finished: post it now or later."""
        if outbox.batch.finished:
            self._flush(outbox, now)
        elif not outbox.ready:
            return
        elif not outbox.posted_at or len(outbox.ready) >= self._count or outbox.ready_size >= FLUSH_BYTES:
            self._flush(outbox, now)
        elif not outbox.queued:
            outbox.queued = True
            # The delay changes with `streams`, so a later outbox may be due earlier. It waits behind: by 95 ms at most.
            outbox.due = now + min(max(self.streams, 5), 100) * MILLISECOND
            self._waiting.append(outbox)
            if self._timer is None:
                self._arm(outbox.due - now)

    def tell(self, outbox: Outbox, now: int) -> None:
        """Post all results that are ready, if any, and the state of the batch."""
        self._flush(outbox, now)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self, outbox: Outbox, now: int) -> None:
        over = None
        if outbox.batch.finished:
            batch = outbox.batch
            over = Over(batch.ending or Ending.COMPLETE, batch.tally, now - batch.admitted_at, batch.eta)
        items, size = outbox.ready, outbox.ready_size
        outbox.ready, outbox.ready_size = [], 0
        outbox.posted_at = now
        outbox.eta_posted = outbox.batch.eta is not None
        self._post(Results(outbox.batch.id, items, size, outbox.standing(), over))

    def _arm(self, delay: int) -> None:
        self._timer = self._loop.call_later(max(delay, MILLISECOND) / 1e9, self._on_timer)

    def _flush_due(self) -> None:
        self._timer = None
        now = self._clock()
        waiting = self._waiting
        while waiting and waiting[0].due <= now:
            outbox = waiting.popleft()
            outbox.queued = False
            if outbox.ready and not outbox.batch.finished:
                self._flush(outbox, now)
        if waiting:
            self._arm(waiting[0].due - now)
