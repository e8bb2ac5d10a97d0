"""What one caller has open, and what it handed over lately, against its quotas.

Rule: a batch is refused at the door or admitted whole, and what was admitted is never shed. A stream isn't refused for
what it will bring: `wait` says when there is room for its next calls, and it is read no further until then.

A rate holds for every stretch of time of its length, not for fixed windows: what was handed over is remembered for so
long. It is remembered in at most PARTS parts, each as if all of it had come with the last of it.

Owner: the server's loop.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import BatchTooLarge, QuotaOfBatches, QuotaOfCalls, QuotaOfRate
from apiflux_grpc.core.units import SECOND, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.callers import Access

PARTS: Final = 100
_SOON: Final = SECOND // 10  # when a stream that waits for its own caller's other calls looks again


class Account:
    """The quotas of one caller. Times are ns."""

    __slots__ = ("_access", "_lately", "_sum", "batches", "calls", "name")

    def __init__(self, name: str, access: Access) -> None:
        self.name = name
        self.batches = 0  # open
        self.calls = 0  # without a result
        self._access = access
        self._lately: deque[tuple[int, int]] = deque()  # (when, how many)
        self._sum = 0

    def check(self, calls: int, now: int, drain_time: Callable[[], int]) -> None:
        """Raises QuotaExceeded if there is no room for one more batch of so many calls, BatchTooLarge if there never
        is. `drain_time` is how long what is open takes."""
        access = self._access
        most, rate = access.max_queued_calls, access.rate
        if most is not None and calls > most:
            raise BatchTooLarge([self._too_large(calls, f"{most} without a result")])
        if rate is not None and calls > rate.max:
            raise BatchTooLarge([self._too_large(calls, f"{rate.max} in {format_duration(rate.per)}")])
        if access.max_batches is not None and self.batches >= access.max_batches:
            raise QuotaOfBatches(self.name, self.batches, 1, limit=access.max_batches, retry_after=drain_time())
        if most is not None and self.calls + calls > most:
            raise QuotaOfCalls(self.name, self.calls, calls, limit=most, retry_after=drain_time())
        if rate is not None and (wait := self._rate_wait(calls, now)):
            raise QuotaOfRate(self.name, self._sum, calls, limit=rate.max, retry_after=wait)

    def open(self, calls: int, now: int) -> None:
        """A batch was admitted."""
        self.batches += 1
        self.fed(calls, now)

    def fed(self, calls: int, now: int) -> None:
        """So many calls were handed over."""
        self.calls += calls
        if self._access.rate is None or not calls:
            return
        self._sum += calls
        part = self._access.rate.per // PARTS
        if self._lately and now - self._lately[-1][0] <= part and len(self._lately) > 1:
            calls += self._lately.pop()[1]
        self._lately.append((now, calls))

    def received(self, results: int) -> None:
        """So many calls have their results."""
        self.calls -= results

    def over(self, rest: int) -> None:
        """A batch has ended, `rest` of its calls without a result."""
        self.batches -= 1
        self.calls -= rest

    def wait(self, calls: int, now: int) -> int:
        """How long a stream must wait before it may hand over so many more, at most `slice` of them; 0: it may now."""
        most = self._access.max_queued_calls
        if most is not None and self.calls + calls > most:
            return _SOON
        return 0 if self._access.rate is None else self._rate_wait(calls, now)

    def slice(self, most: int) -> int:
        """How many calls may be handed over at once, `most` at most."""
        rate = self._access.rate
        bounds = (most, self._access.max_queued_calls, None if rate is None else rate.max)
        return min(bound for bound in bounds if bound is not None)

    def _rate_wait(self, calls: int, now: int) -> int:
        rate, lately = self._access.rate, self._lately
        assert rate is not None
        while lately and lately[0][0] + rate.per <= now:
            self._sum -= lately.popleft()[1]
        left = self._sum + calls - rate.max
        for when, count in lately:
            if left <= 0:
                break
            left -= count
            wait = when + rate.per - now
            if left <= 0:
                return wait
        return 0

    def _too_large(self, calls: int, what: str) -> Fault:
        return Fault("calls", f"has {calls} calls; {self.name} may have {what}. Split it, or use ProcessStream")

    def __repr__(self) -> str:
        return f"<Account {self.name}: {self.batches} batches, {self.calls} calls>"
