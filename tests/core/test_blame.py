"""Whose limit a refusal is of: who is blocked, and which limit is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from apiflux_grpc.core.blame import blamed, cut
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.events import KeyBlocked, LimitCut
from apiflux_grpc.core.held import Cause
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.keys import GroupState, KeyState
from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.scheduler import Scheduler
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.building import BUCKET, COST, MINUTE, batch_of, budget_of, permit_of, take
from tests.core.desk import Desk
from tests.core.refusing import LATENCY, Arrival, ok, pool_of, run, says
from tests.core.test_path_limits import batch_to

CALLS: Final = Counts.CALLS
SEARCH: Final = ("/search/",)
OWN: Final = Limit(1000, 10 * SECOND)
NARROW: Final = Limit(30, 10 * SECOND, paths=SEARCH)
SHARED: Final = Limit(500, MINUTE)
SHARED_NARROW: Final = Limit(40, MINUTE, paths=SEARCH)


def hint(remaining: int = 0, *, most: int | None = None, per: int | None = None, counts: Counts | None = None) -> Hint:
    return Hint(remaining, None, most, per, counts)


def permit_for(path: str) -> Permit:
    """Of a key with limits of each kind."""
    key, group = Key("key-0", "secret", (OWN, NARROW)), Group(("key-0",), (SHARED, SHARED_NARROW))
    scheduler = Scheduler(Pool("pool", (key,), 0, groups=(group,)), None)
    scheduler.add(batch_to(path))
    (permit,) = scheduler.assign(0)[0]
    return permit


def named(owner: KeyState | GroupState) -> str:
    if isinstance(owner, KeyState):
        return "key"
    return ("group" if owner.budget.limits[0].per == MINUTE else "key") + "".join(owner.paths)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], ["key"]),
        ([hint(most=30)], ["key/search/"]),
        ([hint(most=30, per=10 * SECOND)], ["key/search/"]),
        ([hint(most=1000)], ["key"]),
        ([hint(most=500, per=MINUTE)], ["group"]),
        ([hint(most=40)], ["group/search/"]),
        ([hint(most=30), hint(most=40)], ["key/search/", "group/search/"]),
        ([hint(most=30), hint(most=1000)], ["key/search/", "key"]),
        ([hint(5, most=30), hint(most=500)], ["group"]),  # five are left of the first
        ([hint(5, most=30)], ["key"]),
        ([hint(per=10 * SECOND)], ["key"]),  # one of two: nobody knows which
        ([hint(most=30), hint(most=7)], ["key/search/", "key"]),  # the second isn't configured
    ],
)
def test_who_is_blocked_for_a_refusal(told: list[Hint], expected: list[str]) -> None:
    """Who has the limit of which the hints say that nothing is left; else the key."""
    assert list(map(named, blamed(permit_for("/search/x"), told))) == expected


def test_a_call_is_never_refused_for_a_limit_that_it_does_not_meet() -> None:
    """What is told of another endpoint's limit with the answer of this one is the key's."""
    assert list(map(named, blamed(permit_for("/other"), [hint(most=30)]))) == ["key"]


def test_a_limit_of_cost_is_used_up_where_less_is_left_than_the_call_costs() -> None:
    """Ten are left, and the call costs fifty."""
    group = Group(("key-0",), (Limit(100, MINUTE, COST),))
    scheduler = Scheduler(Pool("pool", (Key("key-0", "secret", (OWN,)),), 0, groups=(group,)), None)
    scheduler.add(batch_of(1, costs=[50]))
    (permit,) = scheduler.assign(0)[0]
    assert blamed(permit, [hint(10, most=100, counts=COST)]) == (scheduler.groups[0],)
    assert blamed(permit, [hint(60, most=100, counts=COST)]) == (scheduler.keys[0],)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], Limit(10, SECOND)),  # the tightest: nine tenths are used
        ([hint(counts=CALLS)], Limit(10, SECOND)),
        ([hint(counts=CALLS, per=60 * SECOND)], Limit(100, 60 * SECOND)),
        ([hint(9, counts=CALLS, per=60 * SECOND)], Limit(10, SECOND)),  # some are left
        ([hint(counts=COST)], Limit(30, SECOND, COST)),
        ([hint(counts=COST, per=7)], Limit(10, SECOND)),  # no such limit
    ],
)
def test_a_cut_is_of_the_limit_that_is_named_else_of_the_tightest(told: list[Hint], expected: Limit) -> None:
    """A refusal that names its limit cuts that one alone."""
    budget = budget_of(Limit(10, SECOND), Limit(100, 60 * SECOND), Limit(30, SECOND, COST))
    for _ in range(9):
        permit = take(budget)
    assert cut(permit, told, 0) == expected
    assert cut(permit, told, 1) is None
    everything = (*budget.windows, *budget.cost_windows)
    assert [window.max < window.nominal for window in everything] == [limit == expected for limit in budget.limits]


def test_of_a_window_and_a_bucket_the_tighter_is_cut() -> None:
    """Kinds of limits are compared by their free share."""
    window, other = Limit(100, SECOND), Limit(10, SECOND, kind=BUCKET)
    assert cut(take(Budget((window, other), 0, FakePacer)), (), 0) == other
    assert cut(permit_of(budget_of()), (), 0) is None


@pytest.mark.parametrize(
    ("path", "told", "expected"),
    [
        ("/search/x", [], NARROW),  # one of 30, of 40, of 500 and of 1000
        ("/search/x", [hint(most=500)], SHARED),
        ("/other", [], SHARED),
        ("/other", [hint(most=1000)], OWN),
    ],
)
def test_a_cut_is_of_any_limit_that_the_call_met(path: str, told: list[Hint], expected: Limit) -> None:
    """Its key's, its group's, those with its path."""
    assert cut(permit_for(path), told, 0) == expected


# -- what becomes of it ----------------------------------------------------------------------------

A_SECOND: Final = Limit(30, SECOND, paths=SEARCH)
NOTHING_LEFT: Final = {"ratelimit-policy": '"search";q=30;w=1', "ratelimit": '"search";r=0'}


def refuses(searches: int, until: int, headers: dict[str, str]) -> Callable[[Arrival], Answer]:
    """An upstream that refuses the first so many calls of a batch before an instant."""
    return lambda one: says(one, 429, headers) if one.place < searches and one.at < until else ok(one)


def calls_of(searches: int, others: int) -> list[Call]:
    return [Call(path="/search/x")] * searches + [Call(path="/other")] * others


def test_a_used_up_endpoint_holds_back_no_other_call() -> None:
    """Its refusals name its limit: searches wait as long as told, and all else goes on."""
    headers = NOTHING_LEFT | {"retry-after": "5"}
    done = run(pool_of(1, Limit(100, SECOND), A_SECOND), refuses(3, 4 * SECOND, headers), calls_of(3, 300))
    assert done.lost == 0
    assert 5 * SECOND <= done.took < 6 * SECOND
    assert max(arrival.at for arrival in done.arrivals if arrival.place >= 3) < 4 * SECOND
    assert len(done.arrivals) == 306
    (event,) = [event for event in done.events if isinstance(event, KeyBlocked)]
    assert (event.paths, event.group, event.wait) == (SEARCH, (), 5 * SECOND)


def test_a_search_goes_to_another_key_first() -> None:
    """Only the first key's searches are used up, and it goes on with all else."""

    def upstream(arrival: Arrival) -> Answer:
        headers = NOTHING_LEFT | {"retry-after": "5"}
        return says(arrival, 429, headers) if arrival.key == "key-0" and arrival.place < 10 else ok(arrival)

    done = run(pool_of(2, Limit(100, SECOND), A_SECOND), upstream, calls_of(10, 300))
    assert done.lost == 0
    assert done.took < 2 * SECOND
    assert {arrival.key for arrival in done.arrivals if arrival.at > SECOND} == {"key-0", "key-1"}


def test_after_a_guess_one_search_probes() -> None:
    """Its refusals name its limit and tell no wait: one search a second, until one succeeds."""
    done = run(pool_of(1, OWN, A_SECOND), refuses(20, 4 * SECOND, NOTHING_LEFT), calls_of(20, 500))
    assert done.lost == 0
    searches = Counter(arrival.at // SECOND for arrival in done.arrivals if arrival.place < 20)
    assert searches == {0: 20, 1: 1, 2: 1, 3: 1, 4: 20}
    assert {arrival.at for arrival in done.arrivals if arrival.place >= 20} == {0}


def test_without_a_hint_the_key_waits_and_the_tightest_limit_is_cut() -> None:
    """A refused search that says nothing of limits: whose it is nobody knows, but the endpoint's is the tightest."""
    done = run(pool_of(1, OWN, NARROW), refuses(6, SECOND, {"retry-after": "2"}), calls_of(6, 100))
    assert done.lost == 0
    assert {arrival.at for arrival in done.arrivals if arrival.place < 6} == {0, 2 * SECOND + LATENCY}
    assert [event.limit for event in done.events if isinstance(event, LimitCut)] == [str(NARROW)]


def test_what_holds_an_endpoint_back_is_told() -> None:
    """With its paths, of the key and to who waits; the key itself is usable."""
    desk = Desk(pool_of(1, OWN, NARROW))
    desk.submit(batch_to("/search/x", "/search/y"))
    first, _ = desk.assign()
    desk.answer(first, 429, retry_after="5", ratelimit_limit="30", ratelimit_remaining="0")
    info = desk.dispatcher.info(desk.now, detail=True)
    assert (info.keys[0].state, info.keys[0].blocked_for) == ("usable", 0)
    found = [(one.cause, one.reason, one.until) for one in info.keys[0].held_by]
    assert found == [
        (Cause.LIMITED, "429 with Retry-After: 5 s, for /search/ only", 5 * SECOND),
        (Cause.OTHERS, "others use 29 of 30 per 10 s for /search/", None),
    ]
    assert [one.reason for one in info.held_by] == [reason for _, reason, _ in found]
