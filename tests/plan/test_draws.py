"""What a plan's upstream answers is a pure function of seed, call and send, and keeps its shares."""

from __future__ import annotations

from collections import Counter

from apiflux_grpc.core.units import MILLISECOND
from apiflux_grpc.plan.draws import Draws

LATENCY = (10 * MILLISECOND, 50 * MILLISECOND)


def test_the_same_send_is_answered_the_same() -> None:
    """In whatever order it is asked; another seed, call or send is another draw, another key isn't."""
    sends = [(call, number) for call in range(50) for number in (1, 2)]
    draws = Draws(LATENCY, 0.3, 0.3, seed=1)
    first = {send: draws.send(*send, "a") for send in sends}
    assert {send: draws.send(*send, "b") for send in reversed(sends)} == first
    assert len(set(first.values())) == len(sends)
    assert all(Draws(LATENCY, 0.3, 0.3, seed=2).send(*send, "a") != drawn for send, drawn in first.items())
    assert Draws(seed=-1).send(0, 1, "a") == Draws(seed=-1).send(0, 1, "a")


def test_shares_and_latencies_are_kept() -> None:
    """Statuses have their shares of the sends, latencies lie evenly in their range, in whole microseconds."""
    drawn = [Draws(LATENCY, 0.2, 0.1).send(call, 1, "a") for call in range(5_000)]
    statuses = Counter(one.status for one in drawn)
    assert 900 < statuses[500] < 1_100
    assert 430 < statuses[429] < 570
    assert statuses[200] == 5_000 - statuses[500] - statuses[429]
    low, high = LATENCY
    assert all(low <= one.latency < high and one.latency % 1_000 == 0 and 0 <= one.draw < 1 for one in drawn)
    quarters = Counter((one.latency - low) * 4 // (high - low) for one in drawn)
    assert all(1_100 < quarters[quarter] < 1_400 for quarter in range(4))


def test_a_rejected_key_is_rejected_always() -> None:
    """Whatever the shares; with other keys nothing changes."""
    draws = Draws(fail=0.5, rejected=frozenset({"a"}))
    assert {draws.send(call, 1, "a").status for call in range(20)} == {401}
    assert {draws.send(call, 1, "b").status for call in range(20)} == {200, 500}
