"""Limits with paths over virtual hours, against the naive model of work.py; with batches that are fed.

Rule: no limit with paths is ever exceeded in any window, no class of calls is idle while a key could pay for one of its
calls, and calls that meet the same limits go in their order; whatever is stopped, retried, fed or blocked meanwhile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.test_scheduler_machine import (
    PATHS,
    SchedulerMachine,
    call_limits,
    ceilings,
    cost_limits,
    largest_cost,
    moments,
    pers,
)
from tests.core.work import JITTER, Flying, Gate, Work
from tests.core.world import meets

if TYPE_CHECKING:
    from apiflux_grpc.core.batch import Batch

scopes = st.sampled_from([("/a/",), ("/a/b/",), ("/a/", "/c/"), ("/c/",), ("/",)])
path_limits = st.builds(Limit, st.integers(1, 6), pers, paths=scopes)
path_cost_limits = st.builds(Limit, st.integers(3, 30), pers, st.just(Counts.COST), paths=scopes)
some_paths = st.lists(st.sampled_from(PATHS), min_size=1, max_size=6)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Most keys have limits with paths; not all, nor the same."""
    by_cost = draw(st.sampled_from([False, False, True]))
    plain = call_limits | cost_limits if by_cost else call_limits
    scoped = path_limits | path_cost_limits if by_cost else path_limits
    keys = []
    for place in range(draw(st.integers(1, 4))):
        limits = draw(st.lists(plain, max_size=2)) + draw(st.lists(scoped, max_size=3))
        keys.append(Key(f"key-{place}", "secret", tuple(limits), draw(ceilings)))
    jitter = draw(st.sampled_from([0, MILLISECOND, JITTER]))
    return Pool("pool", tuple(keys), jitter, max_connections=draw(st.sampled_from([1000, 1000, 3])))


class PathLimitsMachine(SchedulerMachine):
    """Everything that may happen to a pool whose limits have paths, in any order."""

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

    @property
    def streams(self) -> list[Batch]:
        """The batches that may be fed."""
        return [batch for batch in self.at_work.batches.values() if not batch.closed and batch.ending is None]

    @precondition(lambda self: len(self.streams) < 3)
    @rule(caller=st.sampled_from("abc"), weight=st.sampled_from([0.5, 1.0, 4.0]))
    def open_stream(self, caller: str, weight: float) -> None:
        self.at_work.open_stream(caller, weight)

    @precondition(lambda self: self.streams and self.at_work.scheduler.waiting < 200)
    @rule(which=st.integers(0, 99), paths=some_paths, total=st.integers(1, 30), cost=st.integers(0, 100))
    def feed(self, which: int, paths: list[str], total: int, cost: int) -> None:
        most = largest_cost(self.at_work.pool)
        paths = [paths[place % len(paths)] for place in range(total)]
        costs = [1 + (cost + place) % most for place in range(total)] if cost else [1] * total
        self.at_work.feed(self.streams[which % len(self.streams)], paths, costs)

    @precondition(lambda self: self.streams)
    @rule(which=st.integers(0, 99))
    def end_stream(self, which: int) -> None:
        self.at_work.end_stream(self.streams[which % len(self.streams)])

    def teardown(self) -> None:
        if self.world is not None and not self.world.broken:
            for batch in self.streams:
                self.world.end_stream(batch)
            self.world.drain()


TestPathLimitsMachine: Any = PathLimitsMachine.TestCase
TestPathLimitsMachine.settings = settings(max_examples=60, stateful_step_count=30, print_blob=True)
TestPathLimitsMachine.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine


class GroupWork(Work):
    """The same with groups. What a key could pay for isn't counted here: that calls come to an end is."""

    def __init__(self, pool: Pool, *, paced: bool = False, most: int = 1 << 30) -> None:
        super().__init__(pool, paced=paced, most=most)
        gates = [(group.keys, [Gate(limit) for limit in group.limits]) for group in pool.groups]
        self._shared = {label: its for labels, its in gates for label in labels}

    def _gates_of(self, flying: Flying) -> list[Gate]:
        permit = flying.permit
        shared = self._shared.get(permit.key.key.label, [])
        return super()._gates_of(flying) + [gate for gate in shared if meets(self._path_of(permit), gate.limit)]

    def _check_wake(self, wake_at: int | None) -> None:
        self._prune()
        waits = bool(self._may_go()) and sum(self._in_flight) < self.pool.max_connections
        self.expect(wake_at is not None or not waits or bool(self._flying), "nobody wakes those who wait")


class GroupPathLimitsMachine(PathLimitsMachine):
    """Groups whose limits have paths, beside keys whose limits have some."""

    @initialize(
        pool=pools(),
        members=st.integers(1, 3),
        shared=st.lists(path_limits, min_size=1, max_size=3),
        slack=moments.filter(lambda at: at < SECOND),
    )
    def begin(self, pool: Pool, members: int, shared: list[Limit], slack: int) -> None:
        labels = tuple(key.label for key in pool.keys[:members])
        grouped = replace(pool, groups=(Group(labels, tuple(shared)),))
        self.world = GroupWork(grouped)
        self.world.slack = slack


TestGroupPathLimitsMachine: Any = GroupPathLimitsMachine.TestCase
TestGroupPathLimitsMachine.settings = settings(max_examples=40, stateful_step_count=25, print_blob=True)
TestGroupPathLimitsMachine.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
