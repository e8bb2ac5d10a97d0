"""Which limit a hint means, and what is made of one that means none of ours."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import pytest

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.hearing import meant
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.keys import GroupState, KeyState
from apiflux_grpc.core.model import Counts, Key, Kind, Limit, Pool
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import MILLISECOND, SECOND
from apiflux_grpc.testing import FakePacer
from tests.core.desk import Desk
from tests.core.upstreams import Simulation, Sliding, Tokens, Upstream, pool_with

MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
CALLS, COST = Counts.CALLS, Counts.COST
A_SECOND: Final = Limit(10, SECOND)
A_MINUTE: Final = Limit(100, MINUTE)
TOKENS: Final = Limit(5000, MINUTE, COST)
SHARED: Final = Limit(300, MINUTE)


@pytest.mark.parametrize(
    ("own", "group", "hint", "limit"),
    [
        # its period
        ([A_SECOND, A_MINUTE], [], Hint(0, None, None, SECOND, None), A_SECOND),
        ([A_SECOND, A_MINUTE], [], Hint(0, None, 80, MINUTE, None), A_MINUTE),
        ([A_SECOND], [], Hint(0, None, 10, MINUTE, None), None),
        ([A_MINUTE], [SHARED], Hint(0, None, 300, MINUTE, None), SHARED),
        ([A_MINUTE], [SHARED], Hint(0, None, None, MINUTE, None), None),
        ([A_MINUTE, TOKENS], [], Hint(0, None, None, MINUTE, COST), TOKENS),
        # without one its max
        ([A_SECOND, A_MINUTE], [SHARED], Hint(0, None, 300, None, None), SHARED),
        ([A_SECOND, A_MINUTE], [], Hint(0, None, 50, None, None), None),
        ([A_SECOND, Limit(10, HOUR)], [], Hint(0, None, 10, None, None), None),
        # neither: the only one of its unit
        ([A_SECOND, TOKENS], [], Hint(0, None, None, None, CALLS), A_SECOND),
        ([A_SECOND, TOKENS], [], Hint(0, None, None, None, COST), TOKENS),
        ([A_SECOND, TOKENS], [], Hint(0, None, None, None, None), A_SECOND),
        ([A_SECOND, A_MINUTE], [], Hint(0, None, None, None, CALLS), None),
        ([A_SECOND], [], Hint(0, None, None, None, COST), None),
        ([TOKENS], [], Hint(0, None, None, None, None), TOKENS),
        ([], [], Hint(0, None, None, None, None), None),
        # of a bucket the upstream tells the depth
        ([Limit(5, SECOND, kind=Kind.BUCKET, burst=20)], [], Hint(0, None, 20, None, None), 0),
    ],
)
def test_which_limit_a_hint_means(own: list[Limit], group: list[Limit], hint: Hint, limit: Limit | int | None) -> None:
    """By its period, else by its max, else as the only one of its unit; of the key's limits and its group's."""
    key = KeyState(0, Key("key-0", "secret", tuple(own)), Budget(own, 0, FakePacer))
    shared = GroupState(Budget(group, 0, FakePacer))
    found = meant(hint, [*((key, one) for one in own), *((shared, one) for one in group)])
    expected = own[limit] if isinstance(limit, int) else limit
    assert (None if found is None else found[1]) == expected
    if found is not None:
        assert found[0] is (shared if expected in group else key)


def test_a_bucket_that_is_not_configured_is_kept() -> None:
    """Five calls a second by the headers and no reset; 10,000 a day configured: 30 calls take about five seconds."""

    def tells(upstream: Upstream, now: int) -> dict[str, str]:
        return {
            "x-ratelimit-limit": "5",
            "x-ratelimit-remaining": str(upstream.left(now)),
            "x-ratelimit-interval-seconds": "1",
            "x-ratelimit-fillrate": "5",
        }

    run = Simulation(pool_with(1, Limit(10_000, 24 * HOUR)), [Tokens(5, SECOND)], tells=tells)
    run.submit(1)
    run.run(results=1)
    run.submit(29, id=2)
    traffic = run.run(results=30)
    assert 5 * SECOND < traffic.ended_at < 7.5 * SECOND
    assert len(traffic.refused) <= 3  # calls overtake each other


@dataclass
class Search:
    """An upstream whose searches have a limit of their own; it tells each call what it is of."""

    most: int
    per: int
    tells_reset: bool = True
    refused: int = 0
    log: list[int] = field(default_factory=list)

    def answer(self, path: str, now: int) -> tuple[int, dict[str, str]]:
        if not path.lstrip("/").startswith("search"):
            return 200, {"x-ratelimit-remaining": "4995", "x-ratelimit-resource": "core"}
        self.log = [at for at in self.log if at > now - self.per]
        status = 200 if len(self.log) < self.most else 429
        if status == 200:
            self.log.append(now)
        else:
            self.refused += 1
        told = {"x-ratelimit-remaining": str(self.most - len(self.log)), "x-ratelimit-resource": "search"}
        if self.tells_reset:
            told["x-ratelimit-reset"] = str(-(-(self.log[0] + self.per - now) // SECOND))
        return status, told


def results_of(desk: Desk, upstream: Search, calls: list[str], until: int) -> dict[str, list[int]]:
    """When calls of each path are answered with 200, each 20 ms after it was sent."""
    done: dict[str, list[int]] = {path: [] for path in calls}
    flying: deque[tuple[int, Permit, int, dict[str, str]]] = deque()
    desk.submit(Batch(1, "caller", len(calls), admitted_at=desk.now, calls=[Call(path=path) for path in calls]))
    while desk.now < until:
        for permit in desk.assign():
            status, told = upstream.answer(permit.batch.call_at(permit.place).path, desk.now)
            flying.append((desk.now + 20 * MILLISECOND, permit, status, told))
        desk.now += 10 * MILLISECOND
        while flying and flying[0][0] <= desk.now:
            _, permit, status, told = flying.popleft()
            path = permit.batch.call_at(permit.place).path
            desk.answer(permit, status, **{name.replace("-", "_"): value for name, value in told.items()})
            if status == 200:
                done[path].append(desk.now)
    return done


@pytest.mark.parametrize("tells_reset", [True, False])
def test_calls_of_a_resource_that_is_used_up_wait_and_others_go_on(tells_reset: bool) -> None:
    """Searches are ten a minute, in front of all other calls: these go on, and next to no search is refused."""
    desk, upstream = (
        Desk(Pool("pool", (Key("key-0", "secret", (Limit(100, SECOND),)),))),
        Search(10, 60 * SECOND, tells_reset),
    )
    calls = ["/search/code", *["/search/issues"] * 29, *["/repos/a"] * 50, *["search/users"] * 20, *["/user"] * 50]
    done = results_of(desk, upstream, calls, 400 * SECOND)
    assert {path: len(times) for path, times in done.items()} == {path: calls.count(path) for path in calls}
    assert max(done["/repos/a"] + done["/user"]) < 3 * SECOND
    assert max(done["search/users"]) < 320 * SECOND
    assert upstream.refused < (60 if tells_reset else 130)


def test_a_limit_of_some_calls_holds_back_no_others() -> None:
    """Nothing is left for searches: all other calls go on."""
    told = iter([("search", "0"), *[("core", str(left)) for left in range(4995, 0, -1)]])

    def tells(_upstream: Upstream, _now: int) -> dict[str, str]:
        resource, left = next(told)
        return {"x-ratelimit-remaining": left, "x-ratelimit-reset": "37", "x-ratelimit-resource": resource}

    run = Simulation(pool_with(1, Limit(100, SECOND)), [Sliding(100, SECOND)], tells=tells)
    run.submit(1)
    run.run(results=1)
    run.submit(100, id=2, path="/repos/a")
    assert run.run(results=101).ended_at < 2 * SECOND
