"""Limits with paths: they count the calls that meet them, and hold back no others."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import SECOND
from tests.core.building import KEPT, answer, pool_of

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
