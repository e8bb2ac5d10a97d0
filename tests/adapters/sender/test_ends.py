"""An answer that ends or halts at any of its bytes.

Rule: after each of them the next call on the same upstream gets its own answer.
"""

from __future__ import annotations

import pytest

from apiflux_grpc.core.outcome import Answer, Reason, Unknown
from tests.adapters.sender.answers.whole import WHOLES, Whole
from tests.adapters.sender.script import CLOSE, CUT, FIN, HANG, RST, TAKEN, Do
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import until


def expected(answer: Whole, length: int, end: Do, tls: bool) -> tuple[bytes, Reason | None] | None:
    """Body and fault of what came of the first `length` bytes; None: Unknown."""
    if length < len(answer.head):
        return None
    in_order = end in {FIN, CLOSE} or (end is CUT and not tls)
    whole = in_order if answer.until_end else length == len(answer.text)
    return answer.body_of(length), None if whole else Reason.BODY_CUT


@pytest.mark.parametrize("end", [FIN, CUT, CLOSE, RST])
@pytest.mark.parametrize("name", WHOLES)
def test_ended_at_every_byte(world: World, name: str, end: Do) -> None:
    """What came before the end is told, and whether it was all."""
    answer = WHOLES[name]

    async def go() -> None:
        async with world.stage() as stage:
            for length in range(len(answer.text) + 1):
                stage.server.on("/cut", answer.text[:length], end)
                outcome = await stage.call("/cut")
                want = expected(answer, length, end, world.tls)
                if not world.ours and answer.until_end and end is RST and want == (b"", Reason.BODY_CUT):
                    want = b"", None  # aiohttp takes a reset behind an empty body for its end
                if want is None:
                    assert isinstance(outcome, Unknown), (length, outcome)
                    assert outcome.reason is Reason.UNKNOWN
                else:
                    assert isinstance(outcome, Answer), (length, outcome)
                    assert (outcome.status, outcome.headers["x-a"]) == (200, "1")
                    assert (outcome.body, outcome.fault) == want, length
                await stage.follow()

    world.run(go())


@pytest.mark.parametrize("name", WHOLES)
def test_halted_at_every_byte(world: World, name: str) -> None:
    """A pause between any two bytes changes nothing, and a connection that may be kept is."""
    answer = WHOLES[name]
    end = (FIN,) if answer.until_end else ()

    async def go() -> None:
        async with world.stage() as stage:
            for length in range(len(answer.text) + 1):
                stage.server.on("/halt", answer.text[:length], TAKEN, answer.text[length:], *end)
                outcome = await stage.call("/halt")
                assert isinstance(outcome, Answer), (length, outcome)
                assert (outcome.status, outcome.fault) == (200, None), length
                assert outcome.body == answer.body_of(len(answer.text)), length
                await stage.follow()
            if not answer.until_end:
                assert len(stage.server.peers) == 1

    world.run(go())


@pytest.mark.parametrize("name", WHOLES)
def test_late_at_every_byte(ours: World, name: str) -> None:
    """An answer that isn't whole in time ends as what of it came, and its connection isn't used again."""
    answer = WHOLES[name]
    lengths = range(len(answer.text))

    async def go() -> None:
        async with ours.stage() as stage:
            for length in lengths:
                stage.server.on(f"/late/{length}", answer.text[:length], HANG)
            late = [stage.begin(f"/late/{length}") for length in lengths]
            await until(lambda: len(stage.server.requests) == len(late))
            await until(lambda: all(peer.resting for peer in stage.server.peers))
            for peer in stage.server.peers:
                await peer.taken()
            for length, told in zip(lengths, late, strict=True):
                outcome = await stage.late(told)
                if length < len(answer.head):
                    assert outcome == Unknown("no answer in time", Reason.TIMEOUT), length
                else:
                    assert isinstance(outcome, Answer), (length, outcome)
                    assert (outcome.body, outcome.fault) == (answer.body_of(length), Reason.TIMEOUT)
            await stage.follow()
            assert len(stage.server.peers) == len(late) + 1

    ours.run(go())
