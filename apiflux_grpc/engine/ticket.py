"""The server's hold on one batch: its results come out of here.

Rule: what waits here has a way out. A ticket that is over or failed answers at once, after what has come; `cancel`
never waits, because a handler's `finally` calls it.

Owner: the server's loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from apiflux_grpc.engine.messages import FLUSH_BYTES, Cancel, Credit, End, EndUnsent, Feed, Results

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from apiflux_grpc.core.batch import FedCall
    from apiflux_grpc.core.quotas import Account
    from apiflux_grpc.engine.admission import Admission
    from apiflux_grpc.engine.messages import Inbound


class Ticket:
    """The server's hold on one batch: its results come out of here."""

    __slots__ = (
        "_admission",
        "_failed",
        "_inbox",
        "_over",
        "_post",
        "_sizes",
        "_stirred",
        "_waiter",
        "account",
        "deadline",
        "held",
        "id",
        "received",
        "size",
        "total",
    )

    def __init__(
        self,
        post: Callable[[Inbound], None],
        admission: Admission,
        id: int,
        total: int,
        size: int,
        deadline: int | None = None,
        account: Account | None = None,
    ) -> None:
        self._post = post
        self._admission = admission
        self.account = account  # of a caller with quotas; whoever feeds counts there what it feeds
        self.id = id
        self.deadline = deadline  # ns from the submission
        self.total = total  # calls, as far as they were fed
        self.size = size  # bytes that admission counts for it
        self.received = 0  # results
        self._inbox: deque[Results] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._failed: Exception | None = None
        self.held = 0  # bytes of calls that were fed and have no result yet
        self._sizes: dict[int, int] = {}
        self._stirred: asyncio.Future[None] | None = None

    async def next(self, most: int) -> Results:
        """Wait for results; there may be none, when the state of the batch comes alone.

        Messages that wait already are joined, up to `most` results and FLUSH_BYTES. Raises what `fail` was told, but
        only after the last result that came.
        """
        inbox = self._inbox
        while not inbox:
            if self._failed is not None:
                raise self._failed
            self._waiter = asyncio.get_running_loop().create_future()  # one reader per ticket, so one is enough
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

    def feed(self, calls: Sequence[FedCall], wrong: Sequence[tuple[int, str]], sizes: Mapping[int, int]) -> None:
        """More calls of a batch that is fed, (index, what is wrong) of those that can't be made; bytes by index."""
        if not self._over and self._failed is None:
            self._sizes.update(sizes)
            self.held += sum(sizes.values())
            count = len(calls) + len(wrong)
            self.total += count
            self._admission.fed(count)
            self._post(Feed(self.id, calls, wrong))

    def end(self) -> None:
        """No more calls will be fed."""
        if not self._over:
            self._post(End(self.id))

    def end_unsent(self) -> None:
        """No more calls will be fed, and those that wait end as STOPPED."""
        if not self._over:
            self._post(EndUnsent(self.id))

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
        await asyncio.shield(self._stirred)  # others wait for the same future

    @property
    def is_over(self) -> bool:
        return self._over or self._failed is not None

    def credit(self, results: int, size: int) -> None:
        """Results were written: their places are free again."""
        if not self._over:
            self._post(Credit(self.id, results, size))

    def cancel(self) -> None:
        """Stop the batch if it isn't over. Idempotent; never waits."""
        if not self._over and self._failed is None:
            self._post(Cancel(self.id))

    def deliver(self, message: Results) -> None:
        """Results from the engine; the last of them has `over`."""
        self.received += len(message.items)
        if self._sizes:  # of a stream alone; a batch's bytes are admission's until it is over
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
