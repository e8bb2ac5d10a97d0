"""Limits with paths: they count the calls that meet them, and hold back no others."""

from __future__ import annotations

from collections import Counter

import pytest

from apiflux_grpc.core.batch import Again, Batch
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.model import Group, Key, Limit, Pool
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import SECOND
from tests.core.building import COST, KEPT, answer, pool_of

SEARCH = ("/search/",)
MAIN, NARROW = Limit(100, SECOND), Limit(3, SECOND, paths=SEARCH)


def batch_to(*paths: str, id: int = 1, caller: str = "a", costs: list[int] | None = None) -> Batch:
    calls = [Call(path=path) for path in paths]
    return Batch(id, caller, len(calls), admitted_at=0, calls=calls, costs=costs)


def scheduler_of(*limits: Limit, keys: int = 1, most: int | None = None) -> Scheduler:
    return Scheduler(pool_of(*[limits] * keys, most=most), None)


def places(scheduler: Scheduler, now: int = 0) -> list[int]:
    """Where in their batch the calls stand that go out now."""
    permits, _ = scheduler.assign(now)
    for permit in permits:
        answer(scheduler, permit, now)
    return [permit.place for permit in permits]


def next_pass(scheduler: Scheduler) -> int:
    assert scheduler.wake_at is not None
    return scheduler.wake_at


def test_an_endpoint_whose_limit_is_used_up_holds_back_no_other_call() -> None:
    """Of ten searches three go, and all that stand behind them."""
    scheduler = scheduler_of(MAIN, NARROW)
    scheduler.add(batch_to(*["/search/x"] * 10, *["/other"] * 20))
    assert places(scheduler) == [0, 1, 2, *range(10, 30)]
    assert places(scheduler, KEPT - 1) == []
    assert places(scheduler, KEPT) == [3, 4, 5]


def test_a_search_counts_for_the_limit_of_all_calls_too() -> None:
    """Both pay from the limit without paths."""
    scheduler = scheduler_of(Limit(5, SECOND), NARROW)
    scheduler.add(batch_to(*["/search/x", "/other"] * 10))
    assert places(scheduler) == [0, 1, 2, 3, 4]
    assert scheduler.assign(0) == ([], KEPT)


@pytest.mark.parametrize("path", ["/search/x", "search/x", "/%73earch/x", "/search%2Fx", "/search/"])
def test_a_path_is_compared_as_the_upstream_reads_it(path: str) -> None:
    """Decoded, and with a slash in front."""
    scheduler = scheduler_of(MAIN, NARROW)
    scheduler.add(batch_to(*[path] * 9))
    assert len(places(scheduler)) == 3


@pytest.mark.parametrize("path", ["/searching", "/", "/v1/search/x", "/Search/x", "/search"])
def test_other_paths_are_not_counted(path: str) -> None:
    """A path counts if it begins with one of the limit's."""
    scheduler = scheduler_of(MAIN, NARROW)
    scheduler.add(batch_to(*[path] * 9))
    assert len(places(scheduler)) == 9


def test_a_path_may_meet_several_limits() -> None:
    """A narrower prefix within a wider one pays from both."""
    scheduler = scheduler_of(MAIN, Limit(8, SECOND, paths=("/v1/",)), Limit(2, SECOND, paths=("/v1/chat/", "/old/")))
    scheduler.add(batch_to(*["/v1/chat/x"] * 5, *["/v1/list"] * 9, *["/old/x"] * 5, *["/new/x"] * 5))
    assert places(scheduler) == [0, 1, *range(5, 11), *range(19, 24)]


def test_a_batch_gets_its_share_of_the_pool_whatever_its_calls_meet() -> None:
    """Searches are a tenth of the pool, so a search counts ten: who only searches gets all that are left by another
    caller who is owed as much and makes other calls too."""
    scheduler = scheduler_of(Limit(100, SECOND), Limit(10, SECOND, paths=SEARCH))
    scheduler.add(batch_to(*["/search/x"] * 100, caller="searcher"))
    scheduler.add(batch_to(*["/search/x", *["/other"] * 9] * 100, id=2, caller="mixed"))
    spent = Counter[tuple[str, bool]]()
    now = 0
    for _ in range(10):
        permits, _ = scheduler.assign(now)
        for permit in permits:
            answer(scheduler, permit, now)
            spent[permit.batch.caller, permit.path_class == 1] += 1
        now = next_pass(scheduler)
    assert spent["searcher", True] + spent["mixed", True] == 100
    assert sum(spent.values()) == 1000


def test_nothing_is_banked_while_a_class_is_closed() -> None:
    """Who only waited for searches gets half of them when they are back, beside one who made other calls meanwhile."""
    scheduler = scheduler_of(Limit(100, SECOND), Limit(20, 60 * SECOND, paths=SEARCH))
    scheduler.add(batch_to(*["/search/x"] * 500, caller="waiting"))
    scheduler.add(batch_to(*["/search/x"] * 500, *["/other"] * 9000, id=2, caller="busy"))
    now, searches = 0, list[str]()
    while len(searches) < 40:
        permits, _ = scheduler.assign(now)
        for permit in permits:
            answer(scheduler, permit, now)
        searches += [permit.batch.caller for permit in permits if permit.path_class]
        now = next_pass(scheduler)
    assert now > 60 * SECOND
    assert abs(searches[20:].count("waiting") - 10) <= 2


def test_a_stopped_batch_hands_back_what_waits_in_every_lane() -> None:
    """Retries that are due, and the calls that were never attempted in their order."""
    scheduler = scheduler_of(MAIN, NARROW, most=6)
    batch = batch_to(*["/search/x", "/other"] * 8)
    scheduler.add(batch)
    permits, _ = scheduler.assign(0)
    assert [permit.place for permit in permits] == [0, 1, 2, 3, 4, 5]
    for permit in permits[:2]:
        answer(scheduler, permit, 0)
        scheduler.retry(batch, Again(permit.place, 2, 0, path_class=permit.path_class), permit.place)
    scheduler.advance(0)
    assert batch.waiting == scheduler.waiting == 12
    again, unstarted = scheduler.drop(batch)
    assert sorted(one.place for one in again) == [0, 1]
    assert [*unstarted] == [*range(6, 16)]
    assert batch.waiting == scheduler.waiting == 0


def test_a_retry_waits_for_its_own_class() -> None:
    """A search that is due again holds back no other call, and goes before searches that were never tried."""
    scheduler = scheduler_of(MAIN, NARROW)
    batch = batch_to(*["/search/x"] * 5, *["/other"] * 2)
    scheduler.add(batch)
    permits, _ = scheduler.assign(0, 3)
    for permit in permits:
        answer(scheduler, permit, 0)
    scheduler.retry(batch, Again(1, 2, 0, path_class=1), 5)
    assert places(scheduler, 5) == [5, 6]
    assert places(scheduler, KEPT) == [1, 3, 4]


@pytest.mark.parametrize("members", [("key-0", "key-1"), ("key-0",)])
def test_a_group_may_have_limits_with_paths(members: tuple[str, ...]) -> None:
    """Its members share them; other keys, and other calls, don't."""
    keys = tuple(Key(f"key-{place}", "secret", (Limit(10, SECOND),)) for place in range(3))
    group = Group(members, (Limit(15, SECOND), Limit(4, SECOND, paths=SEARCH)))
    scheduler = Scheduler(Pool("default", keys, 0, groups=(group,)), None)
    scheduler.add(batch_to(*["/search/x"] * 50, *["/other"] * 50))
    permits, _ = scheduler.assign(0)
    in_group = [permit for permit in permits if permit.key.key.label in members]
    assert sum(permit.path_class for permit in in_group) <= 4
    assert len(in_group) == min(15, 10 * len(members))
    assert len(permits) == len(in_group) + 10 * (3 - len(members))


def test_a_large_cost_for_one_endpoint_keeps_no_other_from_a_place() -> None:
    """Each class has a reservation of its own: large calls of both go among small ones."""
    scheduler = scheduler_of(Limit(100, SECOND, COST), Limit(50, 60 * SECOND, COST, paths=SEARCH))
    scheduler.add(batch_to(*["/search/x"] * 3, costs=[45] * 3, caller="searcher"))
    scheduler.add(batch_to(*["/other"] * 500, id=2, caller="small", costs=[3] * 500))
    scheduler.add(batch_to(*["/other"] * 3, id=3, caller="large", costs=[90] * 3))
    now, large = 0, 0
    while large < 3:
        permits, _ = scheduler.assign(now)
        for permit in permits:
            answer(scheduler, permit, now)
            large += permit.batch.caller == "large"
        now = next_pass(scheduler)
    assert now < 20 * SECOND


def test_a_change_of_limits_keeps_what_was_spent_of_each() -> None:
    """And a limit whose paths the pool doesn't tell apart is refused."""
    scheduler = scheduler_of(MAIN, NARROW)
    scheduler.add(batch_to(*["/search/x"] * 20, *["/other"] * 2))
    assert places(scheduler) == [0, 1, 2, 20, 21]
    scheduler.change_limits(0, (MAIN, Limit(5, SECOND, paths=SEARCH)), 1)
    assert places(scheduler, 1) == [3, 4]
    with pytest.raises(ValueError, match="/else/"):
        scheduler.change_limits(0, (Limit(5, SECOND, paths=("/else/",)),), 2)


@pytest.mark.parametrize(("searches", "deadline", "feasible"), [(9, 2, False), (9, 3, True), (3, 1, True)])
def test_a_deadline_counts_the_limits_with_paths(searches: int, deadline: int, feasible: bool) -> None:
    """A batch whose searches alone take longer is refused at once, and no batch that could be in time."""
    dispatcher = Dispatcher(pool_of((MAIN, NARROW)), None)
    batch = batch_to(*["/search/x"] * searches, *["/other"] * 20)
    batch.deadline = deadline * SECOND
    dispatcher.submit(batch, 0)
    assert (batch.ending is None) == feasible


def test_the_forecast_of_a_class_counts_each_key_and_its_group() -> None:
    """Two keys of 3 searches a second each, in a group of 4."""
    keys = tuple(Key(f"key-{place}", "secret", (MAIN, NARROW)) for place in range(2))
    shared = Group(("key-0", "key-1"), (Limit(4, SECOND, paths=SEARCH),))
    for groups, within_a_second in (((), 6), ((shared,), 4)):
        dispatcher = Dispatcher(Pool("default", keys, 0, groups=groups), None)
        forecast = dispatcher.forecast(0, met=dispatcher.scheduler.classes.scopes(1))
        assert forecast.permits_by(SECOND) == within_a_second
        assert dispatcher.forecast(0).permits_by(SECOND) == 200
