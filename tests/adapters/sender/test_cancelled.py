"""A call that is cancelled at any moment.

Rule: a cancelled call is NotSent only if nothing arrived, and the next call gets its own answer.
"""

from __future__ import annotations

import pytest

from apiflux_grpc.core.outcome import Answer, NotSent, Reason, Unknown
from tests.adapters.sender.answers.whole import WHOLES
from tests.adapters.sender.script import HANG
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import passes, until


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("body", [b"", b"x" * 100, bytes(8 << 20)], ids=["none", "small", "large"])
def test_cancelled_at_every_pass(world: World, body: bytes, warm: bool) -> None:
    """Whenever the cancel comes: one end, and NotSent only if nothing arrived."""

    async def go() -> None:
        for count in range(12 if len(body) > 1000 else 40):
            async with world.stage() as stage:
                if warm:
                    await stage.follow()
                told = stage.begin("/x", "POST" if body else "GET", body=body)
                await passes(count)
                outcome = await stage.cancelled(told)
                assert not isinstance(outcome, Answer) or outcome.fault in {None, Reason.BODY_CUT}
                await stage.follow()

    world.run(go())


@pytest.mark.parametrize("name", WHOLES)
def test_cancelled_at_every_byte(world: World, name: str) -> None:
    """A cancel after a part of the answer is Unknown, or an Answer whose body isn't whole once its head is."""
    answer = WHOLES[name]

    async def go() -> None:
        async with world.stage() as stage:
            for length in range(len(answer.text)):
                stage.server.on("/part", answer.text[:length], HANG)
                told = stage.begin("/part")
                await until(lambda: stage.server.peers and stage.server.peers[-1].resting)
                await until(lambda: stage.server.by_path()["/part"] == length + 1)  # noqa: B023
                await stage.server.peers[-1].taken()
                await passes(5)  # aiohttp's protocol has the bytes, and wakes the task that waits for the head
                outcome = await stage.cancelled(told)
                if length < len(answer.head):
                    assert isinstance(outcome, Unknown), (length, outcome)
                    assert outcome.reason is Reason.UNKNOWN
                else:
                    assert isinstance(outcome, Answer), (length, outcome)
                    assert (outcome.body, outcome.fault) == (answer.body_of(length), Reason.BODY_CUT)
                await stage.follow()

    world.run(go())


def test_cancelled_at_once(world: World) -> None:
    """A cancel in the step of the begin: on a new connection nothing is sent, on a kept one what was sent is known."""

    async def go() -> None:
        async with world.stage() as stage:
            assert isinstance(await stage.cancelled(stage.begin("/x")), NotSent)
            await stage.follow()
            told = stage.begin("/x")
            outcome = await stage.cancelled(told)
            assert isinstance(outcome, Unknown if told.sent_at else NotSent)
            await stage.follow()

    world.run(go())
