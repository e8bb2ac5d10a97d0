"""Calls whose answer is worth another attempt, or that got none, on virtual time: when they are tried again.

Rule: the policy decides, and a wait that was told the call is kept; no other call waits with it.
"""

from __future__ import annotations

from collections import Counter

import pytest

from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Answer, Outcome, Reason, Unknown
from apiflux_grpc.core.units import SECOND
from tests.core.refusing import Arrival, Upstream, ok, pool_of, run, says, until


def once(status: int, **headers: str) -> Upstream:
    """Answers every call's first arrival so, and then well."""
    seen = Counter[tuple[int, int]]()
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(arrival: Arrival) -> Answer:
        seen[arrival.place, 0] += 1
        return says(arrival, status, named) if seen[arrival.place, 0] == 1 else ok(arrival)

    return answer


@pytest.mark.parametrize("status", [500, 503, 529])
def test_what_is_to_be_tried_again_waits_as_told(status: int) -> None:
    """Whatever the status; longer than max_backoff too, and others don't wait with it."""
    policy = RetryPolicy(max_backoff=SECOND)
    end = 4 * SECOND
    upstream = until(end, lambda one: says(one, status, {"retry-after": "4"}) if one.place < 3 else ok(one))
    done = run(pool_of(1), upstream, 10, policy=policy)
    assert done.lost == 0
    assert {result.attempts for result in done.results[:3]} == {2}
    assert all(result.ended_at < SECOND for result in done.results[3:])
    assert end <= done.took < 5 * SECOND


def test_a_wait_of_its_own_is_bounded_by_longest_wait_and_the_deadline() -> None:
    """Then its answer is the result, at once."""
    for settings_of, deadline in (({"longest_wait": 10 * SECOND}, None), ({}, 30 * SECOND)):
        done = run(pool_of(1, **settings_of), lambda one: says(one, 503, {"retry-after": "60"}), 1, deadline=deadline)
        (result,) = done.results
        assert (result.failure, result.attempts) == (Reason.HTTP_5XX, 1)


@pytest.mark.parametrize(("status", "of_posts"), [(408, Reason.HTTP_4XX), (425, None), (500, Reason.HTTP_5XX)])
def test_408_and_425_are_tried_again(status: int, of_posts: Reason | None) -> None:
    """408 if the call may run twice; 425, which was not executed, whatever the call."""
    done = run(pool_of(1), once(status), [Call(), Call(idempotent=False)])
    assert [result.failure for result in done.results] == [None, of_posts]


def test_no_answer_at_all_is_tried_again_only_if_it_may_run_twice() -> None:
    """The connection ended: nobody knows whether it was executed."""
    seen = Counter[int]()

    def upstream(arrival: Arrival) -> Outcome:
        seen[arrival.place] += 1
        return Unknown("reset") if seen[arrival.place] == 1 else ok(arrival)

    done = run(pool_of(1), upstream, [Call(), Call(idempotent=False)])
    assert [result.failure for result in done.results] == [None, Reason.UNKNOWN]
