"""For how long an idle connection carries another call.

Rule: a connection isn't used when the upstream may be closing it, and a call that may not run twice takes only one that
has just been used, or a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from aiohappyeyeballs import start_connection

from apiflux_grpc.adapters.sender import dial
from apiflux_grpc.adapters.sender.idle import told, usable_for
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.adapters.sender.answers.row import S
from tests.adapters.sender.script import CLOSE, ECHO, Request, Step
from tests.adapters.sender.stage import Stage, World
from tests.adapters.sender.waiting import passes, until

SAYS_FIVE: Final = S + b"Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok"
TRIP: Final = 100 * MILLISECOND


def closes_after(stage: Stage, idle: int, answer: Step) -> Callable[[Request], tuple[tuple[Step, ...], bool]]:
    """What the server does that closes connections which were idle for so long, its close crossing our request."""

    def script(request: Request) -> tuple[tuple[Step, ...], bool]:
        (peer,) = (peer for peer in stage.server.peers if request in peer.requests)
        place = peer.requests.index(request)
        if place and request.at - peer.requests[place - 1].at >= idle:
            return (CLOSE,), False
        return (answer,), False

    return script


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_upstream_that_closes_after_the_time_it_told(
    both: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Calls at just the pace at which the upstream closes idle connections are all answered."""

    async def go() -> None:
        async with both.stage(idle_timeout=60 * SECOND) as stage:
            script = closes_after(stage, 5 * SECOND - TRIP, SAYS_FIVE)
            monkeypatch.setattr(stage.server, "script_for", script)
            for pause in (5000, 4950, 4900, 5050) * 3:
                outcome = await stage.call("/", method, body=b"x" if method == "POST" else b"", repeat=method == "GET")
                assert isinstance(outcome, Answer), outcome
                await passes()
                stage.clock.advance(pause * MILLISECOND)

    both.run(go())


@pytest.mark.parametrize(
    ("tells", "idle", "kept"),
    [
        (None, 3_900, True),
        (None, 4_000, False),
        (5, 3_900, True),
        (5, 4_000, False),
        (2, 900, True),
        (2, 1_000, False),
        (0, 0, False),
        ("75\r\nKeep-Alive: timeout=2", 900, True),  # on two lines: the least of both
        ("75\r\nKeep-Alive: timeout=2", 1_000, False),
    ],
)
def test_how_long_an_idle_connection_is_used(both: World, tells: int | str | None, idle: int, kept: bool) -> None:
    """As long as the upstream tells, less a margin, else for 4 s; then the next call opens a new one."""

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/", ECHO if tells is None else SAYS_FIVE.replace(b"5", str(tells).encode()))
            for _ in range(3):
                await stage.answer("/")
                await passes()
                stage.clock.advance(idle * MILLISECOND)
            assert len(stage.server.peers) == (1 if kept else 3)

    both.run(go())


def test_an_upstream_that_keeps_connections_for_long(ours: World) -> None:
    """What it tells holds, not the setting, up to a minute."""

    async def go() -> None:
        async with ours.stage(idle_timeout=SECOND) as stage:
            stage.server.on("/", SAYS_FIVE.replace(b"=5", b"=3600, max=100"))
            for idle, connections in ((50, 1), (50, 1), (61, 2)):
                await stage.answer("/")
                stage.clock.advance(idle * SECOND)
                await stage.answer("/")
                assert len(stage.server.peers) == connections

    ours.run(go())


def test_a_setting_of_nothing(both: World) -> None:
    """With an idle timeout of 0 every call has a connection of its own."""

    async def go() -> None:
        async with both.stage(idle_timeout=0) as stage:
            for _ in range(5):
                await stage.answer("/")
                await passes()
            assert len(stage.server.peers) == 5

    both.run(go())


def test_a_call_that_may_not_run_twice(both: World) -> None:
    """It takes a connection that was idle for less than 1 s, else a new one; other calls still have the old one."""

    async def go() -> None:
        async with both.stage() as stage:
            for idle, repeat, connections in (
                (0, False, 1),
                (900, False, 1),
                (1_000, False, 2),
                (2_000, True, 2),
                (900, False, 2),
            ):
                await passes()
                stage.clock.advance(idle * MILLISECOND)
                await stage.answer("/", "POST", repeat=repeat)
                assert len(stage.server.peers) == connections, idle

    both.run(go())


def test_old_connections_are_left_to_others(ours: World) -> None:
    """A call that may not run twice takes none of them, and closes none."""

    async def go() -> None:
        async with ours.stage() as stage:
            await stage.together(3)
            stage.clock.advance(2 * SECOND)
            await stage.answer("/", "POST", repeat=False)
            assert stage.server.open == 4
            await stage.together(4)

    ours.run(go())


def test_the_sweep_closes_what_is_old(ours: World) -> None:
    """Connections that nobody needs are closed when they may not be used any more."""

    async def go() -> None:
        async with ours.stage() as stage:
            await stage.together(5)
            stage.clock.advance(3 * SECOND)
            await stage.answer("/")
            stage.clock.advance(SECOND + 10 * MILLISECOND)
            await until(lambda: stage.server.open == 1)
            stage.clock.advance(3 * SECOND)
            await until(lambda: stage.server.open == 0)

    ours.run(go())


def test_the_round_trip_is_taken_off(ours: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest that connecting took lately counts as the round trip."""
    near = start_connection

    async def go() -> None:
        async with ours.stage() as stage:

            async def far(*args: object, **more: object) -> object:
                stage.clock.advance(600 * MILLISECOND)
                return await near(*args, **more)  # type: ignore[arg-type]

            monkeypatch.setattr(dial, "start_connection", far)
            stage.server.on("/", SAYS_FIVE)
            for idle, connections in ((3_300, 1), (3_400, 2)):
                await stage.answer("/")
                stage.clock.advance(idle * MILLISECOND)
                await stage.answer("/")
                assert len(stage.server.peers) == connections

    ours.run(go())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100,timeout=5", 5),
        (b'Timeout = "5"', 5),
        (b"timeout=75, timeout=5", 5),
        (b"timeout=5.9", 5),
        (b"timeout=0", 0),
        (b"timeout=-1", None),
        (b"timeout=soon", None),
        (b"max=100", None),
        (b"xtimeout=5", None),
        (b"", None),
        (b"\xff", None),
        (b"timeout=" + b"9" * 5000, 999_999_999),
    ],
)
def test_what_keep_alive_tells(value: bytes, seconds: int | None) -> None:
    """The least of its times counts; what can't be read tells nothing."""
    assert told(value) == (None if seconds is None else seconds * SECOND)


@pytest.mark.parametrize(
    ("seconds", "trip", "usable"),
    [(5, 0, 4_000), (5, 100, 3_900), (2, 100, 900), (1, 100, 400), (1, 600, 0), (0, 0, 0), (3600, 0, 60_000)],
)
def test_what_is_taken_off(seconds: int, trip: int, usable: int) -> None:
    """The round trip and 1 s, of a short time half of it; and nothing is used for more than a minute."""
    assert usable_for(seconds * SECOND, trip * MILLISECOND) == usable * MILLISECOND
