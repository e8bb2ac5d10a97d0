"""Processes that share a limit, and strangers who use it too: no process takes another for a stranger."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from apiflux_grpc.core.model import Kind, Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import loop_clock
from tests.core.upstreams import Sliding, Tokens
from tests.engine.sharing import J
from tests.engine.telling import STUBBORN, Telling

pytestmark = pytest.mark.looptime

LIMIT: Final = Limit(100, SECOND)
LIFE: Final = 50 * MILLISECOND


async def use_and_refusals(shared: Telling, rest: int, seconds: int = 3) -> tuple[float, float]:
    """Of `rest` that strangers leave: how much is used, and how many of ours are refused, in so many more seconds."""
    await asyncio.sleep(seconds)
    now = loop_clock()
    admitted, refused = shared.between(now - seconds * SECOND, now)
    shared.check()
    return admitted / (rest * seconds * SECOND / (SECOND + J + LIFE)), refused / (admitted + refused)


async def test_what_strangers_take_is_found_out_together() -> None:
    """Of four processes: what strangers leave is used, and hardly a call is refused."""
    shared = Telling(LIMIT, Sliding(100, SECOND))
    strangers = shared.strangers(50)
    for process in await shared.start(4):
        process.submit(10_000, policy=STUBBORN)
    await asyncio.sleep(3)
    use, refused = await use_and_refusals(shared, 50)
    assert use >= 0.97
    assert refused <= 0.05
    strangers.cancel()
    await asyncio.sleep(2)
    assert (await use_and_refusals(shared, 100))[0] >= 0.97
    await shared.stop()


# Where the beats of the store's time and of the processes fall.
def at(start: float) -> pytest.MarkDecorator:
    return pytest.mark.looptime(start=start, noop_cycles=2)


@pytest.mark.parametrize(
    ("count", "strangers"),
    [
        pytest.param(2, 0, marks=at(100.0)),
        pytest.param(4, 0, marks=at(77.77)),
        pytest.param(2, 50, marks=at(100.0)),
        pytest.param(2, 50, marks=at(9.9)),
        *[pytest.param(4, 50, marks=at(start)) for start in (100.0, 77.77, 33.33, 123.456)],
        pytest.param(4, 70, marks=at(33.33)),
    ],
)
async def test_one_that_sends_a_hundred_times_as_much(count: int, strangers: int) -> None:
    """What strangers leave is used: one that hardly sends doesn't talk the others out of what they know better."""
    shared = Telling(LIMIT, Sliding(100, SECOND))
    busy, *idle = await shared.start(count)
    coming = shared.strangers(strangers) if strangers else None
    busy.submit(2000, policy=STUBBORN)

    async def drip() -> None:
        while True:
            for process in idle:
                process.submit(1, policy=STUBBORN)
            await asyncio.sleep(1)

    dripping = asyncio.get_running_loop().create_task(drip())
    await asyncio.sleep(4)
    use, refused = await use_and_refusals(shared, 100 - strangers, 6)
    assert use >= 0.97
    assert refused <= 0.05
    assert strangers or not shared.refused
    dripping.cancel()
    if coming is not None:
        coming.cancel()
    await shared.stop()


async def test_one_that_stops_and_one_that_starts_are_no_strangers() -> None:
    """All of the limit is used by whoever wants it, and nothing is refused."""
    shared = Telling(LIMIT, Sliding(100, SECOND))
    one, other = await shared.start(2)
    one.submit(300, policy=STUBBORN)
    await asyncio.sleep(2)
    other.submit(10_000, policy=STUBBORN)
    await asyncio.sleep(2)
    assert (await use_and_refusals(shared, 100))[0] >= 0.97
    assert not shared.refused
    await shared.stop()


async def test_a_bucket_that_strangers_use_too() -> None:
    """Its level is raised for all: few calls are refused."""
    shared = Telling(Limit(100, SECOND, kind=Kind.BUCKET, burst=20), Tokens(20, SECOND, 100))
    strangers = shared.strangers(50)
    for process in await shared.start(4):
        process.submit(10_000, policy=STUBBORN)
    await asyncio.sleep(3)
    now = loop_clock()
    admitted, refused = shared.between(now - 2 * SECOND, now)
    assert refused <= 0.1 * admitted
    strangers.cancel()
    await shared.stop()


async def test_a_refusal_that_nothing_explains_cuts_the_limit_of_all_once() -> None:
    """The upstream's own is lower, and it tells nothing: each process draws a 429, and they cut as one would."""
    shared = Telling(LIMIT, Sliding(80, SECOND))
    shared.speaks = False
    processes = await shared.start(4)
    for process in processes:
        process.submit(10_000, policy=STUBBORN)
    await asyncio.sleep(1.5)
    assert shared.refused
    (entry,) = (entry for entry in shared.store.entries.values() if entry.facts)
    assert [amount for name, (_, amount) in entry.facts.items() if name.startswith("cut/")] == [30]
    now = loop_clock()
    await asyncio.sleep(1)
    admitted, refused = shared.between(now, now + SECOND)
    assert admitted + refused <= 80  # it grows back by 5 with each second
    await shared.stop()


async def test_without_hints_and_refusals_nothing_is_asked_or_told() -> None:
    """No bytes: neither of what is left nor of cuts."""
    shared = Telling(LIMIT, Sliding(100, SECOND))
    shared.speaks = False
    for process in await shared.start(2):
        process.submit(500, policy=STUBBORN)
    await asyncio.sleep(1)
    for entry in shared.store.entries.values():
        assert not entry.facts
        assert all(member.refused == () for member in entry.members.values())
    await shared.stop()
