"""Rates and times that are left, as people read them."""

from __future__ import annotations

import pytest

from apiflux_grpc.jobs.words import clock_time, rate


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0:01"), (0.2, "0:01"), (9, "0:09"), (59.1, "1:00"), (171, "2:51"), (3771, "1:02:51"), (273_700, "3 d 4 h")],
)
def test_what_is_left_is_rounded_up(seconds: float, told: str) -> None:
    """A wait that isn't over is never told as none."""
    assert clock_time(seconds) == told


@pytest.mark.parametrize(
    ("per_second", "told"),
    [
        (1234.4, "1,234/s"),
        (83.33, "83/s"),
        (2.5, "2.5/s"),
        (1, "1/s"),
        (0.5, "30/min"),
        (0.01, "36/h"),
        (0.0001, "0.4/h"),
    ],
)
def test_a_rate_has_the_unit_in_which_it_can_be_read(per_second: float, told: str) -> None:
    """The second, if there is at least one in it."""
    assert rate(per_second) == told
