"""The window against a naive log of every stamp."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.core.window import GROUPS, Window

PER = 1_000_000_000


def test_a_slot_is_back_one_window_after_its_instant_and_not_before() -> None:
    """Half-open: an arrival exactly `per` (and the drift margin) later is allowed, one ns earlier is not."""
    window = Window(1, PER)
    window.used += 1
    end = window.record(5, 1)
    assert end == 5 + window.kept
    window.expire(end - 1)
    assert window.free == 0
    window.expire(end)
    assert window.free == 1


def test_the_log_stays_small() -> None:
    """The log has at most 129 groups, however many slots are recorded."""
    window = Window(1_000_000, PER)
    for instant in range(0, PER, PER // 10_000):
        window.used += 1
        window.record(instant, 1)
    assert len(window.ends()) <= GROUPS + 1


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, PER // 3), st.booleans()), min_size=1, max_size=200),
)
def test_no_window_holds_more_than_the_limit(most: int, steps: list[tuple[int, bool]]) -> None:
    """Whatever the times of asking, no half-open window holds more arrivals than the limit; and none is withheld for
    longer than the group's span and the drift allow."""
    window = Window(most, PER)
    arrivals: list[int] = []
    now = 0
    for step, wants in steps:
        now += step
        window.expire(now)
        naive = sum(1 for at in arrivals if now - at < PER)
        late = sum(1 for at in arrivals if now - at < window.kept + window.span)
        assert naive <= most - window.free <= late
        if wants and window.free > 0:
            window.used += 1
            window.record(now, 1)
            arrivals.append(now)
    for place, at in enumerate(arrivals):
        assert sum(1 for other in arrivals[place:] if other - at < PER) <= most
