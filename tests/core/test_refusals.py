"""What becomes of calls that an upstream refuses, on virtual time: cases of what real APIs answer.

Rule: no call is lost to a limit that ends, none is refused again and again in vain, and a call that must end ends at
once and says until when.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from email.utils import format_datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.events import KeyBlocked, KeyRejected, LimitCut, NothingUsable, UpstreamFailing, WaitUnread
from apiflux_grpc.core.fields import JsonField
from apiflux_grpc.core.model import Counts, Group, Limit, RetryPolicy
from apiflux_grpc.core.outcome import Answer, Reason
from apiflux_grpc.core.rules import AnswerRule, Means
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.refusing import LATENCY, POLICY, WALL, WIDE, Arrival, ok, pool_of, run, says, until

MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
WITHOUT_LIMITED: Final = RetryPolicy(reasons=RetryPolicy().reasons - {Reason.LIMITED})


# -- waits ---------------------------------------------------------------------------------------


def test_a_wait_with_decimals_that_counts_down() -> None:
    """Five answers, then 429 for 8 s with `Retry-After: 7.99` and less: all 40 are ok in about 8 s."""

    def upstream(arrival: Arrival) -> Answer:
        left = 8 * SECOND - arrival.at
        if arrival.place < 5 or left <= 0:
            return ok(arrival)
        return says(arrival, 429, {"retry-after": f"{(left - 10 * MILLISECOND) / SECOND:.2f}"})

    done = run(pool_of(1), upstream, 40)
    assert done.lost == 0
    assert done.took < 8.2 * SECOND


def test_what_others_took_of_a_window_that_resets_is_free_after_a_told_wait() -> None:
    """Others have used up a fixed window of a minute that ends in 3 s: calls go on then, not a window later."""

    def upstream(arrival: Arrival) -> Answer:
        used = sum(one.at >= 3 * SECOND for one in arrivals)
        left = {"ratelimit-limit": "100", "ratelimit-reset": "3", "ratelimit-remaining": str(100 - used)}
        if arrival.at < 3 * SECOND:
            return says(arrival, 429, {**left, "ratelimit-remaining": "0", "retry-after": "3"})
        arrivals.append(arrival)
        return says(arrival, 200, left)

    arrivals: list[Arrival] = []
    outcomes = run(pool_of(1, Limit(100, MINUTE)), upstream, 40)
    assert not outcomes.lost
    assert outcomes.took < 4 * SECOND


@pytest.mark.parametrize("header", [None, "0", "-1", "soon"])
def test_without_a_usable_wait_one_call_probes(header: str | None) -> None:
    """200 calls meet a key that refuses for 6 s without a word: after 1, 3 and 7 s one call goes, and then all."""
    headers = {} if header is None else {"retry-after": header}
    upstream = until(6 * SECOND, lambda arrival: says(arrival, 429, headers))
    done = run(pool_of(1, Limit(400, 10 * SECOND)), upstream, 200)
    assert done.lost == 0
    assert done.took < 11 * SECOND  # the limit was cut, since every limit had been kept
    later = Counter(arrival.at // SECOND for arrival in done.arrivals if 0 < arrival.at < 7 * SECOND)
    assert later == {1: 1, 3: 1}
    assert [event.wait for event in done.events if isinstance(event, KeyBlocked)] == [SECOND, 2 * SECOND, 4 * SECOND]
    unread = [event for event in done.events if isinstance(event, WaitUnread)]
    assert unread == ([WaitUnread("key-0", "Retry-After: soon")] if header == "soon" else [])


def test_a_date_is_read_by_the_clock_of_its_server() -> None:
    """A server five minutes ahead that says when, three seconds from its own Date, is waited for three seconds."""
    ahead = WALL + timedelta(minutes=5)
    headers = {"date": format_datetime(ahead, usegmt=True)}
    headers["retry-after"] = format_datetime(ahead + timedelta(seconds=3), usegmt=True)
    done = run(pool_of(1), until(3 * SECOND, lambda arrival: says(arrival, 429, headers)), 20)
    assert done.lost == 0
    assert 3 * SECOND <= done.took < 4 * SECOND


@pytest.mark.parametrize("refused_for", [31 * SECOND, 45 * SECOND, 59 * SECOND])
def test_patience_lasts_until_the_probe_that_decides(refused_for: int) -> None:
    """A minute's limit used up by others, without a word: the probe after a minute finds it open, and none is lost."""
    limit = Limit(400, MINUTE)
    done = run(pool_of(1, limit), until(refused_for, lambda arrival: says(arrival, 429)), 50)
    assert done.lost == 0
    assert done.took < 64 * SECOND


def test_a_key_that_never_opens_ends_calls_after_the_patience() -> None:
    """All keys refuse without a word: what waits ends as NO_USABLE_KEY once a probe after the patience was refused."""
    done = run(pool_of(2, Limit(400, 10 * SECOND)), lambda arrival: says(arrival, 429), 30)
    assert {result.failure for result in done.results} == {Reason.NO_USABLE_KEY}
    assert {result.key for result in done.results} == {"key-0", "key-1"}  # the last attempt's
    assert MINUTE <= done.took < 80 * SECOND
    (event,) = [event for event in done.events if isinstance(event, NothingUsable)]
    assert "429" in event.why


def test_a_told_wait_is_no_impatience() -> None:
    """However long it is, as long as it is told; and a second key that is rejected doesn't matter."""

    def upstream(arrival: Arrival) -> Answer:
        if arrival.key == "key-1":
            return says(arrival, 401)
        return ok(arrival) if arrival.at >= 10 * MINUTE else says(arrival, 429, {"retry-after": "600"})

    done = run(pool_of(2), upstream, 30)
    assert done.lost == 0
    assert 10 * MINUTE <= done.took < 11 * MINUTE


@given(
    st.integers(1, 100 * 1000),
    st.sampled_from(["told", "late", "silent"]),
    st.integers(1, 3),
    st.integers(1, 60),
)
@settings(max_examples=40)
def test_no_call_is_lost_to_a_limit_that_ends(milliseconds: int, how: str, keys: int, calls: int) -> None:
    """Nothing arrives before a told end, probes go alone after a guess, and all calls succeed."""
    end = milliseconds * MILLISECOND
    early = 0.6 if how == "late" else 1.0  # it tells less than it means

    def refuse(arrival: Arrival) -> Answer:
        told = (end - arrival.at) * early / SECOND
        return says(arrival, 429, {} if how == "silent" else {"retry-after": f"{told:.3f}"})

    done = run(pool_of(keys, Limit(400, 10 * SECOND), patience=2 * MINUTE), until(end, refuse), calls)
    assert done.lost == 0
    assert done.took <= (2 * end if how == "silent" else end) + 30 * SECOND  # a cut limit is slower for a while
    refused = [arrival for arrival in done.arrivals if arrival.at < end]
    first: dict[str, int] = {}  # of each key, which calls may come to one after the other
    for arrival in refused:
        first.setdefault(arrival.key, arrival.at)
    again = [arrival for arrival in refused if arrival.at > first[arrival.key] + LATENCY]
    if how == "told":
        assert again == []
    if how == "silent":
        at = Counter((arrival.key, arrival.at) for arrival in again)
        assert max(at.values(), default=0) <= 1
        assert len(at) <= 14 * keys  # after 1, 3, 7 and 15 s, and then each 10 s, the longest limit


# -- limited -------------------------------------------------------------------------------------


def test_a_403_with_a_wait_is_a_limit() -> None:
    """For 70 s: all 40 are ok after it, and no probe goes meanwhile; it isn't the key that is rejected."""

    def refuse(arrival: Arrival) -> Answer:
        return says(arrival, 403, {"retry-after": str(-(-(70 * SECOND - arrival.at) // SECOND))})

    done = run(pool_of(1), until(70 * SECOND, refuse), 40)
    assert done.lost == 0
    assert 70 * SECOND <= done.took < 73 * SECOND
    assert not [arrival for arrival in done.arrivals if SECOND < arrival.at < 70 * SECOND]
    assert not [event for event in done.events if isinstance(event, KeyRejected)]


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("most", [1, 3])
def test_being_limited_costs_no_attempt(idempotent: bool, most: int) -> None:
    """Nothing was executed, so even a POST of one attempt goes on, ten times if need be; sends are counted apart."""
    policy = RetryPolicy(max_attempts=most)
    calls = [Call(idempotent=idempotent)]
    refuse = until(10 * SECOND, lambda arrival: says(arrival, 429, {"retry-after": "1"}))
    (result,) = run(pool_of(1), refuse, calls, policy=policy).results
    assert result.failure is None
    assert result.attempts > 5


def test_a_call_that_failed_and_was_limited_has_its_attempts_left() -> None:
    """Only what was executed counts for the policy: 500, 429, 500, and the third attempt is its last."""
    answers = [500, 429, 500, 429, 500, 200]

    def upstream(arrival: Arrival) -> Answer:
        return says(arrival, answers[seen[arrival]])

    seen: dict[Arrival, int] = {}

    def counting(arrival: Arrival) -> Answer:
        seen.setdefault(arrival, len(seen))
        return upstream(arrival)

    (result,) = run(pool_of(1), counting, 1).results
    assert (result.failure, result.attempts) == (Reason.HTTP_5XX, 5)


def test_a_policy_without_limited_takes_the_refusal_as_the_result() -> None:
    """Each call that is refused has its answer, once; the key waits all the same."""
    done = run(
        pool_of(1, Limit(10, SECOND)),
        until(SECOND // 2, lambda arrival: says(arrival, 429, {"retry-after": "5"})),
        20,
        policy=WITHOUT_LIMITED,
    )
    assert [result.failure for result in done.results] == [Reason.LIMITED] * 10 + [None] * 10
    assert all(result.attempts == 1 for result in done.results)
    assert min(arrival.at for arrival in done.arrivals if arrival.at) >= 5 * SECOND


def test_a_told_wait_beyond_longest_wait_ends_the_call_and_says_until_when() -> None:
    """At once, without waiting for the end of patience."""
    pool = pool_of(1, Limit(5, SECOND), longest_wait=10 * SECOND)
    refuse = until(SECOND // 2, lambda arrival: says(arrival, 429, {"retry-after": "3600"}))
    done = run(pool, refuse, 5)
    assert {(result.failure, result.attempts) for result in done.results} == {(Reason.LIMITED, 1)}
    assert {result.detail for result in done.results} == {
        "limited until 2026-01-01T01:00:00Z, longer than the pool's longest_wait"
    }
    assert done.took < SECOND


@pytest.mark.parametrize(("deadline", "lost"), [(30 * SECOND, 5), (50 * SECOND, 0)])
def test_a_told_wait_beyond_the_deadline_ends_the_call(deadline: int, lost: int) -> None:
    """Nobody would wait for it; with time enough it waits."""
    refuse = until(40 * SECOND, lambda arrival: says(arrival, 429, {"retry-after": "40"}))
    done = run(pool_of(1), refuse, 5, deadline=deadline)
    assert done.lost == lost
    if lost:
        assert done.results[0].detail == "limited until 2026-01-01T00:00:40Z, after the request's deadline"
        assert all(result.never_ran is False and result.outcome is None for result in done.results)
        assert done.took < SECOND


def test_another_key_that_is_open_keeps_the_call_from_ending() -> None:
    """A key may wait for ever if another one takes its calls."""
    pool = pool_of(2, longest_wait=SECOND)
    done = run(pool, lambda one: says(one, 429, {"retry-after": "99999"}) if one.key == "key-0" else ok(one), 50)
    assert done.lost == 0


def test_the_sum_of_its_waits_is_bounded() -> None:
    """Told a second again and again, a call ends when its waits have added up to the pool's longest_wait."""
    pool = pool_of(1, longest_wait=10 * SECOND)
    (result,) = run(pool, lambda arrival: says(arrival, 429, {"retry-after": "1"}), 1).results
    assert result.failure is Reason.LIMITED
    assert result.attempts == 11


def test_calls_that_others_probe_for_end_with_their_longest_wait_too() -> None:
    """They are never sent again, and end all the same; what was never sent waits on, and succeeds."""
    pool = pool_of(1, Limit(10, SECOND), longest_wait=20 * SECOND)
    done = run(pool, until(20 * SECOND, lambda arrival: says(arrival, 429)), 12)
    assert {result.failure for result in done.results[:10]} <= {None, Reason.LIMITED}
    assert all(result.failure is None for result in done.results[10:])
    for result in done.results:
        if result.failure is Reason.LIMITED and result.outcome is None:
            assert "longest_wait" in result.detail


def test_a_call_that_is_always_refused_stops_no_other() -> None:
    """One forbidden by a limit of its own path: others probe before it does, and all of them succeed."""
    done = run(
        pool_of(1, Limit(400, 10 * SECOND), longest_wait=MINUTE),
        lambda arrival: says(arrival, 429) if arrival.place == 0 else ok(arrival),
        [*[Call()] * 300],
    )
    assert [result.index for result in done.results if result.failure is not None] in ([], [0])
    assert done.lost <= 1


def test_refusals_of_calls_in_flight_are_one_block() -> None:
    """A hundred refusals of one burst make one event, one second and one cut."""
    done = run(pool_of(1, Limit(100, 10 * SECOND)), until(SECOND // 2, lambda arrival: says(arrival, 429)), 100)
    assert [event.wait for event in done.events if isinstance(event, KeyBlocked)] == [SECOND]
    assert len([event for event in done.events if isinstance(event, LimitCut)]) == 1


def test_a_refusal_for_the_group_s_limit_blocks_the_group() -> None:
    """Its hint names a limit that only the group has: no key of it goes on; a key outside does."""
    own, shared = Limit(50, 10 * SECOND), Limit(60, MINUTE)
    pool = pool_of(3, own, groups=(Group(("key-0", "key-1"), (shared,)),))

    def upstream(arrival: Arrival) -> Answer:
        if arrival.key == "key-2" or arrival.at >= 5 * SECOND:
            return ok(arrival)
        headers = {"retry-after": "5", "ratelimit-policy": '"org";q=60;w=60', "ratelimit": '"org";r=0;t=5'}
        return says(arrival, 429, headers)

    done = run(pool, upstream, 60)
    assert done.lost == 0
    keys = {arrival.key for arrival in done.arrivals if LATENCY < arrival.at < 5 * SECOND}
    assert keys <= {"key-2"}
    blocked = [event for event in done.events if isinstance(event, KeyBlocked)]
    assert [event.group for event in blocked] == [("key-0", "key-1")]


def test_a_group_that_was_guessed_at_is_opened_by_the_probe_of_one_key() -> None:
    """Its refusals name its limits and tell no wait: one call probes for all its keys, and its success frees all."""
    own = Limit(10_000, MINUTE, Counts.COST)
    pool = pool_of(2, own, groups=(Group(("key-0", "key-1"), (Limit(100, MINUTE), Limit(1000, HOUR))),))
    names = {"x-ratelimit-remaining-requests": "0"}
    done = run(pool, until(2 * SECOND, lambda arrival: says(arrival, 429, names)), 40)
    assert done.lost == 0
    assert Counter(arrival.at // SECOND for arrival in done.arrivals) == {0: 40, 1: 1, 3: 40}
    assert {arrival.key for arrival in done.arrivals if arrival.at > 3 * SECOND} == {"key-0", "key-1"}


# -- keys ----------------------------------------------------------------------------------------


def test_keys_whose_quota_is_gone_beside_a_good_one() -> None:
    """Three of four refuse for good: all 100 succeed with the fourth, at about one probe per dead key and back-off."""
    dead = {"key-1", "key-2", "key-3"}
    done = run(pool_of(4, Limit(40, 10 * SECOND)), lambda one: says(one, 429) if one.key in dead else ok(one), 100)
    assert done.lost == 0
    assert done.took < 21 * SECOND
    later = Counter(arrival.key for arrival in done.arrivals if arrival.at > LATENCY and arrival.key in dead)
    assert max(later.values()) <= 4  # after 1, 3, 7 and 15 s


def test_rules_of_the_pool_say_what_is_a_limit_and_where_the_wait_stands() -> None:
    """A 200 that means a limit, with its wait in the body: the key waits as told there, and no call is lost."""
    field = JsonField(("error", "retryDelay"))
    rule = AnswerRule(Means.LIMITED, ((200, 200),), (), field)
    bodies = {False: b'{"error": {"retryDelay": "7s"}}', True: b"{}"}

    def upstream(arrival: Arrival) -> Answer:
        return says(arrival, 200 if arrival.at < 7 * SECOND else 201, body=bodies[arrival.place > 2])

    done = run(pool_of(1, answers=(rule,)), upstream, 6)
    assert done.lost == 0
    assert 7 * SECOND <= done.took < 8 * SECOND
    blocked = [event for event in done.events if isinstance(event, KeyBlocked)]
    assert "error.retryDelay: 7" in blocked[0].why
    assert [event.what for event in done.events if isinstance(event, WaitUnread)] == ["error.retryDelay is missing"]


def test_a_key_that_comes_back_as_a_wait_is_not_told() -> None:
    """Events have no secret, though an upstream sends it back where it should say how long to wait."""
    pool = pool_of(1)
    headers = {"retry-after": f"ask {pool.keys[0].secret}"}
    done = run(pool, until(SECOND, lambda arrival: says(arrival, 429, headers)), 3)
    assert [event.what for event in done.events if isinstance(event, WaitUnread)] == ["Retry-After: ***"]


def test_limited_calls_open_no_breaker() -> None:
    """Hundreds of refusals say nothing of the upstream, nor of whether it rejects the key."""
    done = run(pool_of(1, WIDE), until(5 * SECOND, lambda arrival: says(arrival, 429)), 300)
    assert not [event for event in done.events if isinstance(event, UpstreamFailing | KeyRejected)]
    assert POLICY.max_attempts == 3
    assert done.lost == 0
