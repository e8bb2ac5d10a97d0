"""The contract of the pacer, over both: it shapes bursts, says honestly when to ask again, and never waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.core.bucket import Pacer, PacerFactory
from apiflux_grpc.core.units import MICROSECOND, MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer

pytestmark = pytest.mark.looptime

both = pytest.mark.parametrize("make", [AiolimiterPacer, FakePacer])


def now() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


async def until(at: int) -> None:
    await asyncio.sleep((at - now()) / 1e9)


async def taken(pacer: Pacer, amounts: list[int]) -> list[tuple[int, int]]:
    """Take each amount as soon as there is room, waiting as told; (instant, amount) of each."""
    stamps = []
    for amount in amounts:
        asked = 0
        while (ready := pacer.ready_at(amount, now())) > now():
            asked += 1
            assert asked < 10, "asks again and again"
            await until(ready)
        pacer.take(amount)
        stamps.append((now(), amount))
    return stamps


@both
@pytest.mark.parametrize(("burst", "seconds"), [(1.0, 0.06), (10.0, 0.6), (7.0, 13.0), (1000.0, 59.94)])
async def test_never_more_than_burst_and_rate(make: PacerFactory, burst: float, seconds: float) -> None:
    """Between any two instants at most burst + rate * t pass, and a backlog runs at the full rate."""
    draw = random.Random(7)
    amounts = [draw.randint(0, int(burst)) if burst < 100 else 300 for _ in range(150)]
    stamps = await taken(make(burst, seconds), amounts)
    rate = burst / seconds / 1e9
    for first, (start, _) in enumerate(stamps):
        passed = 0
        for at, amount in stamps[first:]:
            passed += amount
            assert passed <= burst + rate * (at - start) + 1e-3
    whole = stamps[-1][0] - stamps[0][0]
    assert whole <= (sum(amounts) - burst) / rate * 1.001 + 200 * MICROSECOND + MILLISECOND


@both
async def test_a_burst_at_once(make: PacerFactory) -> None:
    """A fresh pacer lets its burst pass at one instant, and then names the instant of the next."""
    pacer = make(5, 1.0)
    start = now()
    for _ in range(5):
        assert pacer.ready_at(1, start) <= start
        pacer.take(1)
    ready = pacer.ready_at(1, start)
    assert start + 200 * MILLISECOND <= ready <= start + 200 * MILLISECOND + MILLISECOND


@both
async def test_never_now_without_room(make: PacerFactory) -> None:
    """Without room the answer lies after `now`, so that whoever waits for it doesn't spin."""
    pacer = make(3, 1.0)
    pacer.ready_at(3, now())
    pacer.take(3)
    draw = random.Random(7)
    for _ in range(300):
        at = now()
        ready = pacer.ready_at(3, at)
        if ready <= at:
            break
        assert ready - at >= MICROSECOND
        await until(at + max(1, (ready - at) * draw.randint(1, 100) // 100))
    else:
        pytest.fail("there was never room")


@both
async def test_amount_0(make: PacerFactory) -> None:
    """Nothing always fits, even into a full bucket."""
    pacer = make(2, 1.0)
    pacer.ready_at(2, now())
    pacer.take(2)
    assert pacer.ready_at(0, now()) <= now()
    pacer.take(0)


@both
async def test_an_amount_that_never_fits(make: PacerFactory) -> None:
    """An amount above the burst is refused instead of waiting for ever."""
    with pytest.raises(ValueError, match="never fits"):
        make(2, 1.0).ready_at(3, now())


@both
async def test_taken_without_room(make: PacerFactory) -> None:
    """Taking without room is a bug and raises; it takes nothing and leaves nobody waiting."""
    pacer = make(2, 1.0)
    pacer.ready_at(2, now())
    pacer.take(2)
    with pytest.raises(RuntimeError, match="no room"):
        pacer.take(1)
    await asyncio.sleep(0.5)
    assert pacer.ready_at(1, now()) <= now()
    pacer.take(1)
    assert pacer.ready_at(1, now()) > now()


@both
@pytest.mark.parametrize(("burst", "seconds"), [(0, 1), (1, 0), (-1, 1)])
async def test_refuses_nonsense(make: PacerFactory, burst: float, seconds: float) -> None:
    """A pacer that could never let anything pass isn't made."""
    with pytest.raises(ValueError, match="above 0"):
        make(burst, seconds)


@both
@pytest.mark.parametrize("level", [0.0, 3.5, 10.0, 10.5, 25.0, 1000.0])
async def test_an_heir_starts_from_the_level_it_is_given(make: PacerFactory, level: float) -> None:
    """What passes and what it was filled with are never above the burst, less what leaked away; no time is lost."""
    burst, rate = 10.0, 2.0
    pacer = make(burst, burst / rate)
    start = now()
    pacer.fill(level, start)
    assert pacer.level(start) == pytest.approx(level)
    stamps = await taken(pacer, [1] * 40)
    passed = 0
    for at, amount in stamps:
        passed += amount
        assert level + passed - rate * (at - start) / 1e9 <= burst + 1e-3
    assert (stamps[-1][0] - start) / 1e9 <= (level + 40 - burst) / rate + 0.01


async def test_remembers() -> None:
    """The fake lists what was taken, and at which instants."""
    pacer = FakePacer(5, 1.0)
    for at in (0, SECOND):
        pacer.ready_at(2, at)
        pacer.take(2)
    assert pacer.taken == [(0, 2), (SECOND, 2)]


@pytest.mark.looptime(False)
@pytest.mark.parametrize(("loop", "least"), [("asyncio", MICROSECOND), ("uvloop", MILLISECOND)])
def test_least_wait(loop: str, least: int) -> None:
    """On uvloop, whose clock is cut to milliseconds, a wait is at least one; on asyncio a microsecond."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    async def shortest() -> int:
        pacer = AiolimiterPacer(1, 1e-4)
        waits: list[int] = []
        while len(waits) < 20:
            at = now()
            ready = pacer.ready_at(1, at)
            if ready <= at:
                pacer.take(1)
            else:
                waits.append(ready - at)
        return min(waits)

    with asyncio.Runner(loop_factory=factory) as runner:
        wait = runner.run(shortest())
    assert least <= wait
