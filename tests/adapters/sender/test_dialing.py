"""What becomes of a call while its connection is made.

Rule: nothing was sent, so it is NotSent; a connection that is made all the same serves the next call.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.outcome import LATE, NO_CONNECTION, Answer, Cause, NotSent, Reason, Unknown
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import Watch
from tests.adapters.sender.ports import closed_port
from tests.adapters.sender.script import DEAF, FIN, HANG, RST, Step
from tests.adapters.sender.stage import KEY, World
from tests.adapters.sender.waiting import until


def test_cancelled_while_dialing(ours: World) -> None:
    """A cancel while the connection is made is NotSent; the connection is there for the next call."""

    async def go() -> None:
        async with ours.stage() as stage:
            stage.server.mute = True
            told = [stage.begin("/x") for _ in range(3)]
            if ours.tls:  # else the connection is made by the kernel alone
                await until(lambda: len(stage.server.peers) == 3)
            for one in told:
                assert isinstance(await stage.cancelled(one), NotSent)
            stage.server.mute = False
            for peer in stage.server.peers:
                peer.listen()
            await stage.follow()

    ours.run(go())


def test_late_while_dialing(ours: World) -> None:
    """A call whose time is up while its connection is made is NotSent."""

    async def go() -> None:
        async with ours.stage() as stage:
            stage.server.mute = True
            told = stage.begin("/x")
            await until(lambda: stage.server.peers and (ours.tls or told.sent_at))
            outcome = await stage.late(told)
            assert outcome == (NO_CONNECTION if ours.tls else Unknown("no answer in time", Reason.TIMEOUT))
            stage.server.mute = False
            await stage.follow()

    ours.run(go())


@pytest.mark.parametrize(
    "steps", [(b"nonsense\r\n\r\n",), (FIN,), (RST,), (HANG,)], ids=["nonsense", "FIN", "RST", "silence"]
)
def test_handshakes_that_fail(secure: World, steps: tuple[Step, ...]) -> None:
    """A connection that isn't made is NotSent, and the next call makes another one."""

    async def go() -> None:
        async with secure.stage() as stage:
            server = stage.server
            tls, server.tls = server.tls, None  # a server that knows no TLS
            server.greeting = (DEAF, *steps)
            told = stage.begin()
            if HANG in steps:
                await until(lambda: server.peers and server.peers[0].resting)
                secure.clock.advance(11 * SECOND)
            outcome = await told.over()
            assert isinstance(outcome, NotSent)
            assert outcome.cause is Cause.UNREACHABLE
            server.tls, server.greeting = tls, ()
            await stage.follow()

    secure.run(go())


def test_send_by(ours: World) -> None:
    """Past its send_by a call isn't written, and the connection that was made for it serves the next one."""

    async def go() -> None:
        async with ours.stage() as stage:
            server = stage.server
            late = stage.begin(send_by=ours.clock() + SECOND)
            ours.clock.advance(2 * SECOND)
            assert await late.over() == LATE
            assert await stage.call(send_by=ours.clock() - 1) == LATE
            await stage.follow()
            assert len(server.peers) == 1
            assert isinstance(await stage.call(send_by=ours.clock() + 60 * SECOND), Answer)

    ours.run(go())


@pytest.mark.parametrize("ours", ["http-asyncio-plain"], indirect=True)  # uvloop looks up addresses of its own accord
def test_a_name_is_looked_up_once(ours: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All who dial at a time share one look-up; after a dial that failed the name is looked up anew."""

    async def go() -> None:
        loop = asyncio.get_running_loop()
        look_up, asked = loop.getaddrinfo, []

        async def counted(*args: Any, **more: Any) -> Any:
            asked.append(args)
            return await look_up(*args, **more)

        monkeypatch.setattr(loop, "getaddrinfo", counted)
        async with ours.stage() as stage:
            await stage.together(5)
            assert len(asked) == 1
        asked.clear()
        async with ours.upstream(f"http://127.0.0.1:{closed_port()}") as upstream:
            for _ in range(2):
                watch = Watch(Call(), KEY, taken_at=ours.clock())
                upstream.begin(watch)
                assert isinstance(await watch.over(), NotSent)
            assert len(asked) == 2

    ours.run(go())
