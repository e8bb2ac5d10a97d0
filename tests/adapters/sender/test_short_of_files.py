"""No file is free for a connection: that is ours, and a call waits for one."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from apiflux_grpc.adapters.sender import dial, short
from apiflux_grpc.adapters.sender.short import NO_FILE, is_short
from apiflux_grpc.core.outcome import Answer
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import until


class Files:
    """Stands for the system: opens so many connections and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        self.asked = 0
        self._start: Any = vars(dial)["start_connection"]
        monkeypatch.setattr(dial, "start_connection", self.start)

    async def start(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        if not self.free:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.free -= 1
        return await self._start(*args, **options)


def test_calls_wait_for_a_connection_that_others_have_done_with(ours: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten calls go one after the other over the one connection that may be opened."""

    async def go() -> None:
        files = Files(monkeypatch, 1)
        monkeypatch.setattr(short, "TRY_EVERY", 3600.0)  # they are told
        async with ours.stage() as stage:
            told = [stage.begin(f"/{number}") for number in range(10)]
            outcomes = [await one.over() for one in told]
            assert all(isinstance(outcome, Answer) and outcome.status == 200 for outcome in outcomes)
            assert files.asked >= 10

    ours.run(go())


def test_a_file_that_is_freed_elsewhere_is_found(ours: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells of it, so now and then a call that waits tries."""

    async def go() -> None:
        files = Files(monkeypatch, 0)
        async with ours.stage() as stage:
            told = stage.begin("/x")
            await until(lambda: files.asked >= 2)
            files.free = 1
            assert isinstance(await told.over(), Answer)

    ours.run(go())


def test_who_gets_none_in_time_is_not_blamed_on_the_upstream(ours: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """NotSent, for a cause of ours; a call that is cancelled meanwhile leaves its turn to the next."""

    async def go() -> None:
        files = Files(monkeypatch, 0)
        async with ours.stage() as stage:
            cancelled, late = stage.begin("/a"), stage.begin("/b")
            await until(lambda: files.asked >= 2)
            await stage.cancelled(cancelled)
            assert await stage.late(late) == NO_FILE
            assert NO_FILE.cause.ours
            last = stage.begin("/c")
            files.free = 1
            assert isinstance(await last.over(), Answer)

    ours.run(go())


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (OSError(errno.EMFILE, ""), True),
        (OSError(errno.ENFILE, ""), True),
        (socket.gaierror(socket.EAI_SYSTEM, ""), True),
        (socket.gaierror(socket.EAI_NONAME, ""), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_what_a_missing_file_looks_like(error: Exception, short: bool) -> None:
    """A look-up that lacks one says "system error" alone."""
    assert is_short(error) is short
