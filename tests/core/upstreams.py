"""Upstreams of three kinds that tell what is left of their limit, with somebody else who uses the same keys, on
virtual time.

Rule: an upstream counts what arrives and knows nothing of us. Others come at a constant rate and are always admitted,
as those are who ask less often than we do. Nothing here is random but what the seed says.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.core.permit import Permit

WALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
# A call is tried as often as it takes: what is asked is how often it was refused.
POLICY: Final = RetryPolicy(max_attempts=1000)


class Upstream(Protocol):
    """One limit of one key, as the upstream counts it."""

    max: int

    def arrives(self, now: int, *, always: bool = False) -> bool:
        """Whether this arrival is admitted; `always`: it is, and counts, whatever is left."""

    def left(self, now: int) -> int: ...

    def reset_in(self, now: int) -> int:
        """How long (ns) until something comes back."""


class Sliding:
    """At most `max` in any window of `per`."""

    def __init__(self, max: int, per: int) -> None:
        self.max, self.per = max, per
        self._log: deque[int] = deque()

    def arrives(self, now: int, *, always: bool = False) -> bool:
        ok = always or self.left(now) > 0
        if ok:
            self._log.append(now)
        return ok

    def left(self, now: int) -> int:
        while self._log and self._log[0] <= now - self.per:
            self._log.popleft()
        return max(0, self.max - len(self._log))

    def reset_in(self, now: int) -> int:
        return self._log[0] + self.per - now if self._log else 0


class Fixed:
    """At most `max` in each window [k * per + offset, (k + 1) * per + offset)."""

    def __init__(self, max: int, per: int, offset: int = 0) -> None:
        self.max, self.per, self._offset = max, per, offset
        self._window = self._count = 0

    def arrives(self, now: int, *, always: bool = False) -> bool:
        ok = always or self.left(now) > 0
        if ok:
            self._count += 1
        return ok

    def left(self, now: int) -> int:
        window = (now - self._offset) // self.per
        if window != self._window:
            self._window, self._count = window, 0
        return max(0, self.max - self._count)

    def reset_in(self, now: int) -> int:
        return self.per - (now - self._offset) % self.per


class Tokens:
    """A bucket of `max` tokens that is refilled in `per`."""

    def __init__(self, max: int, per: int, rate: int | None = None) -> None:
        self.max = max
        self._rate = (rate or max) / per
        self._left, self._at = float(max), 0

    def _refill(self, now: int) -> float:
        self._left = min(self.max, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left

    def arrives(self, now: int, *, always: bool = False) -> bool:
        ok = self._refill(now) >= 1 or always
        if ok:
            self._left -= 1
        return ok

    def left(self, now: int) -> int:
        return max(0, int(self._refill(now) + 1e-9))

    def reset_in(self, now: int) -> int:
        return round((self.max - self._refill(now)) / self._rate)


def ietf(counter: Upstream, now: int) -> dict[str, str]:
    """RateLimit-Limit, -Remaining and -Reset."""
    return {
        "ratelimit-limit": str(counter.max),
        "ratelimit-remaining": str(counter.left(now)),
        "ratelimit-reset": str(counter.reset_in(now) // SECOND),
    }


@dataclass
class Traffic:
    """What arrived of our calls. Instants are ns."""

    admitted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    ended_at: int = 0


class Simulation:
    """A pool at work against one counter a key.

    An admitted call takes the upstream `work` ns, a refused one none; `tells_late`: its headers are written after that,
    not when it arrives.
    """

    def __init__(
        self,
        pool: Pool,
        counters: list[Upstream],
        *,
        seed: int = 0,
        latency: tuple[int, int] = (10 * MILLISECOND, 50 * MILLISECOND),
        pace: int = 200 * MICROSECOND,
        others: float = 0.0,
        work: int = 0,
        tells_late: bool = False,
        tells: Callable[[Upstream, int], Mapping[str, str]] = ietf,
    ) -> None:
        self.dispatcher = Dispatcher(pool, FakePacer)
        self.now = 0
        self.traffic = Traffic()
        self._pool = pool
        self._counters = counters
        self._random = Random(seed)
        self._latency = latency
        self._pace = pace
        self._free_at = 0
        self._tells = tells
        self._work = work
        self._tells_late = tells_late
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._wake_at: int | None = None
        self.others_until = FAR
        if others:
            for counter, key in zip(counters, pool.keys, strict=True):
                self._others(counter, round(key.limits[0].per / (key.limits[0].max * others)))

    def _at(self, at: int, event: Callable[[], None]) -> None:
        self._sequence += 1
        heappush(self._events, (at, self._sequence, event))

    def _others(self, counter: Upstream, every: int) -> None:
        def come() -> None:
            counter.arrives(self.now, always=True)
            if self.now < self.others_until:
                self._at(self.now + every, come)

        self._at(self.now + self._random.randrange(every), come)

    def submit(self, calls: int, id: int = 1, path: str = "/") -> None:
        batch = Batch(id, "a", calls, admitted_at=self.now, calls=[Call(path=path)] * calls, policy=POLICY)
        self.dispatcher.submit(batch, self.now)
        self._assign()

    def run(self, until: int = FAR, *, results: int | None = None) -> Traffic:
        """Until an instant, or until there are so many results."""
        while results is None or len(self.traffic.results) < results:
            following = [self._events[0][0]] if self._events else []
            if self._wake_at is not None:
                following.append(max(self.now, self._wake_at))
            at = min(following, default=FAR)
            if at >= until:
                break
            self.now = at
            while self._events and self._events[0][0] <= at:
                heappop(self._events)[2]()
            self._assign()
        self.traffic.events += self.dispatcher.take_events()
        return self.traffic

    def _assign(self) -> None:
        permits, self._wake_at = self.dispatcher.assign(self.now, FAR)
        for permit in permits:
            # One after the other, as a process on one core writes them.
            self._free_at = max(self.now, self._free_at) + self._pace
            self._at(self._free_at, partial(self._send, permit))

    def _send(self, permit: Permit) -> None:
        self.dispatcher.sent(permit, self.now)
        there, back = (self._random.randint(*self._latency) // 2 for _ in range(2))
        self._at(self.now + there, partial(self._arrive, permit, back))

    def _arrive(self, permit: Permit, back: int) -> None:
        counter = self._counters[permit.key.index]
        ok = counter.arrives(self.now)
        (self.traffic.admitted if ok else self.traffic.refused).append(self.now)
        headers = self._tells(counter, self.now)
        if not ok:
            self._at(self.now + back, partial(self._answer, permit, 429, headers))
        elif self._tells_late:
            self._at(self.now + self._work, partial(self._finish, permit, back))
        else:
            self._at(self.now + self._work + back, partial(self._answer, permit, 200, headers))

    def _finish(self, permit: Permit, back: int) -> None:
        headers = self._tells(self._counters[permit.key.index], self.now)
        self._at(self.now + back, partial(self._answer, permit, 200, headers))

    def _answer(self, permit: Permit, status: int, headers: Mapping[str, str]) -> None:
        answer = Answer(status, Headers.of(headers), b"", self.now)
        result = self.dispatcher.settle(permit, answer, self.now, WALL, self._random.random())
        if result is not None:
            self.traffic.results.append(result)
            self.traffic.ended_at = self.now


def pool_with(keys: int, limit: Limit, jitter: int = 250 * MILLISECOND) -> Pool:
    return Pool("pool", tuple(Key(f"key-{n}", "secret", (limit,)) for n in range(keys)), jitter)
