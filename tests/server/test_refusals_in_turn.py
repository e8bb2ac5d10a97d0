"""Refusals of who isn't known: at once while they are few, in turn when many come."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.server.refusals import AT_A_TICK, AT_ONCE, LONGEST, TICK, Refusals


@pytest.mark.looptime
async def test_few_are_told_at_once_and_more_in_turn() -> None:
    """So many in a second without a wait; then so many a tick, the first first, and soon none waits any more."""
    refusals, loop = Refusals(), asyncio.get_running_loop()
    start, told = loop.time(), list[tuple[int, float]]()

    async def one(number: int) -> None:
        await refusals.turn()
        told.append((number, loop.time() - start))

    await asyncio.gather(*(one(number) for number in range(AT_ONCE + 10 * AT_A_TICK)))
    assert [number for number, _ in told] == list(range(len(told)))
    assert [at for _, at in told[:AT_ONCE]] == [0] * AT_ONCE
    waits = [round(at / TICK) for _, at in told[AT_ONCE:]]
    assert waits == [tick for tick in range(1, 11) for _ in range(AT_A_TICK)]
    await asyncio.sleep(1)
    before = loop.time()
    await refusals.turn()
    assert loop.time() == before


@pytest.mark.looptime
async def test_the_line_does_not_grow() -> None:
    """Its first is told when it is full; who left meanwhile takes nobody's turn."""
    refusals = Refusals()
    waiting = [asyncio.ensure_future(refusals.turn()) for _ in range(AT_ONCE + LONGEST)]
    await asyncio.sleep(0)
    assert repr(refusals) == f"<Refusals {LONGEST} wait>"
    left, first = waiting[AT_ONCE], waiting[AT_ONCE + 1]
    left.cancel()
    await asyncio.sleep(0)
    more = asyncio.ensure_future(refusals.turn())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert first.done()
    assert not waiting[AT_ONCE + 2].done()
    assert repr(refusals) == f"<Refusals {LONGEST - 1} wait>"
    for one in (more, *waiting):
        one.cancel()
    await asyncio.gather(more, *waiting, return_exceptions=True)
