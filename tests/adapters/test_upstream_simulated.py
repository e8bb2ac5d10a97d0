"""The simulator's own rules: latency, errors and limits, on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.model import Key
from apiflux_grpc.core.outcome import Answer, Reason, Unknown
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import Watch


def clock() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def watch_now(key: Key | None = None, timeout: int = 100 * SECOND) -> Watch:
    if key is None:
        return Watch(timeout=timeout, taken_at=clock())
    return Watch(key=key, timeout=timeout, taken_at=clock())


def status_of(watch: Watch) -> int:
    outcome = watch.outcomes[0]
    assert isinstance(outcome, Answer)
    return outcome.status


pytestmark = pytest.mark.looptime


async def test_latency() -> None:
    """An answer comes within the latency asked for, never before it by the clock, and at most 1 ms behind a tick."""
    least, most = 3 * MILLISECOND, 700 * MILLISECOND
    upstream = SimulatedUpstream((least, most), clock=clock, random=random.Random(7))
    watches = [watch_now() for _ in range(300)]
    for watch in watches:
        upstream.begin(watch)
    took = []
    for watch in watches:
        outcome = await watch.over()
        assert isinstance(outcome, Answer)
        took.append(outcome.answered_at - watch.sent_at[0])
    assert min(took) >= least
    assert max(took) <= most + 2 * MILLISECOND
    assert max(took) - min(took) > (most - least) * 9 // 10
    await upstream.close()


async def test_a_timer_that_fires_early() -> None:
    """A timer that fires before its time by the clock answers nobody."""
    lag, latency = [0], 10 * MILLISECOND + 500_000  # between two ticks
    upstream = SimulatedUpstream((latency, latency), clock=lambda: clock() - lag[0])
    watch = watch_now()
    upstream.begin(watch)
    lag[0] = 900_000  # the loop's clock runs ahead
    await watch.over()
    outcome = watch.outcomes[0]
    assert isinstance(outcome, Answer)
    assert outcome.answered_at - watch.sent_at[0] >= latency
    await upstream.close()


async def test_timeout_wins() -> None:
    """A latency above the attempt's timeout ends it as TIMEOUT when that has passed."""
    upstream = SimulatedUpstream((5 * SECOND, 5 * SECOND), clock=clock)
    watch = watch_now(timeout=SECOND)
    upstream.begin(watch)
    outcome = await watch.over()
    assert isinstance(outcome, Unknown)
    assert outcome.reason is Reason.TIMEOUT
    assert SECOND <= clock() - watch.sent_at[0] <= SECOND + 2 * MILLISECOND
    await upstream.close()


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (0.2, 150, 250), (1.0, 1000, 1000)])
async def test_error_rate(rate: float, least: int, most: int) -> None:
    """The share of calls answered 500 is the one asked for."""
    upstream = SimulatedUpstream(error_rate=rate, clock=clock, random=random.Random(7))
    watches = [watch_now() for _ in range(1000)]
    for watch in watches:
        upstream.begin(watch)
    await asyncio.gather(*(watch.over() for watch in watches))
    assert least <= Counter(map(status_of, watches))[500] <= most


async def test_limits_are_exact() -> None:
    """In a half-open window the limit's calls pass and the next is refused until the first has left it."""
    now = [0]
    upstream = SimulatedUpstream(limits=[(3, 100)], clock=lambda: now[0])

    async def status_at(at: int, key: Key) -> int:
        now[0] = at
        watch = Watch(key=key, taken_at=at)
        upstream.begin(watch)
        await watch.over()
        return status_of(watch)

    one, other = Key("one", "s1", ()), Key("other", "s2", ())
    assert [await status_at(at, one) for at in (0, 10, 20)] == [200, 200, 200]
    assert await status_at(99, one) == 429
    assert await status_at(99, other) == 200
    assert await status_at(100, one) == 200
    assert await status_at(109, one) == 429
    assert [await status_at(110, one), await status_at(120, one), await status_at(120, one)] == [200, 200, 429]


async def test_retry_after() -> None:
    """A 429 names the whole seconds until there is room, and whoever waits so long is let through."""
    upstream = SimulatedUpstream(limits=[(1, 2_500 * MILLISECOND), (5, 60 * SECOND)], clock=clock)
    for _ in range(2):
        first, second = watch_now(), watch_now()
        upstream.begin(first)
        upstream.begin(second)
        await second.over()
        refused = second.outcomes[0]
        assert isinstance(refused, Answer)
        assert (status_of(first), refused.status, refused.headers["retry-after"]) == (200, 429, "3")
        await asyncio.sleep(3)


async def test_refuses_nonsense() -> None:
    """Latencies and rates that can't be are refused."""
    with pytest.raises(ValueError, match="latency"):
        SimulatedUpstream((5, 1))
    with pytest.raises(ValueError, match="error rate"):
        SimulatedUpstream(error_rate=1.5)
