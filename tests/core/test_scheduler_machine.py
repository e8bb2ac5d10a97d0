"""The scheduler over virtual hours, against the naive model of work.py."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from apiflux_grpc.core.model import Counts, Key, Limit, Pool
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.work import HOUR, JITTER, MINUTE, Plan, Work

PATHS = ("/a/1", "/a/b/1", "/c/1", "/1")  # of calls; a pool without limits that have paths takes no notice
# -- strategies ----------------------------------------------------------------------------------

pers = st.sampled_from([100, 1_000_003, SECOND, 10 * SECOND, MINUTE, HOUR])
call_limits = st.builds(Limit, st.integers(1, 12), pers)
cost_limits = st.builds(Limit, st.integers(3, 30), pers, st.just(Counts.COST))
some_limits = st.lists(call_limits, min_size=1, max_size=3)
mixed_limits = st.lists(call_limits | cost_limits, min_size=1, max_size=3)
ceilings = st.none() | st.integers(1, 4)
moments = st.sampled_from(
    [0, 1, MILLISECOND, JITTER // 3, JITTER - 1, JITTER, JITTER + 1, SECOND, 9 * SECOND, 90 * SECOND]
)
stretches = st.sampled_from([1, MILLISECOND, JITTER, SECOND, 10 * SECOND, MINUTE, 10 * MINUTE, HOUR])
plans = st.builds(
    Plan,
    fate=st.sampled_from(["answer", "answer", "answer", "hang", "hang", "refused", "untold"]),
    delay=moments,
    latency=moments | st.sampled_from([MINUTE, HOUR]),
    body=st.sampled_from([0, 0, 0, MILLISECOND, SECOND]),
    lateness=st.sampled_from([3, 3, 0, 1, 2]),
    again=st.none() | moments,
)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    limits = draw(st.sampled_from([some_limits, mixed_limits]))
    keys = [
        Key(f"key-{place}", "secret", tuple(draw(limits)), draw(ceilings)) for place in range(draw(st.integers(1, 5)))
    ]
    jitter = draw(st.sampled_from([0, MILLISECOND, JITTER]))
    return Pool("pool", tuple(keys), jitter, max_connections=draw(st.sampled_from([1000, 1000, 3])))


def largest_cost(pool: Pool) -> int:
    """What the key that takes the largest call takes."""
    each = [[limit.max for limit in key.limits if limit.counts is Counts.COST] for key in pool.keys]
    return max(min(own, default=20) for own in each)


class SchedulerMachine(RuleBasedStateMachine):
    """Everything that may happen to a pool, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world: Work | None = None

    @property
    def at_work(self) -> Work:
        assert self.world is not None
        return self.world

    @initialize(
        pool=pools(),
        paced=st.booleans(),
        most=st.sampled_from([1 << 30, 1 << 30, 2]),
        slack=moments.filter(lambda at: at < SECOND),
    )
    def begin(self, pool: Pool, paced: bool, most: int, slack: int) -> None:
        by_cost = any(limit.counts is Counts.COST for key in pool.keys for limit in key.limits)
        self.world = Work(pool, paced=paced and not by_cost, most=most)
        self.world.slack = slack

    @precondition(lambda self: self.at_work.scheduler.waiting < 200)
    @rule(
        caller=st.sampled_from("abc"),
        total=st.integers(1, 60),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
        costs=st.none() | st.lists(st.integers(0, 100), min_size=1, max_size=4),
        room=st.sampled_from([1 << 30, 1 << 30, 5]),
        paths=st.lists(st.sampled_from(PATHS), min_size=1, max_size=6),
    )
    def add(self, caller: str, total: int, weight: float, costs: list[int] | None, room: int, paths: list[str]) -> None:
        world = self.at_work
        if costs is not None:
            largest = largest_cost(world.pool)
            around = cycle(1 + cost % largest for cost in costs)
            costs = [next(around) for _ in range(total)]
        world.add(caller, total, weight, costs, room, paths)

    @rule(upstream=st.lists(plans, min_size=1, max_size=5))
    def behave(self, upstream: list[Plan]) -> None:
        self.at_work.plans = cycle(upstream)

    @rule(length=stretches)
    def run_on(self, length: int) -> None:
        self.at_work.run(length)

    @rule(length=stretches)
    def ask_at_any_time(self, length: int) -> None:
        self.at_work.run(length)
        self.at_work.ask()

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99), cut=st.booleans())
    def cancel(self, which: int, cut: bool) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.cancel(batches[which % len(batches)], cut)

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99))
    def stop(self, which: int) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.stop(batches[which % len(batches)])

    @rule(which=st.integers(0, 4), length=stretches)
    def block(self, which: int, length: int) -> None:
        self.at_work.block(which % len(self.at_work.pool.keys), length)

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99), room=st.integers(1, 10))
    def give_room(self, which: int, room: int) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.give_room(batches[which % len(batches)], room)

    def teardown(self) -> None:
        if self.world is not None and not self.world.broken:
            self.world.drain()


TestSchedulerMachine: Any = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=100, stateful_step_count=30, print_blob=True)
TestSchedulerMachine.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
