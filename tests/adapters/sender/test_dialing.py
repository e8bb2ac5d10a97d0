"""What becomes of a call while its connection is made.

Rule: nothing was sent, so it is NotSent; a connection that is made all the same serves the next call.
"""

from __future__ import annotations

import pytest

from apiflux_grpc.core.outcome import LATE, NO_CONNECTION, Answer, Cause, NotSent, Reason, Unknown
from apiflux_grpc.core.units import SECOND
from tests.adapters.sender.script import DEAF, FIN, HANG, RST, Step
from tests.adapters.sender.stage import World
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
