"""What the script is told of a round is in whole microseconds, and errs to the side on which nothing is spent early."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.adapters.lease_redis.words import told
from apiflux_grpc.core.lease.words import Amounts, Cap, Group, Held, Memory, Round
from apiflux_grpc.core.units import LONGEST, MOST
from tests.adapters.lease_redis.twin import rounded

spans = st.integers(1, LONGEST)
instants = st.integers(0, 4_000_000_000 * 10**9)  # until the year 2096


@given(spans, spans, spans, spans, instants, spans, st.integers(0, 10**18))
def test_spans_are_longer_and_ages_and_floors_are_lower(
    per: int, life: int, jitter: int, age: int, now: int, since: int, want: int
) -> None:
    """By less than a microsecond; what is whole stays as it is, and no number is beyond what a double holds."""
    now -= now % 1000  # as it was told by the script
    group = Group(1, 2, age)
    round = Round("key", "a", 2, (Cap(per, 3),), life, jitter, "epoch", now, now + since, 0, Amounts(want, want), want)
    round = round._replace(round_trip=age, held=(Held(1, Amounts(1), Amounts(), (group,)),))
    round = round._replace(memory=Memory((group,), Amounts(1, 2), frozenset("ab")))
    is_told = rounded(told(round), "key")
    longer = (is_told.caps[0].per, is_told.life, is_told.jitter, is_told.round_trip)
    for before, after in zip((per, life, jitter, age), longer, strict=True):
        assert before <= after < before + 1000
    assert is_told.memory is not None
    lower = (is_told.held[0].groups[0].age, is_told.memory.landed[0].age, is_told.floor)
    for before, after in zip((age, age, now + since), lower, strict=True):
        assert before - 1000 < after <= before
    most = min(want, MOST)
    assert (is_told.told, is_told.want, is_told.least) == (now, Amounts(most, most), most)

    def largest(part: object) -> int:
        if isinstance(part, dict):
            part = [*part.values()]
        return max(map(largest, part), default=0) if isinstance(part, list) else part if isinstance(part, int) else 0

    assert largest(json.loads(told(round))) < 1 << 53


def test_a_first_round_has_heard_no_time() -> None:
    """-1 means that, in every unit."""
    round = Round("key", "a", 1, (Cap(1000, 3),), 1000, 0)
    assert (json.loads(told(round))["told"], json.loads(told(round))["floor"]) == (-1, -1)
