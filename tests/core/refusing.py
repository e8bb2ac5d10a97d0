"""A dispatcher over an upstream that refuses as it likes, on virtual time.

Rule: a call arrives when its permit is made and is answered LATENCY later, with what the upstream says of the instant
of its arrival; ticks come once a second, as the engine's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.outcome import Outcome, Result

WALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
LATENCY: Final = 20 * MILLISECOND
LONGEST: Final = 48 * 3600 * SECOND  # of a run
WIDE: Final = Limit(1000, 10 * SECOND)
POLICY: Final = RetryPolicy(max_attempts=3, initial_backoff=200 * MILLISECOND)


class Arrival(NamedTuple):
    """A call that arrived: its place in the batch, the key's label and the instant (ns)."""

    place: int
    key: str
    at: int


Upstream = Callable[[Arrival], "Outcome"]


def ok(arrival: Arrival) -> Answer:
    return says(arrival, 200)


def says(arrival: Arrival, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    return Answer(status, Headers.of(headers or {}), body, arrival.at + LATENCY)


def until(end: int, refuse: Callable[[Arrival], Answer]) -> Upstream:
    """Refuses what arrives before `end`."""
    return lambda arrival: refuse(arrival) if arrival.at < end else ok(arrival)


def pool_of(keys: int, *limits: Limit, **settings: object) -> Pool:
    made = tuple(Key(f"key-{place}", "secret", limits or (WIDE,)) for place in range(keys))
    return Pool("pool", made, arrival_jitter=0, **settings)  # type: ignore[arg-type]


class Outcomes(NamedTuple):
    """What a run came to. `results` are in the order of the calls, `took` is ns until the last of them."""

    results: list[Result]
    arrivals: list[Arrival]
    events: list[Event]
    took: int
    dispatcher: Dispatcher

    @property
    def lost(self) -> int:
        return sum(result.failure is not None for result in self.results)

    def refused(self, upstream: Upstream) -> int:
        """How many arrivals the upstream answered with anything but a success."""
        outcomes = [upstream(arrival) for arrival in self.arrivals]
        return sum(not isinstance(one, Answer) or one.status != 200 for one in outcomes)


def run(
    pool: Pool,
    upstream: Upstream,
    calls: int | Sequence[Call],
    *,
    policy: RetryPolicy = POLICY,
    deadline: int | None = None,
) -> Outcomes:
    """All calls as one batch, to the end."""
    asked = [Call()] * calls if isinstance(calls, int) else list(calls)
    dispatcher = Dispatcher(pool, None)
    batch = Batch(1, "caller", len(asked), admitted_at=0, calls=asked, policy=policy)
    batch.deadline = deadline  # not at the door: what is infeasible from the start is another matter
    results = dispatcher.submit(batch, 0)
    arrivals: list[Arrival] = []
    events: list[Event] = []
    ending: list[tuple[int, int, object, Arrival]] = []
    now, tick_at, wake_at = 0, SECOND, 0
    while not batch.finished:
        now = min(wake_at, tick_at, ending[0][0] if ending else FAR)
        assert now <= LONGEST, f"no end: {dispatcher!r}"
        while ending and ending[0][0] <= now:
            _, _, permit, arrival = heappop(ending)
            wall = WALL + timedelta(microseconds=now // 1000)
            result = dispatcher.settle(permit, upstream(arrival), now, wall, 0.5)  # type: ignore[arg-type]
            results += [] if result is None else [result]
        if now >= tick_at:
            results += [result for _, ended in dispatcher.tick(now) for result in ended]
            tick_at += SECOND
        permits, at = dispatcher.assign(now, FAR)
        wake_at = FAR if at is None else max(at, now)
        for permit in permits:
            dispatcher.sent(permit, now)
            arrivals.append(Arrival(permit.place, permit.key.key.label, now))
            heappush(ending, (now + LATENCY, len(arrivals), permit, arrivals[-1]))
        events += dispatcher.take_events()
    return Outcomes(sorted(results, key=lambda result: result.index), arrivals, events, now, dispatcher)
