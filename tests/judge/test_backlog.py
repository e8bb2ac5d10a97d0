"""What came at once is stamped when it is read, however long it takes to answer it."""

from collections.abc import Callable

import pytest

from apiflux_grpc.judge.backlog import AT_ONCE, Backlog
from apiflux_grpc.judge.limits import Limit
from tests.judge.wires import SECOND, SECRET, Wire, request, statuses

GET = request("/v1/models", f"Authorization: Bearer {SECRET}")
Turn = list[Callable[[], None]]


def run(turns: Turn) -> None:
    while turns:
        turns.pop(0)()


def waiting(turns: Turn, *limits: Limit) -> Wire:
    """A judge with a backlog, which goes on when the turns are run."""
    return Wire(*limits, soon=turns.append, speak="openai")


def test_a_request_is_judged_by_when_it_was_read() -> None:
    """Two requests came two seconds apart and are parsed together: of a call in a second, each may have one."""
    turns: Turn = []
    wire = waiting(turns, Limit(1, SECOND))
    assert wire.send(GET) == []
    wire.now += 2 * SECOND
    assert wire.send(GET) == []
    run(turns)
    assert statuses(wire.answers()) == [200, 200]


def test_a_request_in_pieces_came_with_its_first() -> None:
    """The pieces are parsed in their order."""
    turns: Turn = []
    wire = waiting(turns, Limit(1, SECOND))
    for piece in (GET[:9], GET[9:40], GET[40:]):
        wire.send(piece)
        wire.now += SECOND
    run(turns)
    assert statuses(wire.answers()) == [200]
    assert wire.judge.report().accepted == 1


@pytest.mark.looptime
async def test_whoever_goes_has_arrived() -> None:
    """A request that was read counts though its client is gone before it is parsed, and nothing is written to it."""
    turns: Turn = []
    wire = waiting(turns)
    wire.send(GET)
    wire.abort()
    run(turns)
    assert (wire.judge.report().accepted, len(wire.sent), wire.judge.in_flight) == (1, 0, 0)


@pytest.mark.looptime
async def test_a_client_that_ends_is_answered() -> None:
    """What it sent before its end is parsed first."""
    turns: Turn = []
    wire = waiting(turns)
    wire.send(GET)
    wire.connection.eof_received()
    assert statuses(wire.answers()) == [200]
    run(turns)
    assert wire.judge.report().accepted == 1


def test_between_a_few_steps_the_loop_has_its_turn() -> None:
    """No more than a few are taken at once, in their order, and then the loop may read."""
    turns: Turn = []
    taken: list[int] = []
    backlog = Backlog(turns.append)
    for number in range(2 * AT_ONCE + 1):
        backlog.add(lambda number=number: taken.append(number))  # type: ignore[misc]
    for so_far in (AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1):
        [turn] = turns
        turns.clear()
        turn()
        assert taken == list(range(so_far))
    assert turns == []


def test_a_step_that_fails_holds_up_no_other() -> None:
    """The failure is the loop's to tell; the steps behind it are taken in the next turn."""
    turns: Turn = []
    taken: list[str] = []
    backlog = Backlog(turns.append)
    backlog.add(lambda: [][0])
    backlog.add(lambda: taken.append("other"))
    with pytest.raises(IndexError):
        turns.pop(0)()
    run(turns)
    assert taken == ["other"]


def test_at_the_end_nothing_is_left() -> None:
    """The last report knows all that was read."""
    turns: Turn = []
    wire = waiting(turns)
    wire.send(GET * 3)
    assert wire.judge.backlog is not None
    wire.judge.backlog.finish()
    assert wire.judge.report().accepted == 3


def test_plain_answers_are_not_put_off() -> None:
    """They take no longer than that would."""
    turns: Turn = []
    assert Wire(soon=turns.append).judge.backlog is None
