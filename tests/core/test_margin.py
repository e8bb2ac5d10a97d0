"""What the arrival margin costs, and what is advised about it."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.margin import BINS, FADE_AT, RoundTrips, advice, cost_of
from apiflux_grpc.core.model import Kind, Limit
from apiflux_grpc.core.units import MILLISECOND, SECOND

MINUTE = 60 * SECOND
J = 250 * MILLISECOND


@pytest.mark.parametrize(
    ("limits", "latency", "cost"),
    [
        ([Limit(10, SECOND)], SECOND, 0.2),  # 0.25 of 1.25
        ([Limit(10, SECOND)], 10 * MILLISECOND, 0.01 / 1.01),  # answers sooner than J need none of it
        ([Limit(10, SECOND), Limit(100, MINUTE)], SECOND, 0.2),  # the shortest suffers most
        ([Limit(100, MINUTE)], SECOND, 0.25 / 60.25),
        ([Limit(10, SECOND, kind=Kind.BUCKET)], SECOND, 0.0),
        ([], SECOND, 0.0),
    ],
)
def test_what_the_margin_costs(limits: list[Limit], latency: int, cost: float) -> None:
    """1 - T / (T + min(latency, J)) of the window that suffers most."""
    assert cost_of(J, limits, latency) == pytest.approx(cost)


def test_round_trips_have_quantiles_within_a_factor_of_two() -> None:
    """And none before the first."""
    trips = RoundTrips()
    assert trips.quantile(0.5) is None
    for length in [10 * MILLISECOND] * 98 + [3 * SECOND] * 2:
        trips.add(length)
    median, most = trips.quantile(0.5), trips.quantile(0.99)
    assert median is not None
    assert most is not None
    assert 10 * MILLISECOND <= median <= 20 * MILLISECOND
    assert 3 * SECOND <= most <= 6 * SECOND
    trips.add(1 << 62)
    assert trips.quantile(1.0) == 1 << (16 + BINS - 1)


def test_old_round_trips_fade() -> None:
    """After a change of latency the median follows."""
    trips = RoundTrips()
    for _ in range(FADE_AT - 1):
        trips.add(SECOND)
    for _ in range(FADE_AT):
        trips.add(MILLISECOND)
    assert (trips.quantile(0.5) or 0) <= 2 * MILLISECOND


@pytest.mark.parametrize(
    ("cost", "connecting", "cuts", "said"),
    [
        (0.2, None, 0, ""),  # nobody knows how long connecting takes
        (0.2, MILLISECOND, 0, "20 ms would do"),
        (0.2, 10 * MILLISECOND, 0, "50 ms would do"),
        (0.2, 40 * MILLISECOND, 0, ""),  # not so much too large that it were sure
        (0.004, MILLISECOND, 0, ""),  # costs next to nothing
        (0.004, MILLISECOND, 3, "3 times a 429 came"),
        (0.2, MILLISECOND, 1, "raise arrival_jitter"),
    ],
)
def test_advice_needs_evidence(cost: float, connecting: int | None, cuts: int, said: str) -> None:
    """Too small after a 429 that shouldn't have come, too large only where that costs and connecting is fast."""
    text = advice(J, cost, connecting, cuts)
    assert said in text
    assert bool(text) == bool(said)
