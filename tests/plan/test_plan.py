"""A plan is right if the answer is known in closed form, and says what held calls back."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from apiflux_grpc.core.model import Group, Kind, Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.plan.draws import Draws
from apiflux_grpc.plan.page import charts_of
from apiflux_grpc.plan.plan import Plan, make_plan
from apiflux_grpc.plan.simulation import simulate
from apiflux_grpc.plan.work import Arrival
from tests.plan.asked import TEN_A_SECOND, question

TITLE: Final = "Sent within the longest window of each key"
KEPT: Final = 1.0001  # seconds that a slot of a one-second window is kept


def shares(plan: Plan) -> dict[str, float]:
    return {name: round(share, 2) for name, share in plan.held}


@pytest.mark.parametrize(
    ("latency", "charged"),
    [(0, 0), (100 * MILLISECOND, 100 * MILLISECOND), (500 * MILLISECOND, 250 * MILLISECOND)],
    ids=["at once", "below the margin", "above the margin"],
)
def test_makespan_of_one_window(latency: int, charged: int) -> None:
    """100 calls at 10/s take nine windows of T + min(latency, J), and the last call's latency."""
    plan = make_plan(question(TEN_A_SECOND, latency=(latency, latency)))
    expected = 9 * (KEPT * SECOND + charged) + latency
    assert expected <= plan.makespan <= expected + 10 * MILLISECOND  # timers are of whole milliseconds
    assert plan.capacity == pytest.approx(10 / (1 + charged / SECOND))
    assert plan.binding == "10 calls per 1s"
    assert sum(share for _, share in plan.held) == pytest.approx(1 - latency / plan.makespan)


def test_two_limits_bind_in_turn() -> None:
    """60 calls at 10/s and 30/10s: three seconds of the first, a wait for the second, and again."""
    plan = make_plan(question(TEN_A_SECOND, Limit(30, 10 * SECOND), sizes=(Arrival(60),)))
    assert plan.makespan == pytest.approx(12 * SECOND, rel=0.002)
    assert shares(plan) == {"30 calls per 10s": 0.67, "10 calls per 1s": 0.33}
    assert plan.keys[0].binding == "30 calls per 10s"
    assert [(each.most, each.max) for each in plan.keys[0].limits] == [(10, 10), (30, 30)]


def test_max_in_flight_binds() -> None:
    """50 calls of a second, five at a time, take ten seconds, whatever the window would allow."""
    plan = make_plan(question(Limit(1000, 60 * SECOND), most=5, sizes=(Arrival(50),), latency=(SECOND, SECOND)))
    assert plan.makespan == 10 * SECOND
    assert shares(plan) == {"5 in flight": 0.9}


def test_of_two_full_limits_the_one_that_opens_last_binds() -> None:
    """Both are full at once, but the window has room again long before a call ends."""
    plan = make_plan(question(TEN_A_SECOND, most=10, latency=(5 * SECOND, 5 * SECOND)))
    assert plan.makespan == 50 * SECOND
    assert shares(plan) == {"10 in flight": 0.9}


def test_connections_bind_all_keys() -> None:
    """The pool's connections hold back keys that have room, and one more key brings nothing."""
    plan = make_plan(
        question(Limit(1000, SECOND), keys=3, max_connections=10, latency=(100 * MILLISECOND, 100 * MILLISECOND))
    )
    assert plan.makespan == plan.more.ended == SECOND
    assert shares(plan) == {"10 connections": 0.9}


def test_bursts_bind() -> None:
    """A limit that lets one call pass at a time spaces calls although its window has room."""
    plan = make_plan(question(Limit(10, SECOND, burst=1), sizes=(Arrival(8),)))
    assert plan.makespan == pytest.approx(700 * MILLISECOND, rel=0.02)
    assert plan.binding == "bursts of 1 at 10 calls per 1s"


def test_a_bucket_binds() -> None:
    """A bucket and a window: its depth less what flows in during the margin, then its rate."""
    bucket = Limit(10, SECOND, kind=Kind.BUCKET, burst=5)
    plan = make_plan(question(Limit(1000, 60 * SECOND), bucket, sizes=(Arrival(50),)))
    assert plan.makespan == pytest.approx(4.75 * SECOND, rel=0.02)
    assert plan.capacity == pytest.approx(10)
    assert plan.binding == "bursts of 5 at 10 calls per 1s"
    assert [each.max for each in plan.keys[0].limits] == [1000]


def test_a_limit_of_a_group_binds() -> None:
    """Two keys of 10/s share 10/s, a third is alone: 20/s in all, and the group's own limit is what holds its keys."""
    asked = question(TEN_A_SECOND, keys=3)
    pool = replace(asked.pool, groups=(Group(("key-0", "key-1"), (TEN_A_SECOND,)),))
    plan = make_plan(replace(asked, pool=pool))
    assert plan.makespan == pytest.approx(4 * SECOND, rel=0.002)
    assert plan.capacity == pytest.approx(20)
    assert [key.binding for key in plan.keys] == ["10 calls per 1s of a group"] * 2 + ["10 calls per 1s"]


def test_a_small_batch_behind_a_large_one_gets_its_share() -> None:
    """10 calls that arrive behind 2,000 are done with the next window, of which half is theirs."""
    arrivals = (Arrival(2000), Arrival(10, 5 * SECOND))
    run = simulate(question(Limit(100, SECOND), sizes=arrivals, latency=(50 * MILLISECOND, 50 * MILLISECOND)))
    large, small = run.batches
    assert small.last - small.at <= 1.2 * SECOND
    assert large.last == run.ended > 20 * SECOND


def test_what_one_more_key_brings() -> None:
    """The same work with one more key like the last: ten windows become five."""
    plan = make_plan(question(TEN_A_SECOND))
    assert plan.makespan == pytest.approx(9 * SECOND, rel=0.002)
    assert plan.more.ended == pytest.approx(4 * SECOND, rel=0.002)


def test_work_below_the_limits_waits_for_nothing() -> None:
    """Calls that find room at once are held back by nothing; without any time there is no rate."""
    plan = make_plan(question(Limit(1000, SECOND), latency=(30 * MILLISECOND, 30 * MILLISECOND)))
    assert (plan.makespan, plan.held, plan.keys[0].binding) == (30 * MILLISECOND, (), "")
    plan = make_plan(question(Limit(1000, SECOND)))
    assert (plan.makespan, plan.rate, plan.use) == (0, None, None)
    assert [chart.title for chart in charts_of(plan)] == ["Calls a second", TITLE, "Results"]


def test_what_the_upstream_answers_holds_back() -> None:
    """While a key waits after a 429, was rejected, or the upstream fails, that is named, and the shares stay shares."""
    limited = make_plan(question(Limit(1000, SECOND), latency=(20 * MILLISECOND,) * 2, limited=0.05))
    assert limited.binding == "429s"
    assert limited.run.cuts == 1
    rejected = make_plan(question(TEN_A_SECOND, keys=3, sizes=(Arrival(200),), rejected=["key-1"]))
    assert [key.binding for key in rejected.keys] == ["10 calls per 1s", "rejected", "10 calls per 1s"]
    assert rejected.capacity == pytest.approx(20)
    failing = make_plan(question(Limit(1000, SECOND), latency=(20 * MILLISECOND,) * 2, fail=1))
    assert failing.binding == "failing upstream"
    assert failing.failed == {"NO_USABLE_KEY": 100}
    for plan in (limited, rejected, failing):
        assert 0.9 < sum(share for _, share in plan.held) <= 1.0001


def test_calls_that_wait_for_their_next_attempt_hold_no_key_back() -> None:
    """One call that fails once: the wait before its retry is named."""
    wanted = [500, 200]
    draws = (Draws(fail=0.5, seed=seed) for seed in range(99))
    seed = next(one.seed for one in draws if [one.send(0, number, "").status for number in (1, 2)] == wanted)
    plan = make_plan(question(TEN_A_SECOND, sizes=(Arrival(1),), fail=0.5, seed=seed))
    assert shares(plan) == {"pauses before retries": 1.0}
    assert (plan.attempts, plan.failed, plan.keys[0].binding) == (2, {}, "pauses before retries")


def test_keys_without_limits() -> None:
    """They have no capacity to compare with."""
    plan = make_plan(question(latency=(SECOND, SECOND)))
    assert (plan.makespan, plan.capacity, plan.use, plan.keys[0].use) == (SECOND, None, None, None)


def test_every_call_counts_and_no_window_is_exceeded() -> None:
    """Random latencies around the margin: every call is made once, and no key is above a limit."""
    arrivals = tuple(Arrival(37, place * SECOND // 3) for place in range(20))
    asked = question(TEN_A_SECOND, Limit(40, 7 * SECOND), keys=3, sizes=arrivals, latency=(0, 400 * MILLISECOND))
    plan = make_plan(asked)
    assert sum(key.calls for key in plan.keys) == plan.calls == 740
    assert all(batch.done == batch.size and batch.at <= batch.first <= batch.last for batch in plan.run.batches)
    assert all(each.most <= each.max for key in plan.keys for each in key.limits)
    assert 0.97 < sum(share for _, share in plan.held) <= 1
    assert make_plan(asked).to_json() == plan.to_json()
