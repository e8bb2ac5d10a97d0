"""The one write of a request, of which the kernel takes a part, nothing, or which fails.

Rule: what arrives was told to be sent, and a write that failed whole is NotSent.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from apiflux_grpc.core.outcome import Cause, NotSent, Unknown
from tests.adapters.sender.script import DEAF, HANG, RST
from tests.adapters.sender.stage import Stage, Told, World
from tests.adapters.sender.waiting import until


class Narrow:
    """Makes the kernel take less of so many long writes to `port`: `taken` bytes, or `error`."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, taken: int, error: type[OSError] | None, times: float = 1
    ) -> None:
        self.port = 0
        self.hit = 0
        plain, plain_many = socket.socket.send, socket.socket.sendmsg

        def narrows(sock: socket.socket, data: bytes) -> bool:
            long = self.port and self.hit < times and sock.family == socket.AF_INET and len(data) > 100
            if not long or sock.getpeername()[1] != self.port:
                return False
            self.hit += 1
            if error is not None:
                raise error
            return True

        def send(sock: socket.socket, data: Any, *flags: int) -> int:
            return plain(sock, bytes(data)[:taken] if narrows(sock, bytes(data)) else data, *flags)

        def sendmsg(sock: socket.socket, buffers: Iterable[Any], *more: Any) -> int:
            data = b"".join(map(bytes, buffers))
            return plain_many(sock, [data[:taken] if narrows(sock, data) else data], *more)

        monkeypatch.setattr(socket.socket, "send", send)
        monkeypatch.setattr(socket.socket, "sendmsg", sendmsg)  # asyncio's from Python 3.12 on, for what is kept


async def narrowed(stage: Stage, narrow: Narrow) -> Told:
    """A call on a kept connection whose write is the narrow one."""
    await stage.follow()
    narrow.port = stage.server.port
    told = stage.begin("/x", "POST", body=b"x" * 500)
    await until(lambda: narrow.hit)
    return told


@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("error", [None, BlockingIOError, InterruptedError])
def test_the_kernel_takes_little(
    ours: World, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None, cancel: bool
) -> None:
    """A request of which the kernel takes a part, or nothing yet: what arrives was told to be sent."""
    narrow = Narrow(monkeypatch, 5, error)

    async def go() -> None:
        async with ours.stage() as stage:
            told = await narrowed(stage, narrow)
            if cancel:
                await stage.cancelled(told)
            else:
                outcome = await told.over()
                assert not isinstance(outcome, Unknown), outcome
            await stage.follow()

    ours.run(go())


def test_reset_while_uploading(both: World, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is reset during a large upload makes the call Unknown, and nothing is logged of it."""

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/x", DEAF, HANG, early=True)
            told = stage.begin("/x", "POST", body=bytes(24 << 20))
            await until(lambda: stage.server.peers and stage.server.peers[0].resting)
            stage.server.peers[0].end_now(RST)
            assert isinstance(await told.over(), Unknown)
        gc.collect()
        await asyncio.sleep(0)
        assert caplog.text == ""

    both.run(go())


@pytest.mark.parametrize("ours", ["http-asyncio-plain"], indirect=True)  # uvloop's transports write past Python
@pytest.mark.parametrize("late", [False, True], ids=["cancelled", "late"])
def test_the_kernel_takes_nothing(ours: World, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """A request that is still whole in our own buffer at its end is NotSent, and its cause is what ended it."""
    narrow = Narrow(monkeypatch, 0, BlockingIOError, times=float("inf"))

    async def go() -> None:
        async with ours.stage() as stage:
            told = await narrowed(stage, narrow)
            outcome = await (stage.late(told) if late else stage.cancelled(told))
            assert isinstance(outcome, NotSent)
            assert outcome.cause is (Cause.NO_CONNECTION if late else Cause.CANCELLED)
            narrow.port = 0
            await stage.follow()

    ours.run(go())


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_the_write_fails(ours: World, monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """A request whose one write fails whole is NotSent, and nothing of it arrives."""
    narrow = Narrow(monkeypatch, 0, error)

    async def go() -> None:
        async with ours.stage() as stage:
            told = await narrowed(stage, narrow)
            outcome = await told.over()
            assert isinstance(outcome, NotSent)
            assert outcome.cause is Cause.DROPPED
            await stage.follow()
            assert len(stage.server.peers) == 2

    ours.run(go())
