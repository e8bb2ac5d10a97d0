"""Limits of every kind over virtual hours: windows, buckets, groups, cuts, hints, breakers, costs that come out lower,
and limits that change while calls are on their way; against the naive model of arrivals.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from apiflux_grpc.core.model import Counts, Group, Key, Kind, Limit, Pool
from apiflux_grpc.core.units import MILLISECOND, SECOND
from tests.core.arrivals import COST, LARGEST, MINUTE, Plan, Work, door

# -- strategies ----------------------------------------------------------------------------------

pers = st.sampled_from([SECOND, 10 * SECOND, MINUTE])
call_windows = st.builds(Limit, st.integers(1, 12), pers, burst=st.none() | st.integers(1, 12))
call_windows = call_windows.map(lambda one: replace(one, burst=None if one.depth > one.max else one.burst))
call_buckets = st.builds(Limit, st.integers(1, 20), pers, kind=st.just(Kind.BUCKET), burst=st.integers(1, 10))
large_windows = st.builds(Limit, st.integers(LARGEST, 40), pers, st.just(Counts.COST))
cost_windows = st.builds(Limit, st.integers(3, 40), pers, st.just(Counts.COST), burst=st.none() | st.integers(3, 40))
cost_windows = cost_windows.map(lambda one: replace(one, burst=None if one.depth > one.max else one.burst))
cost_buckets = st.builds(
    Limit, st.integers(1, 20), pers, st.just(Counts.COST), st.just(Kind.BUCKET), st.integers(3, 30)
)
moments = st.sampled_from([0, 0, MILLISECOND, 100 * MILLISECOND, 250 * MILLISECOND, 251 * MILLISECOND, 2 * SECOND])
stretches = st.sampled_from([MILLISECOND, 250 * MILLISECOND, SECOND, 10 * SECOND, MINUTE, 10 * MINUTE])
hints = st.tuples(st.sampled_from(list(Counts)), st.integers(0, 10), st.sampled_from([SECOND, 20 * SECOND, MINUTE]))


def few(*kinds: st.SearchStrategy[Limit], least: int = 0) -> st.SearchStrategy[tuple[Limit, ...]]:
    return st.lists(st.one_of(*kinds), min_size=least, max_size=3, unique=True).map(tuple)


@dataclass(frozen=True)
class Kinds:
    """What one run draws from."""

    limits: st.SearchStrategy[tuple[Limit, ...]]
    by_cost: bool  # calls have costs
    corrected: bool  # and answers tell them
    fates: tuple[str, ...]
    changed: bool


def plans(kinds: Kinds) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        fate=st.sampled_from(kinds.fates),
        delay=moments,
        latency=moments | st.just(MINUTE),
        lateness=st.integers(0, 2),
        share=st.integers(0, 4) if kinds.corrected else st.just(4),
        again=st.none() | moments,
        told=st.none() | st.none() | hints,
    )


FATES: Final = ("answer", "answer", "answer", "hang", "refused", "rejected")
# What is done together in one run. The limits of a pool change where calls count for one each.
SOME: Final = (
    Kinds(few(call_windows, call_buckets), False, False, FATES, changed=False),
    Kinds(few(call_windows, least=1), False, False, FATES, changed=True),
    Kinds(few(call_windows, call_buckets), False, False, (*FATES, "429"), changed=False),
    Kinds(few(call_windows, call_buckets, large_windows), True, False, FATES, changed=False),
)
EVERYTHING: Final = Kinds(
    few(call_windows, call_buckets, cost_windows, cost_buckets), True, True, (*FATES, "429"), changed=True
)


class LimitsMachine(RuleBasedStateMachine):
    """Everything that may happen to a pool's limits, in any order."""

    choices: tuple[Kinds, ...] = SOME

    def __init__(self) -> None:
        super().__init__()
        self.world: Work | None = None

    @property
    def at_work(self) -> Work:
        assert self.world is not None
        return self.world

    @initialize(data=st.data(), slack=st.sampled_from([0, 0, 1, 300 * MILLISECOND]))
    def begin(self, data: st.DataObject, slack: int) -> None:
        self.kinds = kinds = data.draw(st.sampled_from(self.choices))
        ceilings = st.none() | st.integers(1, 4)
        keys = tuple(
            Key(f"key-{place}", "secret", data.draw(kinds.limits), data.draw(ceilings))
            for place in range(data.draw(st.integers(1, 4)))
        )
        members = tuple(key.label for key in keys if data.draw(st.booleans()))
        groups = (Group(members, data.draw(kinds.limits)),) if members else ()
        jitter = data.draw(st.sampled_from([0, MILLISECOND, 250 * MILLISECOND]))
        most = data.draw(st.sampled_from([1000, 1000, 3]))
        world = Work(Pool("pool", keys, jitter, max_connections=most, groups=groups, cost_from=COST))
        if door([owner.limits[0] for owner in world.owners], world) < LARGEST:  # one more key that takes them all
            extra = Key("key-9", "secret", tuple(data.draw(few(large_windows, least=1))))
            world = Work(Pool("pool", (*keys, extra), jitter, max_connections=most, groups=groups, cost_from=COST))
        world.slack = slack
        self.world = world

    @precondition(lambda self: self.at_work.scheduler.waiting < 120)
    @rule(
        caller=st.sampled_from("abc"),
        total=st.integers(1, 40),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
        costs=st.none() | st.lists(st.integers(0, LARGEST), min_size=1, max_size=4),
    )
    def add(self, caller: str, total: int, weight: float, costs: list[int] | None) -> None:
        if costs is not None:
            around = cycle(costs)
            costs = [next(around) for _ in range(total)] if self.kinds.by_cost else None
        self.at_work.add(caller, total, weight, costs)

    @rule(data=st.data())
    def behave(self, data: st.DataObject) -> None:
        upstream = data.draw(st.lists(plans(self.kinds), min_size=1, max_size=5))
        self.at_work.plans = cycle(upstream)

    @rule(length=stretches)
    def run_on(self, length: int) -> None:
        self.at_work.run(length)

    @rule(length=stretches)
    def ask_at_any_time(self, length: int) -> None:
        self.at_work.run(length)
        self.at_work.ask()

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.cancel(batches[which % len(batches)])

    @precondition(lambda self: self.at_work.batches)
    @rule(which=st.integers(0, 99))
    def stop(self, which: int) -> None:
        batches = list(self.at_work.batches.values())
        self.at_work.stop(batches[which % len(batches)])

    @precondition(lambda self: self.kinds.changed)
    @rule(which=st.integers(0, 3), data=st.data())
    def change(self, which: int, data: st.DataObject) -> None:
        self.at_work.change(which % len(self.at_work.pool.keys), data.draw(self.kinds.limits))

    def teardown(self) -> None:
        if self.world is not None and not self.world.broken:
            self.world.plans = cycle([Plan()])
            self.world.drain()


TestLimitsMachine: Any = LimitsMachine.TestCase
TestLimitsMachine.settings = settings(max_examples=120, stateful_step_count=25, print_blob=True)
TestLimitsMachine.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine


class Everything(LimitsMachine):
    """Changes, cuts, costs that come out lower, buckets and groups in one run."""

    choices = (EVERYTHING,)


TestEverything: Any = Everything.TestCase
TestEverything.settings = settings(max_examples=80, stateful_step_count=25, print_blob=True)
TestEverything.pytestmark = [pytest.mark.timeout(300)]  # examples of every length, on any machine
