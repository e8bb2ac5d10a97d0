"""The end of an upstream.

Rule: when `close` returns, everything that was begun is done, and no connection is left.
"""

from __future__ import annotations

import asyncio

from apiflux_grpc.core.outcome import NotSent
from tests.adapters.sender.answers.whole import HEAD
from tests.adapters.sender.script import HANG
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import passes


def test_closed_at_every_pass(world: World) -> None:
    """Whenever the upstream is closed: everything is done when it returns, and no connection is left."""

    async def go() -> None:
        for count in range(30):
            async with world.stage() as stage:
                stage.server.on("/hang", HANG)
                stage.server.on("/half", HEAD + b"Content-Length: 5\r\n\r\nhal", HANG)
                await stage.follow()
                for path in ("/", "/hang", "/half", "/"):
                    stage.begin(path)
                await passes(count)
                await stage.upstream.close()
                assert all(told.outcomes for told in stage.told)
                late = stage.begin("/")
                assert isinstance(await late.over(), NotSent)

    world.run(go())


def test_closed_with_idle_connections(world: World) -> None:
    """Idle connections are closed too, and closing twice is closing once."""

    async def go() -> None:
        async with world.stage() as stage:
            await stage.together(20)
            assert stage.server.open == 20
            await asyncio.gather(stage.upstream.close(), stage.upstream.close())
            await stage.server.quiet()

    world.run(go())
