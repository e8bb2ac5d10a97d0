"""Connections that were kept: when they may carry another call, and what becomes of a call whose connection ends.

Rule: a kept connection is used again only if nothing came on it, and nothing is ever sent twice.
"""

from __future__ import annotations

import pytest

from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from tests.adapters.sender.answers.row import CHUNKED, END, LOST, STRAY
from tests.adapters.sender.script import CLOSE, CUT, FIN, HANG, RST, Do, Step
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import until


@pytest.mark.parametrize("end", [FIN, CUT, CLOSE, RST])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_never_sent_again(world: World, warm: bool, end: Step) -> None:
    """A connection that ends after our request makes one arrival and Unknown, whatever the method."""

    async def go() -> None:
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"):
            async with world.stage() as stage:
                stage.server.on("/cut", end)
                if warm:
                    await stage.follow()
                outcome = await stage.call("/cut", method, body=b"x" if method in {"PUT", "POST", "PATCH"} else b"")
                assert LOST.fits(outcome), outcome
                assert len(stage.server.peers) == 1, method
                await stage.follow()
                assert stage.server.by_path()["/cut"] == 1, method
                assert len(stage.server.peers) == 2, method

    world.run(go())


def test_a_stray_answer(both: World) -> None:
    """An answer that nobody asked for is nobody's: the next call takes another connection."""

    async def go() -> None:
        async with both.stage() as stage:
            await stage.follow()
            stage.server.peers[0].send_now(STRAY)
            await stage.server.peers[0].taken()
            await stage.follow()
            assert len(stage.server.peers) == 2

    both.run(go())


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("end", [FIN, CUT, CLOSE, RST])
def test_ended_while_the_loop_was_busy(ours: World, end: Do, count: int) -> None:
    """Idle connections whose end the loop hasn't seen yet aren't used: the kernel knows it already."""

    async def go() -> None:
        async with ours.stage() as stage:
            server = stage.server
            await stage.together(count)
            for peer in server.peers:
                peer.end_now(end)
                peer.block_until_seen()
            await stage.follow()
            assert len(server.peers) == count + 1

    ours.run(go())


@pytest.mark.parametrize("stray", [b"x", b"\r\n", STRAY, STRAY[:20], b"HTTP/1.1 408 Late\r\nConnection: close\r\n\r\n"])
@pytest.mark.parametrize("end", [None, FIN])
@pytest.mark.parametrize("seen", [True, False])
def test_stray_on_idle_connections(ours: World, stray: bytes, end: Do | None, seen: bool) -> None:
    """What came on idle connections is nobody's answer, whether the loop has seen it or only the kernel."""

    async def go() -> None:
        async with ours.stage(idle_timeout=3600 * SECOND) as stage:  # nothing else closes them
            server = stage.server
            await stage.together(3)
            for peer in server.peers:
                peer.send_now(stray)
                if end is not None:
                    peer.end_now(end)
                peer.block_until_seen()
            if seen:
                await until(lambda: not server.open)
            await stage.follow()
            assert len(server.peers) == 4

    ours.run(go())


def test_connections_are_kept(world: World) -> None:
    """Calls behind one another share a connection, whatever their methods and the framing of their answers."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/chunked", CHUNKED + b"2\r\nok\r\n" + END)
            stage.server.on("/none", b"HTTP/1.1 204 No\r\n\r\n")
            for _ in range(20):
                for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
                    assert isinstance(await stage.call("/", method), Answer)
                await stage.call("/chunked")
                await stage.call("/none")
            assert len(stage.server.peers) == 1

    world.run(go())


def test_no_queue(world: World) -> None:
    """As many calls go out as are begun: none waits for another one's connection."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/hang", HANG)
            told = [stage.begin("/hang") for _ in range(100)]
            await until(lambda: len(stage.server.requests) == 100)
            assert all(one.sent_at and not one.outcomes for one in told)

    world.run(go())
