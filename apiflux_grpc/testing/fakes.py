"""Fakes for the engine's ports: no network, no library, no clock but the one that is handed in.

Rule: a fake keeps its port's whole contract, so that what works with it works with the real thing; the contract
tests run over both.

FakeUpstream lives on one event loop, the one that its attempts are begun on; FakePacer on none.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.outcome import CANCELLED, Answer, NotSent, Unknown
from apiflux_grpc.core.units import MICROSECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.outcome import Outcome, Reason
    from apiflux_grpc.engine.ports import Attempt, Clock


class FakePacer:
    """A leaky bucket in plain arithmetic: `burst` at once, refilled in `seconds`. Fulfils Pacer; knows no loop.

    `taken` lists (instant in ns, amount). Raises RuntimeError if an amount is taken without room.
    """

    def __init__(self, burst: float, seconds: float) -> None:
        if not (burst > 0 and seconds > 0):
            raise ValueError(f"a pacer needs a burst and seconds above 0, not {burst:g} and {seconds:g}")
        self.taken: list[tuple[int, int]] = []
        self._burst = burst
        self._rate = burst / seconds / 1e9
        self._level = 0.0
        self._at = 0

    def ready_at(self, amount: int, now: int) -> int:
        """`now`: there is room. Else when there will be. Raises ValueError for an amount above the burst."""
        if amount > self._burst:
            raise ValueError(f"{amount} never fits into a burst of {self._burst:g}")
        self._level = max(0.0, self._level - (now - self._at) * self._rate)
        self._at = now
        excess = self._level + amount - self._burst
        if excess <= 0:
            return now
        return now + max(math.ceil(excess / self._rate), MICROSECOND)

    def level(self, now: int) -> float:
        """What is taken and has not leaked away yet."""
        return max(0.0, self._level - (now - self._at) * self._rate)

    def fill(self, level: float, now: int) -> None:
        """Start from this level, as the heir of another pacer."""
        self._level, self._at = level, now

    def take(self, amount: int) -> None:
        """Take `amount` at the instant that ready_at was last asked about."""
        if self._level + amount > self._burst:
            raise RuntimeError("taken from a pacer that has no room")
        self._level += amount
        self.taken.append((self._at, amount))

    def __repr__(self) -> str:
        return f"<FakePacer {self._level:.1f}/{self._burst:g}, {len(self.taken)} takes>"


class FakeUpstream:
    """An upstream that does what the test says; time never ends an attempt here.

    `begun` has every attempt in order, `open` those that aren't done. `answer` and `fail` end one at once;
    `cancel` and `close` end them as the port says.
    """

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self.begun: list[Attempt] = []
        self.open: list[Attempt] = []
        self.cancelled: list[Attempt] = []
        self.closed = False
        self._clock = clock
        self._sent: set[Attempt] = set()

    def begin(self, attempt: Attempt) -> None:
        self.begun.append(attempt)
        self.open.append(attempt)
        if self.closed:
            self._end_soon(attempt)

    def cancel(self, attempt: Attempt) -> None:
        self.cancelled.append(attempt)
        self._end_soon(attempt)

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        self.closed = True
        for attempt in list(self.open):
            self._end(attempt, self._stopped(attempt))

    def send(self, attempt: Attempt, at: int | None = None) -> None:
        """The attempt's bytes go out: now, or at `at`."""
        self._sent.add(attempt)
        attempt.sent(self._clock() if at is None else at)

    def answer(
        self,
        attempt: Attempt,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        truncated: bool = False,
        fault: Reason | None = None,
    ) -> None:
        """An answer comes now; the attempt is sent first if it wasn't."""
        if attempt not in self._sent:
            self.send(attempt)
        self._end(attempt, Answer(status, Headers.of(headers or {}), body, self._clock(), truncated, fault))

    def fail(self, attempt: Attempt, outcome: NotSent | Unknown) -> None:
        """The attempt ends without an answer."""
        if isinstance(outcome, NotSent) and attempt in self._sent:
            raise ValueError("what was sent can't end as NotSent")
        self._end(attempt, outcome)

    def _stopped(self, attempt: Attempt) -> Outcome:
        return Unknown("cancelled") if attempt in self._sent else CANCELLED

    def _end_soon(self, attempt: Attempt) -> None:
        asyncio.get_running_loop().call_soon(self._end_stopped, attempt)

    def _end_stopped(self, attempt: Attempt) -> None:
        if attempt in self.open:
            self._end(attempt, self._stopped(attempt))

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        self.open.remove(attempt)  # ValueError: it has ended before, or was never begun
        self._sent.discard(attempt)
        attempt.done(outcome)

    def __repr__(self) -> str:
        return f"<FakeUpstream: {len(self.open)} of {len(self.begun)} open>"


class SilentObserver:
    """Fulfils Observer and isn't interested; for tests that override what they want to hear."""

    def tell(self, pool: str, event: Event) -> None: ...
    def crashed(self, error: BaseException, error_id: str) -> None: ...
