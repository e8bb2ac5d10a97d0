"""Calls that wait for what time alone doesn't bring: nobody is woken for nothing, and nothing outlives its batch."""

from __future__ import annotations

from typing import Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.model import Counts, Key, Limit, Pool
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import SECOND
from tests.core.desk import Desk, batch_of

WIDE: Final = (Limit(10, SECOND),)


def wake_ups(dispatcher: Dispatcher, start: int, end: int) -> int:
    """How often one is woken between two instants though nothing happens."""
    count, now = 0, start
    while True:
        permits, wake_at = dispatcher.assign(now, FAR)
        assert not permits
        if wake_at is None or wake_at >= end:
            return count
        assert wake_at > now
        now = wake_at
        count += 1
        assert count < 1000, f"woken again and again at {now}"


def test_a_rejected_call_that_waits_for_a_busy_key_does_not_spin() -> None:
    """The only key left for it has all in flight that it may have: its end is looked for ten times a second."""
    busy = Key("key-1", "secret", WIDE, max_in_flight=1)
    desk = Desk(Pool("pool", (Key("key-0", "secret", WIDE), busy)))
    desk.submit(batch_of(2))
    permits = {permit.key.key.label: permit for permit in desk.assign()}
    desk.now = SECOND // 10
    assert desk.answer(permits["key-0"], 401) is None
    assert wake_ups(desk.dispatcher, desk.now, desk.now + SECOND) <= 11
    desk.now += SECOND
    assert desk.answer(permits["key-1"]) is not None
    wake_at = desk.dispatcher.wake_at
    assert wake_at is not None
    desk.now = max(desk.now, wake_at)
    assert [permit.key.key.label for permit in desk.assign()] == ["key-1"]


def test_a_place_is_let_go_of_with_the_batch_of_its_call() -> None:
    """A call that waited for too long while a key was reserved for it: its batch is forgotten, and so is the place."""
    limits = (Limit(100, 60 * SECOND, Counts.COST),)
    desk = Desk(Pool("pool", (Key("key-0", "secret", limits),), arrival_jitter=0, longest_wait=5 * SECOND))
    batch = Batch(1, "caller", 1, admitted_at=0, calls=[Call()], costs=[100])
    desk.submit(batch)
    (permit,) = desk.assign()
    assert desk.answer(permit, 429, retry_after="1") is None
    desk.now = SECOND
    assert desk.assign() == []  # it is charged for a minute: the call gets a place
    desk.now = 6 * SECOND
    ((_, (result,)),) = desk.dispatcher.tick(desk.now)
    assert (result.failure, batch.finished) == (Reason.LIMITED, True)
    desk.now = 61 * SECOND
    assert desk.assign() == []
    assert desk.dispatcher.wake_at is None


def tell(desk: Desk, permit: Permit, remaining: str, reset: str = "3600") -> None:
    """So much is left of a limit that isn't configured."""
    assert desk.answer(permit, x_ratelimit_limit="5000", x_ratelimit_remaining=remaining, x_ratelimit_reset=reset)


def test_a_newer_word_lets_a_key_go_at_once() -> None:
    """Nothing was left for an hour, says one answer; the next one, of a later call, says otherwise: calls go on."""
    desk = Desk(Pool("pool", (Key("key-0", "secret", WIDE),)))
    desk.submit(batch_of(1))
    tell(desk, desk.assign()[0], "50")
    desk.submit(batch_of(2, id=2))
    first, second = desk.assign()
    desk.now = SECOND
    tell(desk, first, "0")
    desk.submit(batch_of(1, id=3))
    assert desk.assign() == []
    tell(desk, second, "40")
    assert len(desk.assign()) == 1


def test_a_word_that_ends_wakes_those_who_wait_for_an_answer() -> None:
    """One was left for two seconds, and its call hangs: when the word has ended, the next one goes."""
    desk = Desk(Pool("pool", (Key("key-0", "secret", ()),)))
    desk.submit(batch_of(1))
    tell(desk, desk.assign()[0], "1", "2")
    desk.submit(batch_of(2, id=2))
    (hanging,) = desk.assign()
    desk.dispatcher.sent(hanging, desk.now)
    wakes = 0
    while not (permits := desk.assign()):
        assert desk.dispatcher.wake_at is not None
        desk.now = desk.dispatcher.wake_at
        wakes += 1
    assert len(permits) == 1
    assert (desk.now, wakes <= 3) == (2 * SECOND, True)


def test_a_word_that_has_ended_holds_nothing_back() -> None:
    """Nobody asked when it ended: it is over all the same, and wakes nobody in the past."""
    desk = Desk(Pool("pool", (Key("key-0", "secret", ()),)))
    desk.submit(batch_of(1))
    tell(desk, desk.assign()[0], "1", "2")
    desk.submit(batch_of(1, id=2))
    (hanging,) = desk.assign()
    desk.dispatcher.sent(hanging, desk.now)
    desk.now = 5 * SECOND
    desk.submit(batch_of(3, id=3))
    assert len(desk.assign()) == 3
    assert desk.dispatcher.wake_at is None
