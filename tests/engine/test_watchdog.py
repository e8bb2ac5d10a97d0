"""The watchdog: an engine that is silent for too long counts as unhealthy, and a word from it as healthy again."""

from __future__ import annotations

import asyncio

import pytest

from apiflux_grpc.engine.watchdog import Watchdog

pytestmark = pytest.mark.looptime


class Watched:
    """A watchdog over an engine that echoes as long as it `answers`."""

    def __init__(self) -> None:
        self.answers = True
        self.beats = 0
        self.changes: list[tuple[float, bool]] = []
        self.dog = Watchdog(self._beat, self._changed)

    def _beat(self) -> None:
        self.beats += 1
        if self.answers:
            self.dog.heard()

    def _changed(self, healthy: bool) -> None:
        self.changes.append((round(asyncio.get_running_loop().time(), 3), healthy))


async def test_silence_is_noticed_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """After five seconds without an echo, and at once when one comes; the log says it once."""
    watched = Watched()
    watching = asyncio.create_task(watched.dog.watch())
    await asyncio.sleep(10.5)
    assert (watched.beats, watched.changes) == (11, [(0, True)])
    watched.answers = False  # the last echo was at 10
    await asyncio.sleep(20)
    watched.answers = True
    await asyncio.sleep(10)
    assert watched.changes == [(0, True), (16, False), (31, True)]
    assert [record.getMessage() for record in caplog.records] == ["the engine has not answered for 5 s"]
    watching.cancel()


async def test_what_is_down_stays_down() -> None:
    """A late echo changes nothing, and the watch ends."""
    watched = Watched()
    watching = asyncio.create_task(watched.dog.watch())
    await asyncio.sleep(2.5)
    watched.dog.end()
    watched.dog.heard()
    await watching
    assert watched.changes == [(0, True), (2.5, False)]
    assert not watched.dog.healthy
