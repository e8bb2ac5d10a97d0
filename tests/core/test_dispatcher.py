"""The dispatcher: what becomes of batches and calls, without a loop, a network or a reader."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Final

import pytest

from apiflux_grpc.core.batch import Batch, Ending, FedCall
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import MOST_LATE
from apiflux_grpc.core.events import KeyBlocked, KeyRejected, NothingUsable, UpstreamFailing
from apiflux_grpc.core.headers import NO_HEADERS
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import CANCELLED, LATE, Answer, Cause, NotSent, Outcome, Reason, Unknown
from apiflux_grpc.core.units import SECOND
from tests.core.desk import POOL, Desk, batch_of

REFUSED: Final = NotSent(Cause.UNREACHABLE, "refused")


def fed(id: int = 1) -> Batch:
    return Batch(id, "caller", 0, admitted_at=0, fed=True)


class Request(list[Call]):
    """A request message, of which it can be seen whether somebody holds it."""


def test_a_call_goes_out_and_has_its_result() -> None:
    """The result names the call, its key and its times; the batch is over with its last one."""
    desk, batch = Desk(), batch_of(2)
    assert desk.submit(batch) == []
    first, second = desk.assign()
    desk.now = 30
    result = desk.answer(first)
    assert result is not None
    assert (result.index, result.failure, result.key, result.attempts, result.latency) == (0, None, "key-0", 1, 30)
    assert batch.done == 1
    assert desk.answer(second) is not None
    assert batch.finished
    assert (batch.tally.total, batch.tally.succeeded, batch.tally.time_in_calls) == (2, 2, 60)
    assert batch.tally.calls_by_key == {"key-0": 1, "key-1": 1}


def test_a_429_blocks_its_key_and_the_call_goes_with_another() -> None:
    """The key waits as told, at once the other one is tried, and observers hear of the block."""
    desk, batch = Desk(), batch_of(1, idempotent=False)
    desk.submit(batch)
    (permit,) = desk.assign()
    assert desk.answer(permit, 429, retry_after="7") is None
    assert desk.dispatcher.take_events()[0] == KeyBlocked("key-0", 7 * SECOND, 429, "429 with Retry-After: 7 s")
    (again,) = desk.assign()
    assert (again.key.key.label, again.number) == ("key-1", 2)


def test_a_503_that_says_when_is_tried_then_and_not_before() -> None:
    """Its Retry-After is the call's own wait where that is longer than the back-off."""
    desk, batch = Desk(), batch_of(1)
    desk.submit(batch)
    (permit,) = desk.assign()
    assert desk.answer(permit, 503, retry_after="4") is None
    assert desk.assign() == []
    assert desk.dispatcher.wake_at == 4 * SECOND
    desk.now = 4 * SECOND
    assert len(desk.assign()) == 1


@pytest.mark.parametrize("outcome", [Unknown("reset"), Answer(500, NO_HEADERS, b"", 0)])
def test_what_may_have_run_is_not_sent_again(outcome: Outcome) -> None:
    """At most once unless idempotent: the failure is the result."""
    desk, batch = Desk(), batch_of(1, idempotent=False)
    desk.submit(batch)
    result = desk.end(desk.assign()[0], outcome)
    assert result is not None
    assert result.outcome == outcome
    assert result.attempts == 1


def test_late_is_no_attempt_until_it_is_too_often() -> None:
    """A call that waited too long for a connection goes again at once, a few times; then it counts."""
    desk, batch = Desk(), batch_of(1, policy=RetryPolicy(max_attempts=1))
    desk.submit(batch)
    for _ in range(MOST_LATE):
        (permit,) = desk.assign()
        assert permit.number == 1
        assert desk.end(permit, LATE) is None
    result = desk.end(desk.assign()[0], LATE)
    assert result is not None
    assert result.failure is Reason.NOT_SENT


def test_cancelled_batches_have_no_results() -> None:
    """Unsent calls are dropped; what was in flight ends without a result, and says nothing of the upstream."""
    desk, batch = Desk(), batch_of(50)
    desk.submit(batch)
    permits = desk.assign()
    desk.dispatcher.cancel(batch)
    assert batch.in_flight == 20
    assert [desk.end(permit, CANCELLED) for permit in permits] == [None] * 20
    assert batch.finished
    assert desk.dispatcher.take_events() == ()
    assert desk.assign() == []


def test_stopping_ends_what_waits_and_nothing_else() -> None:
    """What waits ends as STOPPED, in flight goes on to its result but isn't tried again."""
    desk, batch = Desk(), batch_of(50)
    desk.submit(batch)
    permits = desk.assign()
    results = desk.dispatcher.stop(batch, desk.now)
    assert [result.index for result in results] == list(range(20, 50))
    assert {(result.failure, result.never_ran, result.attempts) for result in results} == {(Reason.STOPPED, True, 0)}
    last = [desk.end(permit, REFUSED) for permit in permits]
    assert [result.failure for result in last if result is not None] == [Reason.NOT_SENT] * 20
    assert (batch.finished, batch.ending, batch.tally.cancelled) == (True, Ending.STOPPED, 30)


@pytest.mark.parametrize(("idempotent", "never_ran"), [(True, False), (False, True)])
def test_a_retry_that_waits_at_the_end_knows_whether_it_ran(idempotent: bool, never_ran: bool) -> None:
    """One that isn't idempotent waits only if it certainly was not executed; of the others nobody knows."""
    desk, batch = Desk(), batch_of(1, idempotent=idempotent)
    desk.submit(batch)
    assert desk.end(desk.assign()[0], REFUSED, draw=0.5) is None
    (result,) = desk.dispatcher.stop(batch, desk.now)
    assert (result.attempts, result.never_ran) == (1, never_ran)


def test_draining_ends_what_was_never_sent_and_takes_nothing_new() -> None:
    """Open batches end as DRAINING, and so does a batch that comes later."""
    desk, batch, late = Desk(), batch_of(30), batch_of(2, id=2)
    desk.submit(batch)
    permits = desk.assign()
    ((ended, results),) = desk.dispatcher.drain(desk.now)
    assert (ended, len(results)) == (batch, 10)
    for permit in permits:
        desk.answer(permit)
    assert batch.finished
    assert [result.failure for result in desk.submit(late)] == [Reason.DRAINING] * 2
    assert (late.finished, late.ending) == (True, Ending.DRAINING)


def test_a_fed_batch_counts_calls_as_its_caller_does() -> None:
    """Indexes of results are the caller's, wrong calls have their result at once, and it ends when it is said."""
    desk, batch = Desk(), fed()
    desk.submit(batch)
    calls = [FedCall(5, Call(), 1), FedCall(7, Call(), 1)]
    (wrong,) = desk.dispatcher.feed(batch, calls, [(6, "no path")], desk.now)
    assert (wrong.index, wrong.failure, wrong.detail) == (6, Reason.INVALID_CALL, "no path")
    results = [desk.answer(permit) for permit in desk.assign()]
    assert [result.index for result in results if result is not None] == [5, 7]
    assert not batch.finished
    desk.dispatcher.end(batch)
    assert (batch.finished, batch.tally.total, batch.tally.failed) == (True, 3, {Reason.INVALID_CALL: 1})


def test_calls_that_come_after_the_end_have_their_result_at_once() -> None:
    """What is fed to a batch that was stopped ends as the rest of it did; to one that was cancelled, not at all."""
    desk, stopped, cancelled = Desk(), fed(), fed(2)
    for batch in (stopped, cancelled):
        desk.submit(batch)
        desk.dispatcher.feed(batch, [FedCall(0, Call(), 1)], [], desk.now)
    permits = desk.assign()
    desk.dispatcher.stop(stopped, desk.now)
    desk.dispatcher.cancel(cancelled)
    (result,) = desk.dispatcher.feed(stopped, [FedCall(1, Call(), 1)], [], desk.now)
    assert (result.index, result.failure, result.never_ran) == (1, Reason.STOPPED, True)
    assert desk.dispatcher.feed(cancelled, [FedCall(1, Call(), 1)], [(2, "no path")], desk.now) == []
    assert len(permits) == 2


def test_a_deadline_that_cannot_be_met_is_refused_before_anything_is_sent() -> None:
    """Forty calls at twenty a second take a second; with less time than that the batch is INFEASIBLE."""
    desk = Desk()
    hasty = Batch(1, "caller", 40, admitted_at=0, calls=[Call()] * 40, deadline=SECOND // 2)
    assert desk.submit(hasty) == []
    assert (hasty.ending, hasty.finished) == (Ending.INFEASIBLE, True)
    assert hasty.eta is not None
    assert hasty.eta >= SECOND
    assert desk.assign() == []
    patient = Batch(2, "caller", 40, admitted_at=0, calls=[Call()] * 40, deadline=3 * SECOND)
    desk.submit(patient)
    assert patient.ending is None


def test_a_deadline_is_judged_by_when_the_upstream_is_tried_again() -> None:
    """Nothing goes before; a probe that is out may bring everything back at once."""
    desk = Desk(Pool("pool", (Key("key-0", "secret", (Limit(1000, SECOND),)),)))

    def judged(id: int, deadline: int) -> Ending | None:
        hasty = Batch(id, "caller", 10, admitted_at=desk.now, calls=[Call()] * 10, deadline=deadline)
        desk.submit(hasty)
        return hasty.ending

    desk.submit(batch_of(60, idempotent=False))
    for permit in desk.assign():
        desk.end(permit, Unknown("connection reset"))
    assert judged(2, SECOND - 1) is Ending.INFEASIBLE
    assert judged(3, SECOND) is None
    assert desk.dispatcher.info(desk.now).drain_time == SECOND
    desk.now = SECOND
    assert len(desk.assign()) == 1  # a probe
    desk.now = 2 * SECOND
    assert desk.dispatcher.info(desk.now).drain_time is None
    assert judged(4, SECOND // 10) is None


def test_patience_ends_when_no_key_was_usable_for_so_long() -> None:
    """Every key rejected: calls wait for the pool's patience, and then end as NO_USABLE_KEY."""
    desk = Desk(replace(POOL, patience=5 * SECOND))
    batch = batch_of(40, policy=RetryPolicy(reasons=RetryPolicy().reasons - {Reason.KEY_REJECTED}))
    desk.submit(batch)
    for permit in desk.assign():
        desk.answer(permit, 401)
    events = desk.dispatcher.take_events()
    assert {event.key for event in events if isinstance(event, KeyRejected)} == {"key-0", "key-1"}
    assert desk.dispatcher.tick(desk.now) == []
    desk.now = 5 * SECOND - 1
    assert desk.dispatcher.tick(desk.now) == []
    desk.now += 1
    ((_, results),) = desk.dispatcher.tick(desk.now)
    assert [result.failure for result in results] == [Reason.NO_USABLE_KEY] * 20
    assert desk.dispatcher.take_events() == [NothingUsable(20, "it rejects every key")]
    assert (batch.ending, batch.finished) == (Ending.GIVEN_UP, True)


def test_what_ends_while_it_waits_names_its_last_key() -> None:
    """A call that was attempted and ends as NO_USABLE_KEY or STOPPED has the label of that attempt's key."""
    desk = Desk(replace(POOL, patience=5 * SECOND))
    first, second = batch_of(1), batch_of(1, id=2)
    for batch, label in ((first, "key-0"), (second, "key-1")):
        desk.submit(batch)
        (permit,) = desk.assign()
        assert permit.key.key.label == label
        assert desk.answer(permit, 503, retry_after="60") is None
    (stopped,) = desk.dispatcher.stop(second, desk.now)
    desk.submit(batch_of(20, id=3, policy=RetryPolicy(reasons=RetryPolicy().reasons - {Reason.KEY_REJECTED})))
    for permit in desk.assign():
        desk.answer(permit, 401)
    assert desk.dispatcher.tick(desk.now) == []
    desk.now = 5 * SECOND
    given_up = [result for _, results in desk.dispatcher.tick(desk.now) for result in results if result.attempts]
    assert [(result.failure, result.key) for result in given_up] == [(Reason.NO_USABLE_KEY, "key-0")]
    assert (stopped.failure, stopped.key, stopped.attempts) == (Reason.STOPPED, "key-1", 1)


def test_a_failing_upstream_is_left_alone_and_says_why() -> None:
    """Twenty failures in a row over any keys open its breaker: nothing is assigned until it is tried again."""
    desk, batch = Desk(), batch_of(60, idempotent=False)
    desk.submit(batch)
    for permit in desk.assign():
        desk.end(permit, Unknown("connection reset"))
    assert desk.dispatcher.take_events() == [UpstreamFailing(SECOND, "connection reset")]
    desk.now = SECOND - 1
    assert desk.assign() == []
    desk.now = 2 * SECOND
    assert len(desk.assign()) == 1  # a probe


def test_limits_that_change_keep_what_was_spent() -> None:
    """Ten of ten went out; with a limit of twelve two more may, with one of five none."""
    for most, more in ((12, 2), (5, 0)):
        desk, batch = Desk(Pool("pool", POOL.keys[:1])), batch_of(50)
        desk.submit(batch)
        assert len(desk.assign()) == 10
        desk.dispatcher.change_limits(0, (Limit(most, SECOND),), desk.now)
        assert len(desk.assign()) == more


def test_a_batch_that_is_over_holds_nothing_of_its_request() -> None:
    """However long others keep it in the fair queue: a cancelled request of many megabytes is let go at once."""
    desk, first = Desk(Pool("pool", (Key("key-0", "secret", (Limit(1, 3600 * SECOND),)),))), batch_of(2)
    desk.submit(first)
    desk.assign()
    request = Request([Call()] * 3)
    kept = weakref.ref(request)
    later = Batch(2, "caller", 3, admitted_at=0, calls=request)
    desk.submit(later)
    assert desk.assign() == []
    desk.dispatcher.cancel(later)
    del request
    assert kept() is None


def test_room_that_comes_with_the_last_result_is_ignored() -> None:
    """A driver may say so after the batch, and its caller, were forgotten."""
    desk, batch = Desk(), batch_of(1)
    desk.submit(batch)
    assert desk.answer(desk.assign()[0]) is not None
    desk.dispatcher.room(batch)
    assert desk.assign() == []


def test_etas_come_with_the_tick_and_follow_the_fair_share() -> None:
    """Of two batches of one caller, a hundred calls each at twenty a second, both are done in about ten seconds."""
    desk, one, other = Desk(), batch_of(100), batch_of(100, id=2)
    desk.submit(one)
    desk.submit(other)
    desk.dispatcher.tick(desk.now)
    for batch in (one, other):
        assert batch.eta is not None
        assert 9 * SECOND <= batch.eta <= 12 * SECOND
    assert desk.dispatcher.info(desk.now).drain_time == one.eta


def test_what_it_tells_of_itself_names_keys_by_label_alone() -> None:
    """A snapshot has each key's headroom and state, and no secret."""
    desk, batch = Desk(), batch_of(3)
    desk.submit(batch)
    desk.answer(desk.assign()[0], 429, retry_after="9")
    first, second = desk.dispatcher.info(desk.now, detail=True).keys
    assert (first.label, first.state, first.blocked_for) == ("key-0", "blocked", 9 * SECOND)
    assert (second.label, second.state, second.headroom) == ("key-1", "usable", 0.9)
    assert "secret" not in repr((first, second))
