"""Keys that an administrator pauses, resumes, or gives another secret, while calls are on their way."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from apiflux_grpc.core.events import Event, KeyAccepted, KeyPaused, KeyRejected, KeyResumed, SecretChanged
from apiflux_grpc.core.held import Cause
from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Reason
from apiflux_grpc.core.units import SECOND
from tests.core.desk import POOL, Desk, batch_of

ONE_KEY: Final = replace(POOL, keys=POOL.keys[:1])


def events_of(desk: Desk) -> list[Event]:
    return [*desk.dispatcher.take_events()]


def test_no_call_gets_a_paused_key_and_those_in_flight_go_on() -> None:
    """What it had finishes and is charged; all that comes goes to the others."""
    desk = Desk()
    desk.submit(batch_of(30))
    before = desk.assign()
    desk.dispatcher.pause(0, desk.now)
    assert [result.failure for permit in before if (result := desk.answer(permit))] == [None] * 20
    desk.now += 2 * SECOND
    assert {permit.key.index for permit in desk.assign()} == {1}
    assert [key.in_flight for key in desk.dispatcher.scheduler.keys] == [0, 10]


def test_calls_wait_for_a_paused_pool_however_long_and_are_told_why() -> None:
    """Nothing ends for want of a usable key, no time is promised, and nothing is tried; resumed, all go at once."""
    desk = Desk()
    batch = batch_of(4)
    for index in (0, 1):
        desk.dispatcher.pause(index, desk.now)
    desk.submit(batch)
    assert desk.assign() == []
    assert desk.dispatcher.wake_at is None
    for _ in range(3):
        desk.now += 3600 * SECOND
        assert desk.dispatcher.tick(desk.now) == []
    (held,) = desk.dispatcher.info(desk.now, detail=True).held_by
    assert (held.cause, held.until, held.count) == (Cause.PAUSED, None, 2)
    assert held.reason == "paused by an administrator"
    assert {key.state for key in desk.dispatcher.info(desk.now, detail=True).keys} == {"paused"}
    assert batch.eta is None
    desk.dispatcher.resume(1, desk.now)
    assert [permit.key.index for permit in desk.assign()] == [1] * 4
    assert events_of(desk) == [KeyPaused("key-0"), KeyPaused("key-1"), KeyResumed("key-1")]


def test_what_was_spent_stays_spent_over_a_pause() -> None:
    """A pause is no way around a limit, and no loss either: what comes back meanwhile is there."""
    desk = Desk(ONE_KEY)
    desk.submit(batch_of(25))
    for permit in desk.assign():
        desk.answer(permit)
    desk.dispatcher.pause(0, desk.now)
    desk.now += SECOND // 2
    desk.dispatcher.resume(0, desk.now)
    assert desk.assign() == []
    desk.dispatcher.pause(0, desk.now)
    desk.now += SECOND
    desk.dispatcher.resume(0, desk.now)
    assert len(desk.assign()) == 10


def test_a_call_that_another_key_may_answer_does_not_wait_for_a_paused_one() -> None:
    """Rejected by its key, it may go with any other; if that is paused it ends as it would without it."""
    desk = Desk()
    desk.dispatcher.pause(1, desk.now)
    desk.submit(batch_of(1, policy=RetryPolicy(max_attempts=3)))
    results = []
    for _ in range(100):
        for permit in desk.assign():
            results += [result for result in [desk.answer(permit, 403)] if result is not None]
        desk.now += SECOND
    assert [result.failure for result in results] == [Reason.KEY_REJECTED]


@pytest.mark.parametrize("rejected", [True, False])
def test_a_new_secret_is_used_at_once_and_not_blamed_for_the_old_one(rejected: bool) -> None:
    """Calls that have a permit go with the old one, and whatever the upstream says of them changes nothing."""
    desk = Desk(ONE_KEY)
    desk.submit(batch_of(30, policy=RetryPolicy(max_attempts=1)))
    old = desk.assign()
    if rejected:
        for permit in old[:3]:
            desk.answer(permit, 401)
        assert [type(event) for event in events_of(desk)] == [KeyRejected]
    desk.dispatcher.rotate(0, "new", desk.now)
    results = [desk.answer(permit, 401) for permit in old[3:]]
    assert results == [None] * 7  # they go again, with the new one
    desk.now += 2 * SECOND
    new = desk.assign()
    assert sorted(permit.number for permit in new)[-7:] == [2] * 7  # though the policy allows one attempt
    assert {permit.key.key.secret for permit in new} == {"new"}
    desk.answer(new[0])
    assert [event for event in events_of(desk) if not isinstance(event, KeyAccepted)] == [SecretChanged("key-0")]
    assert desk.dispatcher.info(desk.now, detail=True).keys[0].state == "usable"


def test_a_new_secret_that_is_rejected_is_found_out_as_any_other() -> None:
    """Three in a row, from the first of its own on."""
    desk = Desk(ONE_KEY)
    desk.submit(batch_of(30, policy=RetryPolicy(max_attempts=1)))
    for permit in desk.assign()[:2]:
        desk.answer(permit, 401)
    desk.dispatcher.rotate(0, "worse", desk.now)
    desk.now += 2 * SECOND
    for number, permit in enumerate(desk.assign()[:3], 1):
        desk.answer(permit, 401)
        state = desk.dispatcher.info(desk.now, detail=True).keys[0].state
        assert state == ("rejected" if number == 3 else "usable")
