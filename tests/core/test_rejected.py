"""What becomes of calls and keys when an upstream rejects a key, or a call whatever its key, on virtual time.

Rule: a key that is rejected is found out by calls that other keys make well; a call that is forbidden ends without
taking a key from other calls.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from apiflux_grpc.core.events import KeyAccepted, KeyRejected
from apiflux_grpc.core.forbidden import MOST, Rejections
from apiflux_grpc.core.keys import KEY_BREAKER
from apiflux_grpc.core.model import Limit, RetryPolicy
from apiflux_grpc.core.outcome import Answer, Reason
from apiflux_grpc.core.units import SECOND
from tests.core.refusing import Arrival, ok, pool_of, run, says

FIVE: Final = Limit(5, SECOND)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_key_that_is_rejected_beside_a_good_one(status: int) -> None:
    """One of two: all 40 succeed, each with two sends at most, though its policy has one attempt."""
    policy = RetryPolicy(max_attempts=1)
    done = run(pool_of(2), lambda one: says(one, status) if one.key == "key-0" else ok(one), 40, policy=policy)
    assert done.lost == 0
    assert max(result.attempts for result in done.results) == 2
    assert [event.key for event in done.events if isinstance(event, KeyRejected)] == ["key-0"]


def test_a_call_shows_three_keys_at_most_and_each_once() -> None:
    """One that is rejected everywhere ends there, with the last answer."""
    done = run(pool_of(10), lambda arrival: says(arrival, 403), 1)
    (result,) = done.results
    assert (result.failure, result.attempts) == (Reason.KEY_REJECTED, 3)
    assert len({arrival.key for arrival in done.arrivals}) == 3
    assert run(pool_of(1), lambda arrival: says(arrival, 403), 1).results[0].attempts == 1


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("keys", [2, 3, 4, 5, 8])
def test_a_forbidden_path_takes_no_key_from_others(keys: int, every: int) -> None:
    """Every second or third call is forbidden: each ends by its third send, and no key is left alone for long, though
    the order gives some keys forbidden calls alone."""
    done = run(pool_of(keys, FIVE), lambda one: says(one, 403) if one.place % every else ok(one), 200)
    good = len(range(0, 200, every))
    assert Counter(result.failure for result in done.results) == {None: good, Reason.KEY_REJECTED: 200 - good}
    assert max(result.attempts for result in done.results) <= 3
    assert {event.cool_down for event in done.events if isinstance(event, KeyRejected)} <= {KEY_BREAKER[1]}
    # At the end the last forbidden calls may be one probe after the other. It was up to 14 hours.
    assert done.took < len(done.arrivals) * SECOND // (5 * keys) + 4 * KEY_BREAKER[1]


def test_a_key_that_was_given_forbidden_calls_alone_comes_back_when_another_rejects_them_too_and_works() -> None:
    """Every second call of four keys in turn: two are blamed, and back before their time."""
    done = run(pool_of(4, FIVE), lambda one: says(one, 403) if one.place % 2 else ok(one), 40)
    assert Counter(result.failure for result in done.results) == {None: 20, Reason.KEY_REJECTED: 20}
    assert max(result.attempts for result in done.results) <= 3
    assert {"key-1", "key-3"} <= {event.key for event in done.events if isinstance(event, KeyRejected)}
    assert {"key-1", "key-3"} <= {event.key for event in done.events if isinstance(event, KeyAccepted)}
    assert done.took < KEY_BREAKER[1]


@pytest.mark.parametrize(("keys", "bad"), [(2, 8), (2, 12), (3, 20), (4, 12), (6, 40)])
def test_forbidden_calls_at_first_lose_none_that_come_after_them(keys: int, bad: int) -> None:
    """They may get every key rejected; then calls find out whether a key works that none has rejected yet, before those
    that another has. Else each probe would fail until patience ends all that wait."""
    done = run(pool_of(keys, FIVE), lambda one: says(one, 403) if one.place < bad else ok(one), bad + 100)
    assert {result.failure for result in done.results[bad:]} == {None}


def test_a_call_that_a_key_has_rejected_waits_for_a_rejected_one_if_nothing_else_does() -> None:
    """It gives way to others for a second, and then it is the probe: of two keys the one that rejected all works again
    at its probe, and the other rejects this call alone."""

    def upstream(arrival: Arrival) -> Answer:
        bad = arrival.at < 5 * SECOND if arrival.key == "key-0" else arrival.place == 39
        return says(arrival, 403) if bad else ok(arrival)

    done = run(pool_of(2, Limit(50, SECOND)), upstream, 40)
    assert done.lost == 0
    assert done.results[39].attempts == 2
    assert KEY_BREAKER[1] + SECOND <= done.took < KEY_BREAKER[1] + 2 * SECOND


@pytest.mark.parametrize("keys", [2, 4])
def test_a_rejected_key_beside_forbidden_calls_is_found_out(keys: int) -> None:
    """What it is charged with are calls that other keys make well, and these charges stay: of 90 calls that it could
    have had, it has a few."""
    done = run(
        pool_of(keys, FIVE), lambda one: says(one, 403) if one.key == "key-0" or one.place % 5 == 1 else ok(one), 300
    )
    assert Counter(result.failure for result in done.results) == {None: 240, Reason.KEY_REJECTED: 60}
    good = [arrival for arrival in done.arrivals if arrival.key == "key-0" and arrival.place % 5 != 1]
    assert len(good) <= 12
    rejected = [event for event in done.events if isinstance(event, KeyRejected) and event.key == "key-0"]
    assert max(event.cool_down for event in rejected) > KEY_BREAKER[1]  # a probe has failed, and it stayed


def test_a_key_that_works_excuses_others_of_what_it_rejected() -> None:
    """Of what was charged to it, or what it rejected after them; not of other calls, and once."""
    rejections = Rejections()
    for call in ((1, 1), (1, 2), (1, 3)):
        rejections.charged(0, call)
    rejections.charged(1, (1, 1))
    rejections.rejected_too(1, (1, 2))
    rejections.rejected_too(2, (1, 3))
    rejections.rejected_too(2, (9, 9))  # of which nobody is charged
    assert [*rejections.worked(1)] == [(0, 2)]
    assert [*rejections.worked(1)] == []
    assert [*rejections.worked(2)] == [(0, 1)]
    assert [*rejections.worked(0)] == []


def test_what_is_kept_of_rejections_is_bounded() -> None:
    """A key that is rejected for weeks is charged with its last probes."""
    rejections = Rejections()
    for place in range(MOST + 10):
        rejections.charged(0, (1, place))
        rejections.rejected_too(1, (1, place))
        rejections.charged(2, (1, place))
    assert [*rejections.worked(2)] == [(0, MOST)]


def test_a_rejected_call_waits_for_a_key_that_it_has_not_tried() -> None:
    """The other key is busy for a while: the call waits for it, and others go on with the first meanwhile."""
    slow = Limit(1, 5 * SECOND)
    pool = pool_of(2, slow)
    tried: list[Arrival] = []

    def upstream(arrival: Arrival) -> Answer:
        tried.append(arrival)
        return says(arrival, 403) if arrival.place == 0 and arrival.key == "key-0" else ok(arrival)

    done = run(pool, upstream, 6)
    assert done.lost == 0
    first = [arrival for arrival in done.arrivals if arrival.place == 0]
    assert [arrival.key for arrival in first] == ["key-0", "key-1"]
