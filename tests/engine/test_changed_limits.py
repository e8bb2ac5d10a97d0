"""Limits that change while calls are on their way, of engines that share them through a store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from apiflux_grpc.core.errors import PoolNotFound
from apiflux_grpc.core.model import Counts, Group, Kind, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer
from tests.engine.sharing import Process, Shared, worst_window

if TYPE_CHECKING:
    from apiflux_grpc.core.info import KeySnapshot

pytestmark = pytest.mark.looptime

TEN: Final = Limit(10, SECOND)
FORTY: Final = Limit(40, SECOND)
COST: Final = Counts.COST


async def key_of(process: Process, label: str = "key-0") -> KeySnapshot:
    state = await process.engine.look()
    assert state is not None
    return next(key for key in state.pools["default"].keys if key.label == label)


async def rate(shared: Shared, seconds: float) -> float:
    """Arrivals a second from now on."""
    before = shared.arrived()
    await asyncio.sleep(seconds)
    return (shared.arrived() - before) / seconds


def worst_since(shared: Shared, at: int, per: int) -> int:
    """The most in any window that ends later."""
    return max(
        worst_window([one for one in arrivals if one[0] > at - per], per) for arrivals in shared.arrivals.values()
    )


@pytest.mark.parametrize("all_change", [True, False])
async def test_a_lower_limit_holds_for_all_and_no_call_is_lost(all_change: bool) -> None:
    """Two engines, one store: whoever changes it, nobody is above it, and every call has its result."""
    shared = Shared(FORTY)
    processes = await shared.start(2)
    readings = [process.submit(140) for process in processes]
    await asyncio.sleep(2.5)
    for process in processes if all_change else processes[:1]:
        process.engine.change_limits("default", "key-0", (TEN,))
    await asyncio.sleep(1.3)
    assert 7 <= await rate(shared, 4) <= 10
    for process in processes:
        process.engine.change_limits("", "key-0", (FORTY,))
    await asyncio.sleep(1.3)
    assert await rate(shared, 1) >= 28
    shared.check()
    assert await asyncio.gather(*readings) == [140, 140]
    assert processes[0].engine.pools["default"].keys[0].limits == (FORTY,)
    await shared.stop()


@pytest.mark.parametrize(
    "limits",
    [
        (Limit(30, 2 * SECOND),),
        (FORTY, Limit(30, 2 * SECOND)),
        (FORTY, Limit(25, SECOND, COST)),
        (Limit(20, SECOND, kind=Kind.BUCKET, burst=5),),
        (),
    ],
)
async def test_a_key_may_have_quite_other_limits_and_those_of_before_again(limits: tuple[Limit, ...]) -> None:
    """Another length, one more, of cost, a bucket, none: no call is lost, and those of before hold when they are back;
    what was sent under none counts as all that may be."""
    shared = Shared(FORTY)
    shared.make_pacer = FakePacer
    processes = await shared.start(2)
    readings = [process.submit(100) for process in processes]
    await asyncio.sleep(1.5)
    for process in processes:
        process.engine.change_limits("default", "key-0", limits)
    await asyncio.sleep(1.5)
    for process in processes:
        process.engine.change_limits("default", "key-0", (FORTY,))
    since = round(asyncio.get_running_loop().time() * SECOND)
    assert await asyncio.gather(*readings) == [100, 100]
    assert worst_since(shared, since + SECOND, SECOND) <= 40
    if limits:
        shared.check()
    assert [(await key_of(process)).held_by for process in processes] == [(), ()]
    await shared.stop()


def in_flight(shared: Shared) -> int:
    return sum(len(process.api.open) for process in shared.processes)


async def most(shared: Shared, seconds: float) -> int:
    """In flight at once, of all."""
    found = 0
    for _ in range(round(seconds / 0.02)):
        await asyncio.sleep(0.02)
        found = max(found, in_flight(shared))
    return found


async def test_a_bound_on_calls_in_flight_changes_for_all_who_share_it() -> None:
    """Up, down, none, and again one: those in flight go on, and no more begin than the lowest allows."""
    shared = Shared(Limit(10_000, SECOND), max_in_flight=8, latency=0.1)
    processes = await shared.start(2)
    readings = [process.submit(150) for process in processes]
    await asyncio.sleep(0.8)
    assert await most(shared, 0.4) == 8
    processes[0].engine.change_max_in_flight("default", "key-0", 3)
    await asyncio.sleep(0.8)
    assert await most(shared, 0.4) == 3
    for process in processes:
        process.engine.change_max_in_flight("default", "key-0", 6)
    await asyncio.sleep(0.8)
    assert await most(shared, 0.4) == 6
    processes[0].engine.change_max_in_flight("default", "key-0", None)
    await asyncio.sleep(0.05)
    assert len(processes[0].api.open) > 20
    assert await asyncio.gather(*readings) == [150, 150]
    processes[0].engine.change_max_in_flight("default", "key-0", 6)
    readings = [process.submit(60) for process in processes]
    assert await most(shared, 1.5) == 6
    assert await asyncio.gather(*readings) == [60, 60]
    await shared.stop()


async def test_a_first_bound_on_calls_in_flight_waits_for_nothing_that_is_known() -> None:
    """Those who have calls in flight tell it; so nobody waits for as long as a call may take."""
    shared = Shared(Limit(10_000, SECOND), latency=0.1)
    processes = await shared.start(2)
    readings = [process.submit(30) for process in processes]
    await asyncio.sleep(0.05)
    assert in_flight(shared) == 60
    for process in processes:
        process.engine.change_max_in_flight("default", "key-0", 4)
    readings += [process.submit(20) for process in processes]
    await asyncio.sleep(0.15)
    assert await most(shared, 0.5) == 4
    assert await asyncio.wait_for(asyncio.gather(*readings), 5) == [30, 30, 20, 20]
    await shared.stop()


async def test_the_limits_of_a_group_change_like_a_keys() -> None:
    """They are shared by its keys, and by processes."""
    shared = Shared(keys=2, groups=[Group(("key-0", "key-1"), (FORTY,))])
    processes = await shared.start(2)
    readings = [process.submit(140) for process in processes]
    await asyncio.sleep(2.5)
    processes[1].engine.change_group_limits("default", "key-1", (TEN,))
    await asyncio.sleep(1.3)
    assert 7 <= await rate(shared, 4) <= 10
    processes[1].engine.change_group_limits("default", "key-0", (FORTY,))
    await asyncio.sleep(1.3)
    assert await rate(shared, 1) >= 28
    assert await asyncio.gather(*readings) == [140, 140]
    await shared.stop()


async def test_a_lower_limit_that_no_longer_holds_is_not_told_of() -> None:
    """While another has less, a key says so; when that has as much, it doesn't."""
    shared = Shared(FORTY)
    first, other = await shared.start(2)
    first.engine.change_limits("default", "key-0", (TEN,))
    other.submit(2)
    await asyncio.sleep(1.5)
    (held,) = (await key_of(other)).held_by
    assert "has 10 calls per 1s, and this one 40 calls per 1s: the lower holds" in held.reason
    other.engine.change_limits("default", "key-0", (TEN,))
    await asyncio.sleep(1.5)
    assert (await key_of(other)).held_by == ()
    await shared.stop()


async def test_a_limit_of_before_that_still_holds_is_told_of_as_that() -> None:
    """It isn't another server's."""
    shared = Shared(TEN)
    (process,) = await shared.start()
    process.submit(12)
    await asyncio.sleep(0.5)
    process.engine.change_limits("default", "key-0", (Limit(100, 2 * SECOND),))
    await asyncio.sleep(0.5)
    (held,) = (await key_of(process)).held_by
    assert held.reason == "it was 10 calls per 1s until its limits were changed: that holds for its length more"
    await asyncio.sleep(4)
    assert (await key_of(process)).held_by == ()
    await shared.stop()


async def test_what_cannot_be_changed_is_said_before_anything_is() -> None:
    """A pool or a key that isn't there, a key without a group, paths that its calls aren't told apart by."""
    shared = Shared(FORTY)
    (process,) = await shared.start()
    engine = process.engine
    with pytest.raises(PoolNotFound):
        engine.change_limits("else", "key-0", ())
    with pytest.raises(LookupError, match="pool default has no key key-9"):
        engine.change_limits("default", "key-9", ())
    with pytest.raises(LookupError, match="key key-0 shares its limits with no other"):
        engine.change_group_limits("default", "key-0", ())
    with pytest.raises(ValueError, match="no limit of the pool has these paths"):
        engine.change_limits("default", "key-0", (replace(TEN, paths=("/search/",)),))
    with pytest.raises(ValueError, match="max_in_flight is 0; it must be 1 at least"):
        engine.change_max_in_flight("default", "key-0", 0)
    assert await process.submit(3) == 3
    await shared.stop()
