"""The hostile table, some hundred answers: what each makes of its call, and of the call after it.

Rule: after each of them the next call gets its own answer, on the same connection only if that is safe.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.adapters.sender.answers import bodies, chunks, ends, framing, heads
from tests.adapters.sender.answers.row import BODY_CAP, HEAD_CAP, LOST, Row
from tests.adapters.sender.script import TAKEN
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import until

ROWS = {**heads.ANSWERS, **framing.ANSWERS, **chunks.ANSWERS, **bodies.ANSWERS, **ends.ANSWERS}

# What aiohttp does otherwise, besides the rows that say so themselves.
KNOWN = {
    "status line, HTTP/2.0": "any version will do",
    "status line, HTTP/2.0, and silence": "any version will do",
    "Content-Length, a space before the colon": "the name keeps the space, and the body has no length",
    "Transfer-Encoding, a space before the colon": "the name keeps the space, and the body has no coding",
    "Transfer-Encoding b'chunked\\x0b'": "an unknown coding is none",
    "Transfer-Encoding b'\\x0bchunked'": "an unknown coding is none",
    "header, a space before the name": "the space is left out",
    "trailers, NUL": "trailers are left out unread",
    "101, bare": "waits for more until its time is up",
    "101, with a length": "waits for more until its time is up",
}


async def play(world: World, row: Row) -> None:
    async with world.stage(body_cap=BODY_CAP, head_cap=HEAD_CAP) as stage:
        server = stage.server
        server.on("/row", *row.steps, early=row.early)
        told = stage.begin("/row", row.method, body=row.body)
        if row.late:
            await until(lambda: server.peers and server.peers[0].resting)
            await server.peers[0].taken()
            await stage.late(told)
        outcome = await told.over()
        # If an answer is faulty, or bytes come after it, the control may also call it lost.
        lost = not world.ours and not row.reuse and LOST.fits(outcome)
        assert lost or row.want.fits(outcome), f"{row.want} is not {outcome!r:.300}"
        await until(lambda: server.peers[0].resting)
        await server.peers[0].taken()
        await stage.follow()
        if row.reuse is not None and world.ours:
            assert len(server.peers) == (1 if row.reuse else 2), "kept" if len(server.peers) == 1 else "not kept"


async def play_all(world: World, rows: list[Row]) -> None:
    """Plays each on a stage of its own, and fails with all that went wrong."""
    wrong: list[str] = []
    for row in rows:
        try:
            await play(world, row)
        except Exception as error:
            wrong.append(f"{row.name}: {str(error).splitlines()[0] if str(error) else repr(error)}")
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_the_table() -> None:
    """There are some hundred rows, and no two have the same name."""
    names = [row.name for rows in ROWS.values() for row in rows]
    assert len(names) == len(set(names))
    assert len(names) > 500
    assert set(KNOWN) <= set(names)


@pytest.mark.parametrize("name", ROWS)
def test_rows(ours: World, name: str) -> None:
    """Each answer makes of its call what the table says, and nothing of the next call."""
    ours.run(play_all(ours, ROWS[name]))


@pytest.mark.parametrize("name", ROWS)
def test_control(control: World, name: str) -> None:
    """What the table asks for isn't only our own idea: aiohttp says much the same."""
    control.run(play_all(control, [row for row in ROWS[name] if row.control and row.name not in KNOWN]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_in_pieces(ours: World, name: str) -> None:
    """It makes no difference in how many pieces an answer comes."""
    rows: list[Row] = []
    for row in ROWS[name]:
        answer, *then = row.steps
        if isinstance(answer, bytes) and len(answer) < 1500 and not row.early:
            pieces = [step for byte in answer for step in (bytes([byte]), TAKEN)]
            rows.append(replace(row, steps=(*pieces, *then)))
    ours.run(play_all(ours, rows))
