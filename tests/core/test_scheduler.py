"""The scheduler on virtual time: never over at the arrival side, never idle, nothing lost."""

from __future__ import annotations

import random
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.model import MILLISECOND, SECOND, Batch, Key, Limit, Permit, Pool
from apiflux_grpc.core.scheduler import Scheduler


def pool_of(*limits: tuple[Limit, ...], jitter: int = 0, most: int | None = None) -> Pool:
    keys = tuple(Key(f"key-{place}", "secret", own, most) for place, own in enumerate(limits))
    return Pool("default", keys, arrival_jitter=jitter, max_connections=1 << 40)


def labels(permits: list[Permit]) -> list[str]:
    return [permit.key.key.label for permit in permits]


def test_the_key_with_the_larger_free_share_goes_first() -> None:
    """Headroom is a share: a small fast limit isn't left idle beside a big slow one."""
    scheduler = Scheduler(pool_of((Limit(10, SECOND),), (Limit(1000, 60 * SECOND),)), None)
    scheduler.add(Batch(1, "a", 1010, admitted_at=0))
    permits, wake_at = scheduler.assign(0)
    assert labels(permits).count("key-0") == 10
    assert labels(permits).count("key-1") == 1000
    assert wake_at is None


def test_a_key_never_has_more_in_flight_than_it_may() -> None:
    """max_in_flight bounds a key, and a settled call makes room at once."""
    scheduler = Scheduler(pool_of((Limit(100, SECOND),), most=2), None)
    scheduler.add(Batch(1, "a", 5, admitted_at=0))
    permits, _ = scheduler.assign(0)
    assert len(permits) == 2
    scheduler.sent(permits[0], 0)
    scheduler.settle(permits[0], 10, 10)
    more, _ = scheduler.assign(10)
    assert len(more) == 1


def test_a_blocked_key_waits_alone() -> None:
    """A block concerns one key, and ends by itself at the instant that was said."""
    scheduler = Scheduler(pool_of((Limit(5, SECOND),), (Limit(5, SECOND),)), None)
    scheduler.block(scheduler.keys[0], 7 * SECOND)
    scheduler.add(Batch(1, "a", 6, admitted_at=0))
    permits, wake_at = scheduler.assign(0)
    assert labels(permits) == ["key-1"] * 5
    assert wake_at == 7 * SECOND
    assert len(scheduler.assign(7 * SECOND - 1)[0]) == 0
    assert labels(scheduler.assign(7 * SECOND)[0]) == ["key-0"]


def test_a_call_that_was_not_sent_is_given_back() -> None:
    """What certainly didn't reach the upstream costs nothing."""
    scheduler = Scheduler(pool_of((Limit(1, SECOND),)), None)
    scheduler.add(Batch(1, "a", 2, admitted_at=0))
    (permit,), _ = scheduler.assign(0)
    scheduler.settle(permit, 1, None)
    assert len(scheduler.assign(1)[0]) == 1


def test_a_hanging_call_gives_its_slot_back_by_itself() -> None:
    """A call that was sent and never answered ends J + per after its sending, while it still hangs."""
    scheduler = Scheduler(pool_of((Limit(1, SECOND),), jitter=100 * MILLISECOND), None)
    scheduler.add(Batch(1, "a", 2, admitted_at=0))
    (permit,), _ = scheduler.assign(0)
    scheduler.sent(permit, 50)
    _, wake_at = scheduler.assign(60)
    assert wake_at is not None
    assert 50 + 1100 * MILLISECOND <= wake_at <= 50 + 1100 * MILLISECOND + SECOND // 5_000
    assert len(scheduler.assign(wake_at)[0]) == 1


@pytest.mark.parametrize("weight", [1.0, 2.0, 8.0])
def test_turns_follow_weights(weight: float) -> None:
    """A batch gets turns in the proportion of its weight, whatever the sizes of the batches."""
    scheduler = Scheduler(pool_of((Limit(90, SECOND),)), None)
    scheduler.add(Batch(1, "a", 2000, admitted_at=0))
    scheduler.add(Batch(2, "a", 2000, admitted_at=0, weight=weight))
    permits, _ = scheduler.assign(0)
    second = sum(1 for permit in permits if permit.batch.id == 2)
    assert abs(second - 90 * weight / (1 + weight)) <= 1


def test_a_small_batch_does_not_wait_for_a_large_one() -> None:
    """A 10-call batch behind a 2,000-call one gets every second permit."""
    scheduler = Scheduler(pool_of((Limit(20, SECOND),)), None)
    scheduler.add(Batch(1, "a", 2000, admitted_at=0))
    scheduler.add(Batch(2, "b", 10, admitted_at=0))
    permits, _ = scheduler.assign(0)
    assert sum(1 for permit in permits if permit.batch.id == 2) == 10


LIMITS = st.builds(Limit, st.integers(1, 30), st.sampled_from([SECOND // 2, SECOND, 7 * SECOND]))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(LIMITS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4),
    st.sampled_from([0, 20 * MILLISECOND, 250 * MILLISECOND]),
    st.lists(st.integers(1, 80), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
def test_never_over_never_idle(limits: list[tuple[Limit, ...]], jitter: int, sizes: list[int], seed: int) -> None:
    """At the arrival side no window is ever over; every call gets its permit; and while calls wait, each is out at
    the latest when the tightest window allows it, plus the documented margins."""
    rng = random.Random(seed)
    scheduler = Scheduler(pool_of(*limits, jitter=jitter), None)
    for number, size in enumerate(sizes):
        scheduler.add(Batch(number, f"caller-{number % 2}", size, admitted_at=0))
    arrivals: dict[str, list[int]] = {}
    events: list[tuple[int, int, str, Permit]] = []
    now, sequence, handed_out = 0, 0, 0
    for _ in range(5_000):
        permits, wake_at = scheduler.assign(now)
        for permit in permits:
            handed_out += 1
            sequence += 1
            heappush(events, (now + rng.randrange(0, 30 * MILLISECOND), sequence, "sent", permit))
        if not events and wake_at is None:
            break
        next_event = events[0][0] if events else None
        now = min(at for at in (wake_at, next_event) if at is not None)
        while events and events[0][0] <= now:
            at, _, kind, permit = heappop(events)
            sequence += 1
            if kind == "sent":
                scheduler.sent(permit, at)
                latency = rng.randrange(1, 2 * SECOND if rng.random() < 0.1 else 100 * MILLISECOND)
                arrived = at + rng.randrange(0, min(jitter, latency) + 1)
                arrivals.setdefault(permit.key.key.label, []).append(arrived)
                answer = "answered" if rng.random() < 0.9 else "lost"
                heappush(events, (at + latency, sequence, answer, permit))
            else:
                scheduler.settle(permit, at, at if kind == "answered" else None)
    assert handed_out == sum(sizes)
    assert scheduler.waiting == 0
    assert scheduler.in_flight == 0
    for key in scheduler.keys:
        stamps = sorted(arrivals.get(key.key.label, []))
        for limit in key.key.limits:
            for place, at in enumerate(stamps):
                inside = sum(1 for other in stamps[place : place + limit.max + 1] if other - at < limit.per)
                assert inside <= limit.max
    margin = jitter + 2 * SECOND + 60 * MILLISECOND
    slowest = max(-(-sum(sizes) // limit.max) * (limit.per * 130 // 128 + margin) for own in limits for limit in own)
    assert now <= slowest + 4 * SECOND
