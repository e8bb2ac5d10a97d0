"""Alarms: which instants count, and that the others aren't kept."""

from __future__ import annotations

from apiflux_grpc.core.alarms import Alarms
from apiflux_grpc.core.bucket import FAR


class Sleeper:
    def __init__(self) -> None:
        self.wake = FAR


def test_alarms_that_do_not_count_any_more_are_swept_out() -> None:
    """A far instant, then an earlier one, again and again: each sleeper still wakes at its own, and few are kept."""
    alarms: Alarms[Sleeper] = Alarms()
    often, seldom = Sleeper(), Sleeper()
    alarms.set(seldom, 5_001)
    for now in range(0, 10_000, 2):
        alarms.set(often, 1_000_000 + now)
        alarms.set(often, now + 1)
        assert alarms.next_at() == now + 1
        woken = list(alarms.ring(now + 1))
        assert woken == ([seldom, often] if now == 5_000 else [often])
        assert len(alarms) < 200
    assert alarms.next_at() == FAR
