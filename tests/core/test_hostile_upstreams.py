"""Pools of every shape against upstreams that answer anything: waits, hints true and false, faults, silence.

Rule: whatever is answered, each call gets one result, no key is used beyond its limits as they arrive, no call waits
that a key could pay for, and nobody is woken in the past. In the end the upstream recovers, and all comes to an end.

The other machines know exactly what must happen, and so know few answers; this one knows all of them, and only what may
never happen. A seed makes the whole run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Final

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Group, Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import CANCELLED, Answer, Cause, NotSent, Reason, Unknown
from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.desk import WALL
from tests.core.world import meets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apiflux_grpc.core.lanes import Turn
    from apiflux_grpc.core.outcome import Outcome, Result
    from apiflux_grpc.core.permit import Permit

HOUR: Final = 3600 * SECOND
PATHS: Final = ("/a/x", "/a/b/y", "/c")
STATUSES: Final = (200, 200, 200, 200, 401, 403, 404, 408, 425, 429, 429, 500, 503)
WAITS: Final = ("0", "-4", "1", "7.99", "8, 8", "60", "soon", "Thu, 01 Jan 2026 00:00:20 GMT")
NAMES: Final = ("ratelimit", "x-ratelimit", "x-ratelimit-{}-requests", "x-ratelimit-{}-minute", "x-ratelimit-{}-tokens")


def limits_of(random: Random, most: int) -> tuple[Limit, ...]:
    scopes = ((), (), ("/a/",), ("/a/b/", "/c"))
    return tuple(
        {
            Limit(random.randint(1, 12), random.choice((1, 3, 10)) * SECOND, paths=random.choice(scopes))
            for _ in range(random.randint(0, most))
        }
    )


def pool_of(random: Random) -> Pool:
    keys = tuple(
        Key(f"key-{place}", "secret", limits_of(random, 3), random.choice((None, None, 1, 3)))
        for place in range(random.randint(1, 4))
    )
    members = tuple(key.label for key in keys[: random.randint(0, len(keys))])
    return Pool(
        "pool",
        keys,
        random.choice((0, 50, 250)) * MILLISECOND,
        max_connections=random.choice((1, 5, 1000)),
        longest_wait=random.choice((20 * SECOND, 24 * HOUR)),
        groups=(Group(members, limits_of(random, 2)),) if members else (),
    )


class Run:
    """One pool and its upstream, on virtual time."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.pool = pool_of(self.random)
        self.dispatcher = Dispatcher(self.pool, FakePacer)
        self.now = 0
        self.recovers_at = self.random.choice((5, 20, 60)) * SECOND
        self.batches: list[Batch] = []
        self.cancelled: set[int] = set()
        self.results: dict[int, Counter[int]] = defaultdict(Counter)
        self.flying: dict[Permit, int] = {}  # when each was sent; -1: not yet
        self.arrived: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.sequence = 0

    def at(self, at: int, event: Callable[[], None]) -> None:
        self.sequence += 1
        heappush(self.events, (at, self.sequence, event))

    def submit(self) -> None:
        total = self.random.choice((1, 5, 30))
        calls = [Call(path=self.random.choice(PATHS), idempotent=self.random.random() < 0.7) for _ in range(total)]
        policy = RetryPolicy(self.random.randint(1, 4))
        batch = Batch(
            len(self.batches), self.random.choice("ab"), total, admitted_at=self.now, calls=calls, policy=policy
        )
        self.batches.append(batch)
        self.take(batch, self.dispatcher.submit(batch, self.now))

    def act(self) -> None:
        """A batch comes, is stopped or is cancelled."""
        which = self.random.random()
        batch = self.random.choice(self.batches)
        if which < 0.6:
            self.submit()
        elif batch.ending is None and which < 0.8:
            self.take(batch, self.dispatcher.stop(batch, self.now))
        elif batch.ending is None:
            self.cancelled.add(batch.id)
            self.dispatcher.cancel(batch)
            for permit, sent_at in [*self.flying.items()]:
                if permit.batch is batch:
                    self.end(permit, CANCELLED if sent_at < 0 else Unknown("cancelled"))

    def take(self, batch: Batch, results: Iterable[Result]) -> None:
        for result in results:
            assert batch.id not in self.cancelled
            self.results[batch.id][result.index] += 1

    # -- the upstream ---------------------------------------------------------------------------

    def begin(self, permit: Permit) -> None:
        self.flying[permit] = -1
        delay = self.random.choice((0, 0, 0, 30)) * MILLISECOND
        lost = self.now < self.recovers_at and self.random.random() < 0.05
        outcome = NotSent(self.random.choice((Cause.UNREACHABLE, Cause.LATE, Cause.DROPPED)), "not sent")
        self.at(self.now + delay, partial(self.end, permit, outcome) if lost else partial(self.send, permit))

    def send(self, permit: Permit) -> None:
        if permit not in self.flying:
            return
        self.flying[permit] = self.now
        self.dispatcher.sent(permit, self.now)
        latency = self.random.choice((1, 20, 50, 2000)) * MILLISECOND
        path = permit.batch.call_at(permit.place).path
        late = self.random.choice((0, min(latency, self.pool.arrival_jitter)))
        self.at(self.now + late, partial(self.arrive, permit.key.key, path))
        if self.now < self.recovers_at and self.random.random() < 0.05:
            self.at(self.now + 30 * SECOND, partial(self.end, permit, Unknown("no answer", Reason.TIMEOUT)))
        else:
            self.at(self.now + latency, partial(self.answer, permit))

    def arrive(self, key: Key, path: str) -> None:
        groups = [group for group in self.pool.groups if key.label in group.keys]
        for name, limits in [(key.label, key.limits), *(("group", group.limits) for group in groups)]:
            arrived = self.arrived[name]
            arrived.append((self.now, path))
            for limit in limits:
                if meets(path, limit):
                    inside = sum(at > self.now - limit.per and meets(its, limit) for at, its in arrived)
                    assert inside <= limit.max, f"{inside} in {limit} of {name}"

    def answer(self, permit: Permit) -> None:
        status, headers = 200, dict[str, str]()
        if self.now < self.recovers_at:
            random = self.random
            status = random.choice(STATUSES)
            if status != 200 and random.random() < 0.6:
                headers["retry-after"] = random.choice(WAITS)
            if random.random() < 0.6:
                name = random.choice(NAMES)
                values = {"limit": (5, 10, 1000), "remaining": (0, 1, 5, 999, "?"), "reset": (0, 1, 9, 60, 3600)}
                for field, told in values.items():
                    header = name.format(field) if "{" in name else f"{name}-{field}"
                    headers[header] = str(random.choice(told))
        self.end(permit, Answer(status, Headers.of(headers), b"", self.now))

    def end(self, permit: Permit, outcome: Outcome) -> None:
        if self.flying.pop(permit, None) is not None:
            wall = WALL + timedelta(microseconds=self.now // 1000)
            result = self.dispatcher.settle(permit, outcome, self.now, wall, self.random.random())
            self.take(permit.batch, () if result is None else (result,))

    # -- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        for batch, results in self.dispatcher.tick(self.now):
            self.take(batch, results)
        self.dispatcher.take_events()
        self.at(self.now + SECOND, self.tick)

    def ask(self) -> int:
        """One pass; returns when to ask again."""
        permits, wake_at = self.dispatcher.assign(self.now, FAR)
        for permit in permits:
            self.begin(permit)
        assert wake_at is None or wake_at > self.now, f"woken in the past: {wake_at}"
        if wake_at is None or wake_at > self.now + 3 * MICROSECOND:  # a pacer's floats
            self.expect_no_idle_key()
        return FAR if wake_at is None else wake_at

    def expect_no_idle_key(self) -> None:
        scheduler = self.dispatcher.scheduler
        if len(self.flying) >= self.pool.max_connections or not scheduler.breaker.calm:
            return
        for batch in self.batches:
            turns: list[Turn] = [*scheduler.turns(batch)] if batch.ending is None else []
            for turn in (turn for turn in turns if turn.has_work):
                tried = turn.again[0].tried if turn.again else 0
                for seat in scheduler.keyring.seats_but(tried, turn.number):
                    key = seat.key
                    free = key.in_flight < key.most and seat.usable_at(self.now) <= self.now
                    pays = all(one.budget.fits(1, self.now) == 0 for one in (key, *seat.others))
                    assert not (free and pays), f"{turn!r} waits, and {key!r} could pay"

    def run(self) -> None:
        self.submit()
        self.at(SECOND, self.tick)
        for _ in range(self.random.randint(0, 6)):
            self.at(self.random.randrange(self.recovers_at), self.act)
        wake_at = self.ask()
        passes = 0
        while self.now < self.recovers_at or any(not batch.finished for batch in self.batches):
            self.now = max(self.now, min(wake_at, self.events[0][0]))
            while self.events[0][0] <= self.now:
                heappop(self.events)[2]()
            wake_at = self.ask()
            passes += 1
            assert passes < 20_000, "woken again and again"
            assert self.now < 2 * HOUR, f"no end: {self.dispatcher!r}"
        for batch in self.batches:
            if batch.id not in self.cancelled:
                assert self.results[batch.id] == dict.fromkeys(range(batch.total), 1)
        assert self.dispatcher.scheduler.waiting == self.dispatcher.scheduler.in_flight == 0


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_whatever_an_upstream_answers(first: int) -> None:
    """Ten runs: every call has one result, within every limit, with no key idle and nobody woken for nothing."""
    for seed in range(first, first + 10):
        Run(seed).run()
