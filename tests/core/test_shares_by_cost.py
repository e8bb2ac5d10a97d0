"""Callers and batches get their shares of limits that count cost too, though calls then go when they fit."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import cycle
from typing import Final

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import BUCKET, COST, answer

CALLS: Final = 2_000
MIXED: Final = (3, 17, 8, 12, 20, 1, 5, 14)
SMALL: Final = (1, 5, 2, 3)
LARGE: Final = (90, 55, 100, 70)
FLOWING: Final = Limit(100, SECOND, COST, BUCKET, 200)
ENDING: Final = Limit(1000, 10 * SECOND, COST)
SEARCH: Final = Limit(60, SECOND, COST, BUCKET, 100, ("/search/",))

Spec = tuple[str, float, tuple[int, ...]]  # caller, weight, costs of its calls again and again


def spent(limits: tuple[Limit, ...], specs: list[Spec], keys: int = 1) -> list[int]:
    """The cost that each batch got in a minute."""
    made = tuple(Key(f"key-{place}", "secret", limits) for place in range(keys))
    scheduler = Scheduler(Pool("pool", made, 0), FakePacer)
    calls = [Call(path=path) for _, path in zip(range(CALLS), cycle(("/search/x", "/other")), strict=False)]
    for id, (caller, weight, costs) in enumerate(specs):
        around = cycle(costs)
        row = [next(around) for _ in range(CALLS)]
        scheduler.add(Batch(id, caller, CALLS, admitted_at=0, calls=calls, costs=row, weight=weight))
    flying: list[tuple[int, int, Permit]] = []
    got: Counter[int] = Counter()
    now = count = 0
    while now < 60 * SECOND:
        permits, wake_at = scheduler.assign(now)
        for permit in permits:
            got[permit.batch.id] += permit.cost
            count += 1
            heappush(flying, (now + SECOND // 10, count, permit))
        now = max(now + 1, min(FAR if wake_at is None else wake_at, flying[0][0] if flying else FAR))
        while flying and flying[0][0] <= now:
            answer(scheduler, heappop(flying)[2], now)
    return [got[id] for id in range(len(specs))]


@pytest.mark.parametrize(
    ("specs", "shares"),
    [
        ([("a", 1, MIXED), ("a", 1, MIXED), ("b", 1, MIXED)], (1, 1, 2)),
        ([("a", 1, MIXED), ("a", 3, MIXED)], (1, 3)),
        ([("a", 1, SMALL), ("b", 1, LARGE)], (1, 1)),
        ([("a", 1, SMALL), ("a", 1, SMALL), ("b", 1, LARGE)], (1, 1, 2)),
    ],
    ids=["two batches of one caller", "weights", "large beside small", "large beside two of small"],
)
@pytest.mark.parametrize("limits", [(FLOWING,), (ENDING,), (FLOWING, SEARCH)], ids=["bucket", "window", "paths"])
def test_cost_is_shared_by_caller_and_weight(
    limits: tuple[Limit, ...], specs: list[Spec], shares: tuple[int, ...]
) -> None:
    """Whatever each call costs, though a call that doesn't fit yet has a place kept for it and is passed meanwhile."""
    got = spent(limits, specs)
    assert sum(got) >= 0.97 * 6000
    for its, share in zip(got, shares, strict=True):
        assert its == pytest.approx(sum(got) * share / sum(shares), rel=0.1)


def test_cost_is_shared_by_caller_over_several_keys() -> None:
    """With a bucket each."""
    first, second, other = spent((FLOWING,), [("a", 1, MIXED), ("a", 1, MIXED), ("b", 1, MIXED)], keys=3)
    assert first == pytest.approx(second, rel=0.1)
    assert other == pytest.approx(first + second, rel=0.1)


def test_who_fits_nowhere_banks_no_turns() -> None:
    """A caller whose calls no key could pay for since one limit was lower gets its half, once they fit, and no more."""
    key = Key("key-0", "secret", (Limit(50, SECOND, COST),))
    scheduler = Scheduler(Pool("pool", (key,), 0), None)
    for id, (caller, cost) in enumerate((("a", 10), ("b", 60))):
        scheduler.add(Batch(id, caller, 10_000, admitted_at=0, costs=[cost] * 10_000))
    got: Counter[int] = Counter()
    for second in range(400):
        if second == 200:
            scheduler.change_limits(0, (Limit(120, SECOND, COST),), second * 2 * SECOND)
            got.clear()
        for permit in scheduler.assign(second * 2 * SECOND)[0]:
            got[permit.batch.id] += permit.cost
            answer(scheduler, permit, second * 2 * SECOND)
    assert got[0] == pytest.approx(got[1], rel=0.1)
