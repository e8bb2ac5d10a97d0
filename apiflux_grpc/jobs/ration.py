"""How much one run sends: at most so many calls, calls of at most so much cost, and no more than its guard allows.

Rules:
- A call is handed over only if its cost fits beside what was spent and what the calls without a result may still cost.
  Until one of those has its result it waits; if there is none, nothing more is sent.
- While it has no result a call costs what it says itself, else what its pool's rule reads from it, else 1. With its
  result: nothing if it certainly wasn't executed; else what the answer tells, if its pool has it told; else as before.
- So that no call is paid for twice, attempts are repeated only if they weren't executed (RETRY).

Calls are known by their place in the stream, from 0, since it takes them in this order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from apiflux_grpc.client import Retry
from apiflux_grpc.client.tally import failure_of, may_have_run
from apiflux_grpc.core.cost import cost_of
from apiflux_grpc.core.cost_of_call import cost_of_call
from apiflux_grpc.core.fields import AnswerFields
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.outcome import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.jobs.guard import Guard
    from apiflux_grpc.jobs.selection import Selection
    from apiflux_grpc.v1 import apiflux_pb2 as pb

NOT_EXECUTED: Final = ("NOT_SENT", "LIMITED", "KEY_REJECTED")
RETRY: Final = Retry(reasons=NOT_EXECUTED)


def declared(call: pb.Call, pool: Pool) -> int:
    """What a call costs by its request."""
    if call.HasField("cost"):
        return call.cost
    return 1 if pool.cost is None else cost_of_call(pool.cost, call.body)


def told(result: pb.CallResult, pool: Pool) -> int | None:
    """What a call cost by its answer; None: it doesn't say, or isn't asked."""
    if pool.cost_from is None or result.HasField("error"):
        return None
    response = result.response
    headers = Headers.of([(header.name, header.value) for header in response.headers])
    answer = Answer(response.status_code, headers, response.body, 0, response.truncated)
    return cost_of(AnswerFields(answer), pool.cost_from)


class Purse:
    """What a run may cost, and what it has cost so far."""

    def __init__(self, most: int, pool: Pool) -> None:
        self.most = most
        self.spent = 0  # by calls that have their result
        self._pool = pool
        self._open: dict[int, int] = {}  # what calls without a result may cost
        self._held = 0  # their sum

    @property
    def source(self) -> str:
        """Who says what calls cost, in words."""
        return "by the requests" if self._pool.cost_from is None else f"as answers tell it in {self._pool.cost_from}"

    @property
    def has_open(self) -> bool:
        """Whether calls have no result yet, so that something may come back."""
        return bool(self._open)

    def take(self, place: int, call: pb.Call) -> bool:
        """Set a call's cost aside; False: it doesn't fit now."""
        cost = declared(call, self._pool)
        if self.spent + self._held + cost > self.most:
            return False
        self._open[place] = cost
        self._held += cost
        return True

    def settle(self, place: int, result: pb.CallResult) -> None:
        """A call has its result."""
        cost = self._open.pop(place)
        self._held -= cost
        self.spent += self._cost(cost, result)

    def _cost(self, cost: int, result: pb.CallResult) -> int:
        if failure_of(result) in NOT_EXECUTED:
            return 0
        if result.HasField("error"):
            return cost if may_have_run(result) else 0
        real = told(result, self._pool)
        return cost if real is None else real


class Ration:
    """What is left of a selection with these bounds; None: no bound. A CallSource of the client.

    `sent` is told of each call, with its place, before it is handed out.
    """

    def __init__(
        self,
        selection: Selection,
        guard: Guard,
        limit: int | None = None,
        purse: Purse | None = None,
        sent: Callable[[int, pb.Call], None] | None = None,
    ) -> None:
        self.reached = ""  # the option whose bound ended it; "": none did
        self.selection = selection
        self._guard = guard
        self._limit = limit
        self._purse = purse
        self._sent = sent
        self._taken = 0
        self._next: deque[pb.Call] = deque()  # taken from the selection, and not handed out
        self._first: list[pb.Call] = []
        self._changed = asyncio.Event()
        self._is_stopped = False

    async def any(self) -> bool:
        """Whether there is anything to send: waits for the first call that is."""
        self._first = list(await self.take(1) or ())
        return bool(self._first)

    def stop(self) -> None:
        """Send nothing more; whoever waits for a call gets None."""
        self._is_stopped = True
        self._changed.set()
        self.selection.stop()

    def settle(self, place: int, result: pb.CallResult) -> None:
        """A call has its result, and the guard was told: others may go now."""
        if self._purse is not None:
            self._purse.settle(place, result)
        self._changed.set()

    @property
    def left(self) -> int:
        """Calls that the selection gave, and that were not handed out."""
        return len(self._next)

    async def take(self, most: int) -> Sequence[pb.Call] | None:
        """The next calls to send, 1 to `most`; None: there are no more. Cancelled, it loses none."""
        calls, self._first = self._first, []
        if self._limit is not None:
            most = min(most, self._limit - self._taken + len(calls))
        while not calls and not self._is_stopped:
            if not self._next:
                if most < 1:
                    self.reached = "--limit"
                    return None
                some = await self.selection.take(most)
                if some is None:
                    return None
                self._next.extend(some)
            self._changed.clear()
            while self._next and len(calls) < most and self._fits(self._next[0]):
                call = self._next.popleft()
                if self._sent is not None:
                    self._sent(self._taken, call)
                calls.append(call)
                self._taken += 1
            if calls:
                break
            if self._taken < self._guard.allowed and self._purse is not None and not self._purse.has_open:
                self.reached = "--max-cost"
                return None
            await self._changed.wait()
        return calls or None

    def _fits(self, call: pb.Call) -> bool:
        return self._taken < self._guard.allowed and (self._purse is None or self._purse.take(self._taken, call))
