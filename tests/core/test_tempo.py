"""How long the rounds of a pool wait for each other."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.lease.words import COST, Cap
from apiflux_grpc.core.tempo import LONGEST, Tempo
from apiflux_grpc.core.units import MILLISECOND, SECOND


def tempo(*caps: Cap, members: int, is_near: bool = False) -> Tempo:
    made = Tempo(is_near=is_near)
    for number, cap in enumerate(caps):
        made.keep(number, "key", [cap])
    made.members(members)
    return made


@pytest.mark.parametrize(
    ("caps", "members", "ms"),
    [
        ([Cap(SECOND, 800)] * 2, 2, 20),  # 100 exchanges a second for 1,600 calls
        ([Cap(SECOND, 800)] * 2, 4, 40),  # by all together
        ([Cap(SECOND, 160)], 2, 25),  # 80 a second at the least
        ([Cap(SECOND, 160)], 100, 83.3),  # a twelfth of the window at the most
        ([Cap(60 * SECOND, 6_000)], 100, LONGEST / 1e6),
        ([Cap(SECOND, 800)] * 10 + [Cap(6 * MILLISECOND, 1, depth=1)], 100, 0.5),  # of the shortest
        ([Cap(SECOND, 10**6, COST)], 1, 12.5),  # cost isn't calls
    ],
)
def test_all_processes_together_exchange_once_for_so_many_calls(caps: list[Cap], members: int, ms: float) -> None:
    """Or so many times a second; but no window loses much of its use by it."""
    assert int(tempo(*caps, members=members).span / 1e5) / 10 == pytest.approx(ms, abs=0.1)


def test_the_limits_of_keys_and_of_their_group_both_hold() -> None:
    """Calls are as many as the lower of the two lets through."""
    made = tempo(*[Cap(SECOND, 1600)] * 2, members=2)
    assert made.span == 10 * MILLISECOND
    made.keep("all", "group", [Cap(SECOND, 1600)])
    assert made.span == 20 * MILLISECOND
    made.drop("all")
    assert made.span == 10 * MILLISECOND


def test_processes_come_at_the_same_instants() -> None:
    """Whatever their clocks say, and whenever they asked last."""
    store, opens = 10**9 * SECOND, []
    for clock, last in ((5 * SECOND, 3), (17 * SECOND + 1, 9)):
        made = tempo(Cap(SECOND, 160), members=2)
        made.told(store, clock)
        made.went(clock + last * MILLISECOND)
        assert not made.is_open(clock + last * MILLISECOND)
        opens.append(made.opens_at() - clock)
    assert opens == [25 * MILLISECOND] * 2


def test_a_beat_right_after_an_exchange_is_left_out() -> None:
    """Nothing would have come back since."""
    made = tempo(Cap(SECOND, 160), members=2)
    made.went(24 * MILLISECOND)
    assert made.opens_at() == 50 * MILLISECOND


def test_a_store_nearby_is_asked_at_any_time() -> None:
    """It costs no round trip."""
    made = tempo(Cap(SECOND, 160), members=8, is_near=True)
    made.went(SECOND)
    assert made.is_open(SECOND)
