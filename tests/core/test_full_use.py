"""Upstreams that tell what is left: nothing is held back that could go, and next to nothing is refused."""

from __future__ import annotations

from typing import Final

import pytest

from apiflux_grpc.core.events import LimitCut
from apiflux_grpc.core.model import Kind, Limit
from apiflux_grpc.core.units import MICROSECOND, SECOND
from tests.core.upstreams import Fixed, Simulation, Sliding, Tokens, Upstream, ietf, pool_with

PER: Final = 10 * SECOND
LIMIT: Final = Limit(100, PER)
KINDS: Final = [Sliding, Fixed, Tokens]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", [None, 0, 9, 10])
def test_a_hint_holds_nothing_back(kind: type[Sliding | Fixed | Tokens], reset: int | None) -> None:
    """1,500 calls over 5 keys take two periods, whatever the reset is; held until then, they took three to five."""

    def tells(upstream: Upstream, now: int) -> dict[str, str]:
        told = ietf(upstream, now)
        return told if reset is None else {**told, "ratelimit-reset": str(reset)}

    run = Simulation(pool_with(5, LIMIT), [kind(100, PER) for _ in range(5)], tells=tells, pace=300 * MICROSECOND)
    run.submit(1500)
    traffic = run.run(results=1500)
    assert not traffic.refused
    assert traffic.ended_at < 20.5 * SECOND


@pytest.mark.parametrize(
    ("upstream", "limit"),
    [
        (Sliding(100, PER), LIMIT),
        (Fixed(100, PER), LIMIT),
        (Tokens(100, PER), LIMIT),
        (Tokens(100, PER), Limit(100, PER, kind=Kind.BUCKET)),
        (Tokens(10, SECOND), Limit(10, SECOND, kind=Kind.BUCKET)),
    ],
)
def test_what_others_leave_is_used(upstream: Upstream, limit: Limit) -> None:
    """Others take half of the limit, always admitted: we take at least 95 % of the rest, and 3 % at most is refused."""
    run = Simulation(pool_with(1, limit), [upstream], others=0.5)
    run.run(PER)  # others were there before us
    run.submit(10_000)
    traffic = run.run(40 * PER)
    admitted = [at for at in traffic.admitted if at > 2 * PER]
    refused = [at for at in traffic.refused if at > 2 * PER]
    assert len(admitted) >= 0.95 * 38 * PER * limit.max / limit.per / 2
    assert len(refused) <= 0.03 * len(admitted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tells_late", [False, True])
@pytest.mark.parametrize("work", [11, 20, 60])
def test_calls_longer_than_the_period_use_what_others_leave(
    kind: type[Sliding | Fixed | Tokens], tells_late: bool, work: int
) -> None:
    """No answer comes in time to say what is left: refusals do, few are needed, and nothing is cut for them."""
    upstream = kind(100, PER)
    run = Simulation(pool_with(1, LIMIT), [upstream], others=0.5, work=work * SECOND, tells_late=tells_late)
    run.run(PER)
    run.submit(10_000)
    traffic = run.run(40 * PER)
    admitted = [at for at in traffic.admitted if at > 4 * PER]
    refused = [at for at in traffic.refused if at > 4 * PER]
    assert len(admitted) >= 0.95 * 36 * PER * LIMIT.max / LIMIT.per / 2
    assert len(refused) <= 0.03 * len(admitted)
    assert not any(isinstance(event, LimitCut) for event in traffic.events)


@pytest.mark.parametrize("tells_late", [False, True])
def test_what_others_leave_again_is_used_by_long_calls(tells_late: bool) -> None:
    """Others go away: calls longer than the period have the whole limit again within eight periods."""
    run = Simulation(pool_with(1, LIMIT), [Sliding(100, PER)], others=0.5, work=2 * PER, tells_late=tells_late)
    run.others_until = 20 * PER
    run.run(PER)
    run.submit(10_000)
    traffic = run.run(40 * PER)
    assert len([at for at in traffic.admitted if at > 28 * PER]) >= 0.9 * 12 * 100


@pytest.mark.parametrize("told", [100, 20, None])
def test_what_is_left_of_a_bucket_is_out_of_its_depth(told: int | None) -> None:
    """A bucket that holds less than comes back in a period is as empty as is told, whatever max is told beside it."""

    def tells(upstream: Upstream, now: int) -> dict[str, str]:
        limit = {} if told is None else {"ratelimit-limit": str(told)}
        return limit | {"ratelimit-remaining": str(upstream.left(now))}

    bucket = Limit(100, PER, kind=Kind.BUCKET, burst=20)
    run = Simulation(pool_with(1, bucket), [Tokens(20, PER, rate=100)], tells=tells, others=0.5)
    run.run(PER)
    run.submit(10_000)
    traffic = run.run(20 * PER)
    admitted = [at for at in traffic.admitted if at > 2 * PER]
    assert len(admitted) >= 0.95 * 18 * PER * 5 / SECOND
    assert len(traffic.refused) <= 0.03 * len(admitted)


@pytest.mark.parametrize("work", [0, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_below_the_configured_one_is_used_and_kept(kind: type[Sliding | Fixed | Tokens], work: int) -> None:
    """Half of what is configured: only the first burst is refused, and 95 % of what there is goes out, however long
    calls take."""

    def tells(upstream: Upstream, now: int) -> dict[str, str]:
        return {**ietf(upstream, now), "ratelimit-policy": "50;w=10"}

    run = Simulation(pool_with(1, LIMIT), [kind(50, PER)], tells=tells, work=work * SECOND)
    run.submit(10_000)
    traffic = run.run(20 * PER)
    assert len([at for at in traffic.admitted if at > PER]) >= 0.95 * 19 * 50
    assert len([at for at in traffic.refused if at > PER]) <= 0.03 * 19 * 50
