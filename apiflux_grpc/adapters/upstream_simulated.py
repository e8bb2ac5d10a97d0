"""An upstream without a network: it answers after a random latency, fails as often as it is told to.

Rule: it fulfils the same contract as a real one, and one timer serves all attempts: they wait in a heap by the
instant of their answer. A timer that fires early (uvloop's do, by up to 0.9 ms) finds nothing due and is set again.
"""

from __future__ import annotations

import asyncio
import random
import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import MILLISECOND, Answer, Reason, Unknown

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Outcome
    from apiflux_grpc.engine.ports import Attempt, Clock

_HEADERS: Final = {"content-type": "application/json"}
_BODY: Final = b'{"ok":true}'
_FAILED: Final = b'{"ok":false}'


class SimulatedUpstream:
    """`latency` is (least, most) in ns, drawn evenly; `error_rate` is the share of calls answered 500."""

    def __init__(
        self,
        latency: tuple[int, int] = (0, 0),
        error_rate: float = 0.0,
        *,
        clock: Clock = time.monotonic_ns,
        draw: random.Random | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._least, self._most = latency
        self._error_rate = error_rate
        self._clock = clock
        self._draw = (draw or random.Random()).random
        self._heap: list[tuple[int, int, Attempt, bool]] = []
        self._open: set[Attempt] = set()
        self._sequence = 0
        self._timer: asyncio.Handle | None = None

    def begin(self, attempt: Attempt) -> None:
        now = self._clock()
        attempt.sent(now)
        latency = self._least + int((self._most - self._least) * self._draw())
        self._sequence += 1
        self._open.add(attempt)
        late = latency > attempt.timeout
        at = now + (attempt.timeout if late else latency)
        heappush(self._heap, (at, self._sequence, attempt, late))
        if self._timer is None:
            self._arm(now)
        elif self._heap[0][1] == self._sequence:  # it is the first to answer now
            self._timer.cancel()
            self._arm(now)

    def cancel(self, attempt: Attempt) -> None:
        if attempt in self._open:
            self._open.discard(attempt)
            self._loop.call_soon(attempt.done, Unknown("cancelled"))

    async def close(self) -> None:
        for attempt in list(self._open):
            self.cancel(attempt)
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.sleep(0)

    def _arm(self, now: int) -> None:
        wait = self._heap[0][0] - now
        if wait <= 0:
            self._timer = self._loop.call_soon(self._answer)
        else:
            self._timer = self._loop.call_later(-(-wait // MILLISECOND) / 1_000, self._answer)

    def _answer(self) -> None:
        self._timer = None
        now = self._clock()
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, attempt, late = heappop(heap)
            if attempt in self._open:
                self._open.discard(attempt)
                attempt.done(self._outcome(late, now))
        if heap:
            self._arm(now)

    def _outcome(self, late: bool, now: int) -> Outcome:
        if late:
            return Unknown("no answer within the timeout", Reason.TIMEOUT)
        if self._error_rate and self._draw() < self._error_rate:
            return Answer(500, _HEADERS, _FAILED, now)
        return Answer(200, _HEADERS, _BODY, now)
