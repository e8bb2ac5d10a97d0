"""Each limit says when it binds: its share of the time, and from when to when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core.model import Counts, Group, Kind, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.plan.figures import limit_rows
from apiflux_grpc.plan.held import united
from apiflux_grpc.plan.load import Load
from apiflux_grpc.plan.page import charts_of
from apiflux_grpc.plan.plan import Plan, make_plan
from apiflux_grpc.plan.work import Arrival
from tests.plan.asked import TEN_A_SECOND, question

SEARCHES = Limit(1, SECOND, paths=("/search",))


def told(plan: Plan) -> dict[str, tuple[float, list[tuple[float, float]]]]:
    """(share, spans in seconds) of each limit."""
    return {
        limit.name: (
            round(limit.share, 2),
            [(round(since / SECOND, 1), round(until / SECOND, 1)) for since, until in limit.spans],
        )
        for limit in plan.limits
    }


def test_limits_that_bind_in_turn_say_when() -> None:
    """60 calls at 10/s and 30/10s: the first for three seconds, the second until ten, and the first again."""
    plan = make_plan(question(TEN_A_SECOND, Limit(30, 10 * SECOND), sizes=(Arrival(60),)))
    assert told(plan) == {
        "30 calls per 10s": (0.67, [(2.0, 10.0)]),
        "10 calls per 1s": (0.33, [(0.0, 2.0), (10.0, 12.0)]),
    }
    assert [limit.most for limit in plan.limits] == [30, 10]


def test_a_limit_of_cost_binds_by_what_calls_cost() -> None:
    """1,000 a second and calls of 300: three fit, the fourth waits for it although 100 are left."""
    limit = Limit(1000, SECOND, Counts.COST)
    asked = question(limit, Limit(3, SECOND // 10), sizes=(Arrival(30, load=Load([300] * 30)),))
    plan = make_plan(asked)
    assert plan.makespan == pytest.approx(9 * SECOND, rel=0.002)
    assert told(plan) == {"1000 cost per 1s": (1.0, [(0.0, 9.0)]), "3 calls per 100ms": (0.0, [])}
    assert [(one.most, one.limit.max) for one in plan.limits] == [(900, 1000), (3, 3)]
    assert [(one.most, one.max) for one in plan.keys[0].limits] == [(900, 1000), (3, 3)]
    window = next(chart for chart in charts_of(plan) if chart.title.startswith("Sent within the longest window"))
    assert max(y for _, y in window.series[0].points) == 90  # per cent of the cost
    assert plan.capacity == pytest.approx(3)
    assert plan.costs == (300, 300, 9000)
    mixed = make_plan(replace(asked, arrivals=(Arrival(30, load=Load([100, 500, 300] * 10)),)))
    assert mixed.capacity == pytest.approx(1000 / 300)  # of calls as they are mixed


def test_calls_of_a_limit_with_paths_wait_while_the_key_goes_on() -> None:
    """Ten searches at one a second take nine seconds; what the key does meanwhile is bound by its own limit."""
    load = Load(None, bytes([1]) * 10 + bytes(45))
    plan = make_plan(question(TEN_A_SECOND, SEARCHES, sizes=(Arrival(55, load=load),)))
    assert plan.makespan == pytest.approx(9 * SECOND, rel=0.002)
    limits = told(plan)
    assert limits["1 calls per 1s for /search"] == (1.0, [(0.0, 9.0)])
    assert limits["10 calls per 1s"] == (0.56, [(0.0, 5.0)])
    assert plan.capacity == pytest.approx(5.5)  # one search a second is 55 calls in ten
    assert sum(share for _, share in plan.held) == pytest.approx(1, abs=0.01)
    none = make_plan(question(TEN_A_SECOND, SEARCHES, sizes=(Arrival(55, load=Load(None, bytes(55))),)))
    assert told(none)["1 calls per 1s for /search"] == (0.0, [])
    assert none.capacity == pytest.approx(10)


def test_a_limit_of_a_group_is_told_once() -> None:
    """It holds back its two keys, and the third is held back by its own."""
    asked = question(TEN_A_SECOND, keys=3)
    pool = replace(asked.pool, groups=(Group(("key-0", "key-1"), (TEN_A_SECOND,)),))
    plan = make_plan(replace(asked, pool=pool))
    rows = {limit.name: (limit.keys, limit.most, round(limit.share, 1)) for limit in plan.limits}
    assert rows == {"10 calls per 1s of a group": (2, 10, 1.0), "10 calls per 1s": (3, 10, 0.3)}


def test_a_bucket_is_told_by_its_bursts() -> None:
    """It has no window that could be full."""
    bucket = Limit(10, SECOND, kind=Kind.BUCKET, burst=5)
    plan = make_plan(question(bucket, sizes=(Arrival(50),)))
    (limit,) = plan.limits
    assert (limit.most, limit.share > 0.9, plan.binding) == (None, True, "bursts of 5 at 10 calls per 1s")


def test_rows_for_people() -> None:
    """A limit that never binds says so; of many spans the first ones are told, and when the last one ends."""
    arrivals = tuple(Arrival(20, place * 20 * SECOND) for place in range(6))
    plan = make_plan(question(TEN_A_SECOND, Limit(1000, 60 * SECOND), sizes=arrivals))
    bound, never = limit_rows(plan)
    assert bound[:4] == ("10 calls per 1s", "1", "10 of 10", f"{plan.limits[0].share:.1%}")
    assert bound[4].splitlines() == ["0 s - 1 s", "20 s - 21 s", "40 s - 41 s", "and 3 times until 101 s"]
    assert never == ("1000 calls per 60s", "1", "60 of 1,000", "never", "-")
    assert plan.limits[0].to_json()["spans_seconds"][0] == pytest.approx([0, 1], abs=0.01)


def test_spans_that_are_close_are_one() -> None:
    """In whatever order they come; one within another changes nothing."""
    assert united([(50, 60), (0, 10), (12, 20), (14, 16)], 5) == ((0, 20), (50, 60))
    assert united([], 5) == ()
    assert united([(0, 9)], 0) == ((0, 9),)
