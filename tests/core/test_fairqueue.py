"""Whose turn it is: shares by weight, over any stretch of time, and no credit for idling."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, combinations, pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.batch import Again, Batch
from apiflux_grpc.core.fairqueue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Callable


class Queue:
    """A fair queue that hands out turns itself, and makes the batches."""

    def __init__(self) -> None:
        self.fair = FairQueue()
        self._made = 0

    def batch(
        self, caller: str, total: int = 100_000, weight: float = 1.0, room: int = 1 << 60, caller_weight: float = 1.0
    ) -> Batch:
        self._made += 1
        batch = Batch(self._made, caller, total, admitted_at=0, weight=weight, reach=room)
        self.fair.add(batch, caller_weight)
        return batch

    def serve(self, turns: int, size: Callable[[Batch], float] = lambda _: 1.0) -> list[Batch]:
        """Up to so many turns, each of which takes a call as the scheduler does; whose they were."""
        served: list[Batch] = []
        while len(served) < turns and (batch := self.fair.head()) is not None:
            assert isinstance(batch, Batch)
            if batch.again:
                batch.again.popleft()
            else:
                batch.started += 1
            self.fair.charge(size(batch))
            served.append(batch)
        return served


def counts(served: list[Batch]) -> dict[int, int]:
    return dict(Counter(batch.id for batch in served))


@pytest.mark.parametrize("caller", ["a", "b"])
def test_a_small_batch_gets_every_second_turn(caller: str) -> None:
    """A 10-call batch that comes behind a 2,000-call one doesn't wait for it, be it of the same caller or not."""
    queue = Queue()
    large = queue.batch("a", 2000)
    queue.serve(500)
    small = queue.batch(caller, 10)
    served = queue.serve(21)
    assert served.count(small) == 10
    assert all(large in pair for pair in pairwise(served))
    assert len(queue.serve(5000)) == 2000 - 500 - 11


@pytest.mark.parametrize("priority", range(5))
def test_priorities_share_by_powers_of_two(priority: int) -> None:
    """A weight of 2^priority gives that many times the turns, to within one call at any time."""
    queue = Queue()
    plain = queue.batch("a")
    weighty = queue.batch("a", weight=2.0**priority)
    served = queue.serve(500)
    for turns in range(1, 501):
        due = turns * weighty.weight / (weighty.weight + plain.weight)
        assert abs(served[:turns].count(weighty) - due) <= 1


def test_callers_share_by_their_weights() -> None:
    """A caller's weight counts between callers, whatever the weights of its batches are."""
    queue = Queue()
    light = queue.batch("a", weight=8.0)
    heavy = queue.batch("b", weight=0.5, caller_weight=3.0)
    assert counts(queue.serve(400)) == {light.id: 100, heavy.id: 300}


def test_many_batches_are_worth_as_much_as_one() -> None:
    """A caller with 100 batches gets no more than a caller with one, and shares it evenly among them."""
    queue = Queue()
    many = [queue.batch("a") for _ in range(100)]
    one = queue.batch("b")
    served = counts(queue.serve(2000))
    assert abs(served[one.id] - 1000) <= 1
    assert all(abs(served[batch.id] - 10) <= 1 for batch in many)


def test_nobody_banks_credit_by_idling() -> None:
    """A batch that had no room for long gets its share from now on, and nothing of what it missed."""
    queue = Queue()
    queue.batch("a")
    idle = queue.batch("b", room=1)
    queue.serve(2000)
    idle.reach += 1000
    queue.fair.wake(idle)
    assert abs(queue.serve(100).count(idle) - 50) <= 1


def test_a_batch_banks_no_credit_against_its_siblings() -> None:
    """The same within one caller."""
    queue = Queue()
    queue.batch("a")
    idle = queue.batch("a", room=1)
    queue.serve(2000)
    idle.reach += 1000
    queue.fair.wake(idle)
    assert abs(queue.serve(100).count(idle) - 50) <= 1


@pytest.mark.parametrize("caller", ["a", "b"])
def test_a_batch_without_room_is_passed_and_comes_back(caller: str) -> None:
    """A batch whose reader is slow costs the others nothing, and takes part again when it is woken."""
    queue = Queue()
    other = queue.batch("a")
    slow = queue.batch(caller, room=3)
    assert queue.serve(20).count(slow) == 3
    assert slow not in queue.serve(20)
    slow.reach += 5
    queue.fair.wake(slow)
    queue.fair.wake(slow)  # twice is once
    assert queue.serve(20).count(slow) == 5
    assert set(queue.serve(5)) == {other}


def test_a_retry_needs_no_room() -> None:
    """A call that was attempted has room for its result already."""
    queue = Queue()
    batch = queue.batch("a", total=1)
    queue.serve(1)
    batch.reach = 1
    assert queue.fair.head() is None
    batch.again.append(Again(0, 2, 0))
    queue.fair.wake(batch)
    assert queue.serve(5) == [batch]


def test_nobody_waits_in_an_empty_queue() -> None:
    """Without batches, without calls, or with batches that are over there is no head."""
    queue = Queue()
    assert queue.fair.head() is None
    empty = queue.batch("a", total=0)
    assert queue.fair.head() is None
    queue.fair.remove(empty)
    done = queue.batch("a", total=1)
    queue.serve(1)
    queue.fair.remove(done)
    assert queue.fair.head() is None
    again = queue.batch("a", total=1)
    assert queue.fair.head() is again


@pytest.mark.parametrize("caller", ["a", "b"])
def test_many_small_batches_in_a_row_starve_nobody(caller: str) -> None:
    """One call per batch, the next batch when the last is over: that is one flow, and it gets the share of one."""
    queue = Queue()
    large = queue.batch("a")
    queue.serve(10)
    small = queue.batch(caller, 1)
    turns = Counter[bool]()
    for _ in range(200):
        (served,) = queue.serve(1)
        turns[served is large] += 1
        if served is small:
            queue.fair.remove(small)
            small = queue.batch(caller, 1)
    assert turns[True] >= 99


# -- the bound of start-time fair queueing -------------------------------------------------------

weights = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 8.0])
flows = st.lists(st.tuples(weights, st.floats(0.01, 1.0)), min_size=2, max_size=5)
guests = st.lists(st.tuples(st.integers(1, 30), st.sampled_from("abxy"), weights, st.integers(1, 20)), max_size=12)


def widest(served: list[Batch], one: Batch, other: Batch, step: dict[int, float]) -> float:
    """The most by which served / weight of two flows differs over any stretch of the turns."""
    signs = {one.id: 1, other.id: -1}
    lead = [0.0, *accumulate(step[batch.id] * signs[batch.id] for batch in served if batch.id in signs)]
    return max(lead) - min(lead)


@settings(max_examples=100, print_blob=True)
@given(flows, guests, st.booleans())
def test_two_backlogged_flows_never_drift_apart(
    flows: list[tuple[float, float]], guests: list[tuple[int, str, float, int]], as_callers: bool
) -> None:
    """Over any stretch, served / weight of two backlogged flows differs by l1/w1 + l2/w2 at most, whoever else comes
    and goes; for callers, and for the batches of one caller."""
    queue = Queue()
    size: dict[int, float] = {}
    step: dict[int, float] = {}
    stays = []
    for place, (weight, largest) in enumerate(flows):
        caller, as_batch, as_caller = (f"caller-{place}", 1.0, weight) if as_callers else ("a", weight, 1.0)
        batch = queue.batch(caller, weight=as_batch, caller_weight=as_caller)
        size[batch.id], step[batch.id] = largest, largest / weight
        stays.append(batch)
    served: list[Batch] = []
    visiting: list[Batch] = []
    for turns, caller, weight, total in [*guests, (100, "z", 1.0, 1)]:
        served += queue.serve(turns, lambda batch: size.get(batch.id, 1.0))
        visiting.append(queue.batch(caller, total, weight))
        for guest in [guest for guest in visiting if guest.started == guest.total]:
            visiting.remove(guest)
            queue.fair.remove(guest)
    for one, other in combinations(stays, 2):
        assert widest(served, one, other, step) <= step[one.id] + step[other.id] + 1e-6


@settings(max_examples=100, print_blob=True)
@given(
    st.lists(st.tuples(weights, st.integers(1, 20), st.integers(0, 20)), min_size=2, max_size=4),
    st.lists(st.integers(0, 20), min_size=1, max_size=7),
    st.booleans(),
)
def test_corrected_costs_do_not_let_flows_drift_apart(
    flows: list[tuple[float, int, int]], reals: list[int], as_callers: bool
) -> None:
    """What a call really took goes with the next turns: over any stretch the sums differ by a few calls at most."""
    queue = Queue()
    declared: dict[int, int] = {}
    step: dict[int, float] = {}
    stays = []
    for place, (weight, size, _) in enumerate(flows):
        caller, as_batch, as_caller = (f"caller-{place}", 1.0, weight) if as_callers else ("a", weight, 1.0)
        batch = queue.batch(caller, weight=as_batch, caller_weight=as_caller)
        declared[batch.id] = size
        step[batch.id] = 20 / weight
        stays.append(batch)
    lead = {batch.id: [0.0] for batch in stays}
    for turn in range(300):
        (served,) = queue.serve(1, lambda batch: declared[batch.id])
        actual = 1 + (reals[turn % len(reals)] + flows[stays.index(served)][2]) % 20
        queue.fair.owe(served, actual - declared[served.id])
        for batch in stays:
            more = actual / batch.weight if batch is served and not as_callers else 0.0
            more += actual / flows[stays.index(batch)][0] if batch is served and as_callers else 0.0
            lead[batch.id].append(lead[batch.id][-1] + more)
    for one, other in combinations(stays, 2):
        apart = [first - second for first, second in zip(lead[one.id], lead[other.id], strict=True)]
        assert max(apart) - min(apart) <= 3 * (step[one.id] + step[other.id])


@pytest.mark.parametrize(("declared", "actual"), [(1, 9), (9, 1)])
def test_what_a_call_really_took_is_charged_with_the_next_turn(declared: int, actual: int) -> None:
    """A batch that declares too little, or too much, gets its share of what was really taken."""
    queue = Queue()
    honest, other = queue.batch("a"), queue.batch("b")
    spent = Counter[int]()
    for _ in range(2000):
        (served,) = queue.serve(1, lambda batch: 5.0 if batch is honest else float(declared))
        spent[served.id] += 5 if served is honest else actual
        if served is other:
            queue.fair.owe(other, actual - declared)
    assert abs(spent[honest.id] - spent[other.id]) <= 30
