"""What a bucket of cost gives back: all that is free at the upstream, and no more."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.bucket import Bucket
from apiflux_grpc.core.lows import MOST, Lows
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import BUCKET, COST

RATE, DEPTH = 10, 30  # cost per second, and at once
LIMIT = Limit(RATE, SECOND, COST, BUCKET, DEPTH)


def level_of(calls: list[tuple[int, float]], now: int) -> float:
    """Of a token bucket that such calls (at, cost) were taken from."""
    level, last = 0.0, 0
    for at, cost in calls:
        level = max(0.0, level - (at - last) * RATE / SECOND) + cost
        last = at
    return max(0.0, level - (now - last) * RATE / SECOND)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2 * SECOND),  # until something happens
        st.integers(1, DEPTH),  # a call that declares so much
        st.floats(0, 1.5),  # and takes this share of it
        st.integers(0, 8 * SECOND),  # which is known so much later
        st.integers(0, SECOND),  # by an answer that had come so long before
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, print_blob=True)
@given(STEPS)
def test_a_bucket_never_holds_less_than_the_upstreams(steps: list[tuple[int, int, float, int, int]]) -> None:
    """Whatever calls declared and took, in any order of answers: the upstream's, by what is known, is no fuller."""
    one = Bucket(LIMIT, 0, FakePacer)
    calls: list[tuple[int, float]] = []
    owed: list[tuple[int, int, float, int]] = []  # (when it is known, which call, more than declared, answered before)
    now = 0
    for wait, cost, share, later, before in steps:
        end = now + wait
        for at, place, more, ago in sorted(owed):
            if at <= end:
                one.owe(more, max(calls[place][0], at - ago), calls[place][0])
                calls[place] = (calls[place][0], calls[place][1] + more)
                assert one.level(at) >= level_of(calls, at) - 1e-6
        owed = [each for each in owed if each[0] > end]
        now = end
        if one.ready_at(cost, now) == now:
            one.take(cost)
            calls.append((now, cost))
            owed.append((now + later, len(calls) - 1, cost * (share - 1), before))
        assert one.level(now) >= level_of(calls, now) - 1e-6


def test_what_leaked_away_before_an_answer_was_looked_at_is_not_given_back() -> None:
    """Others may have used that room by then, however early the answer came."""
    one = Bucket(LIMIT, 0, FakePacer)
    for now, cost in ((0, 10), (SECOND, 20)):
        assert one.ready_at(cost, now) == now
        one.take(cost)
    one.owe(-10, SECOND // 5, 0)
    assert one.level(SECOND) == 20


@pytest.mark.parametrize(("latency", "least"), [(SECOND // 10, 900), (SECOND, 290), (5 * SECOND, 130)])
def test_a_bucket_is_used_at_what_calls_really_take(latency: int, least: int) -> None:
    """Calls declare 10 and take 1: at once known, nearly as many go in 100 s as have room; what they declare is held
    until their answers, so fewer the later these come. By what they declare it would be 103."""
    one = Bucket(LIMIT, 0, FakePacer)
    unanswered: deque[int] = deque()
    now = taken = 0
    while now < 100 * SECOND:
        while unanswered and unanswered[0] + latency <= now:
            one.owe(-9, now, unanswered.popleft())
        if one.ready_at(10, now) == now:
            one.take(10)
            unanswered.append(now)
            taken += 1
        else:
            now += SECOND // 100
    assert taken >= least


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), min_size=1, max_size=60), st.integers(0, 300))
def test_the_lowest_level_since(notes: list[tuple[int, int]], since: int) -> None:
    """As a look at all of them finds it, those of `since` itself left out."""
    lows, at = Lows(), 0
    all_of_them = []
    for wait, level in notes:
        at += wait
        lows.note(level, at)
        all_of_them.append((at, level))
    assert lows.least(since, 45) == min([45, *(level for at, level in all_of_them if at > since)])
    lows.lower(3)
    assert lows.least(since, 45) == min([45, *(level - 3 for at, level in all_of_them if at > since)])


def test_lows_are_bounded_and_never_too_high() -> None:
    """Of a level that rises with every call neighbours are put together, to the lower of the two."""
    lows = Lows()
    merges = 0
    for place in range(10 * MOST):
        before = lows.size
        lows.note(place, place)
        if lows.size < before:
            merges += 1
            assert all(lows.least(since, 1e9) <= since + 1 for since in range(place))
    assert merges > 10
    assert lows.size <= MOST
    for since in range(0, 10 * MOST, 7):
        least = lows.least(since, 1e9)
        assert since + 1 - 10 * MOST < least <= since + 1
    assert lows.least(10 * MOST - 2, 1e9) == 10 * MOST - 1
