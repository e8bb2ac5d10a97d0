"""Which limit a hint means, and what is made of one that means none of ours."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.hearing import meant
from apiflux_grpc.core.hints import Hint
from apiflux_grpc.core.keys import GroupState, KeyState
from apiflux_grpc.core.model import Counts, Key, Kind, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer
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


def test_a_limit_of_some_calls_holds_back_no_others() -> None:
    """Nothing is left for searches: all other calls go on."""
    told = iter([("search", "0"), *[("core", str(left)) for left in range(4995, 0, -1)]])

    def tells(_upstream: Upstream, _now: int) -> dict[str, str]:
        resource, left = next(told)
        return {"x-ratelimit-remaining": left, "x-ratelimit-reset": "37", "x-ratelimit-resource": resource}

    run = Simulation(pool_with(1, Limit(100, SECOND)), [Sliding(100, SECOND)], tells=tells)
    run.submit(1)
    run.run(results=1)
    run.submit(100, id=2)
    assert run.run(results=101).ended_at < 2 * SECOND
