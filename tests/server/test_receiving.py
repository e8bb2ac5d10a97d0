"""Requests on their way in: so many at once as memory allows, the newest first, and none that ages unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from apiflux_grpc.core.errors import FluxError, TooManyAtOnce
from apiflux_grpc.server import receiving
from apiflux_grpc.server.receiving import SMALL, Place, Receiving, admitted

pytestmark = pytest.mark.looptime


class Arrivals:
    """Requests by name, each in a task of its own."""

    def __init__(self, places: int, memory: Callable[[], int] = lambda: 0) -> None:
        self.receiving = Receiving(places, memory)
        self.entered: dict[str, Place] = {}
        self.refused: dict[str, FluxError] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._come(name))
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _come(self, name: str) -> None:
        try:
            peer = name.partition(" ")[0]
            self.entered[name] = await self.receiving.enter(peer, lambda error: self.refused.setdefault(name, error))
        except TooManyAtOnce as error:
            self.refused[name] = error

    async def is_here(self, name: str, size: int = SMALL) -> None:
        self.receiving.received(self.entered[name], size)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_so_many_come_at_once_and_the_newest_is_next() -> None:
    """Of those that wait the newest has the caller that waited least."""
    arrivals = Arrivals(2)
    await arrivals.come("a", "b", "c", "d")
    assert list(arrivals.entered) == ["a", "b"]
    await arrivals.is_here("a")
    assert list(arrivals.entered) == ["a", "b", "d"]
    await arrivals.is_here("b")
    assert list(arrivals.entered) == ["a", "b", "d", "c"]


async def test_who_sent_a_small_one_before_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the same connection, until a large one comes over it; so many connections are known and no more."""
    monkeypatch.setattr(receiving, "KNOWN", 2)
    arrivals = Arrivals(1)
    for name, size in (
        ("old 1", SMALL),
        ("small 1", SMALL),
        ("large 1", SMALL),
        ("large 2", SMALL + 1),
        ("n 1", SMALL),
    ):
        await arrivals.come(name)
        await arrivals.is_here(name, size)
        arrivals.receiving.leave(arrivals.entered[name])
    await arrivals.come("a", "small 2", "old 2", "large 3", "b")
    for _ in range(4):
        await arrivals.is_here(list(arrivals.entered)[-1])
    assert list(arrivals.entered)[5:] == ["a", "small 2", "b", "large 3", "old 2"]


async def test_a_large_message_keeps_its_place_until_it_is_admitted_or_over() -> None:
    """What was received and isn't counted in the queue yet counts here."""
    arrivals = Arrivals(1)

    async def large() -> None:
        place = await arrivals.receiving.enter("peer", lambda error: None)
        assert not arrivals.receiving.received(place, SMALL + 1)
        await arrivals.receiving.turn(place)
        await checked.wait()
        admitted()
        arrivals.receiving.leave(place)  # at its end, which gives back nothing that isn't held

    checked = asyncio.Event()
    task = asyncio.create_task(large())
    await asyncio.sleep(0)
    await arrivals.come("a", "b")
    assert not arrivals.entered
    checked.set()
    await task
    await asyncio.sleep(0)
    assert list(arrivals.entered) == ["b"]
    arrivals.receiving.leave(arrivals.entered["b"])
    await asyncio.sleep(0)
    assert list(arrivals.entered) == ["b", "a"]


async def test_large_messages_have_their_turns_one_after_the_other() -> None:
    """What is decoded takes several times its bytes; who leaves while it waits, or in its turn, holds up nobody."""
    arrivals = Arrivals(4)
    await arrivals.come("a", "b", "c", "d")
    turns: list[str] = []

    async def large(name: str) -> None:
        place = arrivals.entered[name]
        assert not arrivals.receiving.received(place, SMALL + 1)
        try:
            await arrivals.receiving.turn(place)
            turns.append(name)
            await asyncio.sleep(1)
            admitted()
            await asyncio.sleep(60)
        finally:
            arrivals.receiving.leave(place)

    tasks = [asyncio.create_task(large(name)) for name in arrivals.entered]
    await asyncio.sleep(0.5)
    assert turns == ["a"]
    tasks[1].cancel()
    await asyncio.sleep(1)
    assert turns == ["a", "c"]
    tasks[2].cancel()
    await asyncio.sleep(0.1)
    assert turns == ["a", "c", "d"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert repr(arrivals.receiving) == "<Receiving 0 messages, 0 wait, 0 slow>"


async def test_a_place_that_nobody_took_goes_to_the_next() -> None:
    """A caller that leaves while it waits, or at the moment when it gets its place, costs none."""
    arrivals = Arrivals(1)
    await arrivals.come("a", "b", "c", "d")
    arrivals.tasks["d"].cancel()
    await asyncio.sleep(0)
    arrivals.receiving.leave(arrivals.entered["a"])
    arrivals.tasks["c"].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert list(arrivals.entered) == ["a", "b"]
    assert repr(arrivals.receiving) == "<Receiving 1 messages, 0 wait, 0 slow>"


async def test_who_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a minute, and at once if too many wait: gRPC would cancel them in silence."""
    arrivals = Arrivals(1)
    await arrivals.come("a")
    arrivals.entered["a"].is_here = True  # it is here, and being checked
    await arrivals.come("b")
    monkeypatch.setattr(receiving, "MOST_WAITING", 1)
    await arrivals.come("c")
    assert list(arrivals.refused) == ["c"]
    await asyncio.sleep(receiving.LONGEST_WAIT - 0.1)
    assert list(arrivals.refused) == ["c"]
    await asyncio.sleep(0.2)
    assert list(arrivals.refused) == ["c", "b"]
    assert list(arrivals.entered) == ["a"]


async def test_a_slow_sender_gives_its_place_to_who_waits() -> None:
    """It goes on without one; while nobody waits it keeps it."""
    arrivals = Arrivals(2)
    await arrivals.come("slow", "too")
    await asyncio.sleep(60)
    await arrivals.come("a")
    await asyncio.sleep(0.1)
    assert list(arrivals.entered) == ["slow", "too", "a"]
    assert repr(arrivals.receiving) == "<Receiving 2 messages, 0 wait, 1 slow>"
    await arrivals.is_here("slow")
    await arrivals.come("b")
    await asyncio.sleep(0.01)
    assert "b" not in arrivals.entered
    await arrivals.is_here("a")
    assert "b" in arrivals.entered
    assert not arrivals.refused


async def test_slow_senders_are_refused_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest half of them, and those that are too many; never one whose message is here."""
    used = 0
    arrivals = Arrivals(1, lambda: used)
    await arrivals.come("here", "s1")
    await asyncio.sleep(1.1)
    await arrivals.come("s2")
    await asyncio.sleep(1.1)
    await arrivals.come("s3")
    await asyncio.sleep(1.1)
    assert list(arrivals.entered) == ["here", "s1", "s2", "s3"]
    arrivals.entered["here"].is_here = True
    used = receiving.SLOW_BYTES + 1
    await asyncio.sleep(0.06)
    assert list(arrivals.refused) == ["s1"]
    used = 0
    monkeypatch.setattr(receiving, "MOST_SLOW", 0)
    await asyncio.sleep(0.06)
    assert list(arrivals.refused) == ["s1", "s2"]
