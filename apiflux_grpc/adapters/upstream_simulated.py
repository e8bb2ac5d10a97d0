"""An upstream without a network: it answers after a random latency, fails as often as it is told to, and may keep
limits of its own, so that a run without a network shows whether limits are kept.

Rule: what is due at once is answered in one callback in the next pass of the loop, all of it together; what is due
later waits in a wheel of 1 ms ticks. Nothing is answered before it is due by `clock`.

A call counts as sent, and as arrived, in `begin`. An attempt's `handle` says what it will end as, and is None once
it is over or about to be. Lives on the loop of the first `begin`.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from apiflux_grpc.adapters.sender.wheel import Wheel
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.outcome import CLOSED, OUT_OF_TIME, Answer, NotSent, Reason, Unknown
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.engine.ports import Attempt, Clock

_JSON: Final = Headers.of({"content-type": "application/json"})
_OK: Final = (200, _JSON, b'{"ok":true}')
_FAILED: Final = (500, _JSON, b'{"ok":false}')
_LATE: Final = Unknown("no answer in time", Reason.TIMEOUT)
_CANCELLED: Final = Unknown("cancelled")

_Response = tuple[int, Headers, bytes]


class SimulatedUpstream:
    """`latency` is (least, most) in ns, drawn evenly; `error_rate` is the share of calls answered 500.

    `limits` are (max, per in ns): a key of which `max` calls were accepted in some window (t - per, t] is answered
    429 with Retry-After at t. Refused calls don't count. Raises ValueError for a latency or a rate that can't be.
    """

    def __init__(
        self,
        latency: tuple[int, int] = (0, 0),
        error_rate: float = 0.0,
        *,
        limits: Sequence[tuple[int, int]] = (),
        clock: Clock = time.monotonic_ns,
        random: _random.Random | None = None,
    ) -> None:
        least, most = latency
        if not 0 <= least <= most:
            raise ValueError(f"latency goes from the least to the most, not from {least} to {most}")
        if not 0 <= error_rate <= 1:
            raise ValueError(f"an error rate is a share from 0 to 1, not {error_rate}")
        self._least, self._spread = least, most - least
        self._error_rate = error_rate
        self._limits = tuple(limits)
        self._arrivals: dict[str, list[_Arrivals]] = {}
        self._clock = clock
        self._draw = (random or _random.Random()).random
        self._due: list[Attempt] = []  # answered in the next pass
        self._ending: list[tuple[Attempt, Unknown | NotSent]] = []  # done in the next pass
        self._pass: asyncio.Handle | None = None
        self._later: Wheel[Attempt] = Wheel(MILLISECOND, clock, self._answer)
        self._closed = False

    def begin(self, attempt: Attempt) -> None:
        now = self._clock()
        left = attempt.permit.taken_at + attempt.timeout - now
        if self._closed or left <= 0:
            self._end_soon(attempt, CLOSED if self._closed else OUT_OF_TIME)
            return
        attempt.sent(now)
        attempt.handle = self._response(attempt, now) if self._limits or self._error_rate else _OK
        latency = self._least
        if self._spread:
            latency += int(self._spread * self._draw())
        if latency > left:
            latency = left
            attempt.handle = _LATE
        if latency:
            self._later.put(now + latency, attempt)
        else:
            self._due.append(attempt)
            if self._pass is None:
                self._wake()

    def cancel(self, attempt: Attempt) -> None:
        if attempt.handle is not None:
            self._end_soon(attempt, _CANCELLED)

    def connecting(self) -> int | None:
        return None

    async def close(self) -> None:
        self._closed = True
        for attempt in self._due + self._later.close():
            self.cancel(attempt)
        if self._pass is not None:
            self._pass.cancel()
        self._on_pass()

    # -- what it answers ----------------------------------------------------------------------

    def _response(self, attempt: Attempt, now: int) -> _Response:
        wait = self._full_until(attempt.key.label, now) - now if self._limits else 0
        if wait > 0:
            seconds = -(-wait // SECOND)
            return 429, Headers.of({**_JSON, "retry-after": str(seconds)}), b'{"ok":false}'
        return _FAILED if self._error_rate and self._draw() < self._error_rate else _OK

    def _full_until(self, label: str, now: int) -> int:
        """If every limit has room, count an arrival; else say when all have. `now`: it was counted."""
        counted = self._arrivals.get(label)
        if counted is None:
            counted = self._arrivals[label] = [_Arrivals(most, per) for most, per in self._limits]
        until = max(arrivals.full_until(now) for arrivals in counted)
        if until <= now:
            for arrivals in counted:
                arrivals.stamps.append(now)
        return until

    # -- when ---------------------------------------------------------------------------------

    def _end_soon(self, attempt: Attempt, outcome: Unknown | NotSent) -> None:
        attempt.handle = None
        self._ending.append((attempt, outcome))
        if self._pass is None:
            self._wake()

    def _wake(self) -> None:
        self._pass = asyncio.get_running_loop().call_soon(self._on_pass)

    def _on_pass(self) -> None:
        self._pass = None
        due, self._due = self._due, []
        ending, self._ending = self._ending, []
        for attempt, outcome in ending:
            attempt.done(outcome)
        self._answer(due)

    def _answer(self, due: list[Attempt]) -> None:
        """End what is due."""
        now = self._clock()
        answer = Answer(*_OK, now)  # frozen, so one does for all of them
        for attempt in due:
            ends_as, attempt.handle = attempt.handle, None
            if ends_as is _OK:
                attempt.done(answer)
            elif ends_as is _LATE:
                attempt.done(_LATE)
            elif isinstance(ends_as, tuple):
                status, headers, body = ends_as
                attempt.done(Answer(status, headers, body, now))

    def __repr__(self) -> str:
        return f"<SimulatedUpstream: {len(self._due)} due, {self._later!r}>"


class _Arrivals:
    """Accepted arrivals of one key, for one limit."""

    __slots__ = ("_most", "_per", "stamps")

    def __init__(self, most: int, per: int) -> None:
        self._most = most
        self._per = per
        self.stamps: deque[int] = deque()

    def full_until(self, now: int) -> int:
        """`now` if there is room, else when the oldest arrival leaves the window."""
        stamps = self.stamps
        while stamps and stamps[0] <= now - self._per:
            stamps.popleft()
        return now if len(stamps) < self._most else stamps[0] + self._per
