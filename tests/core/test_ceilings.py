"""The upstream's own word on what is left only ever tightens."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.model import Counts, Limit
from apiflux_grpc.core.units import SECOND
from tests.core.building import COST, MINUTE, budget_of, taken_at

calls = Counts.CALLS


@pytest.mark.parametrize(("counts", "left", "most"), [(calls, 3, 3), (COST, 7, 3), (calls, 0, 0), (calls, 999, 50)])
def test_a_ceiling_holds_until_it_ends(counts: Counts, left: int, most: int) -> None:
    """It only ever tightens, and tells when it ends."""
    budget = budget_of(Limit(50, 60 * SECOND), Limit(500, 60 * SECOND, COST))
    budget.ceilings.tighten(counts, left, 5 * SECOND)
    assert taken_at(budget, 0, 2) == most
    if most < 50:
        assert budget.try_take(2, 0) == 5 * SECOND == budget.next_change()
    assert taken_at(budget, 5 * SECOND, 2) == 50 - most


def test_a_lower_ceiling_replaces_a_higher_one_and_not_the_other_way() -> None:
    """A later word that allows more changes nothing until the earlier one has ended."""
    budget = budget_of(Limit(50, 60 * SECOND))
    budget.ceilings.tighten(calls, 9, 5 * SECOND)
    budget.ceilings.tighten(calls, 4, 5 * SECOND)
    budget.ceilings.tighten(calls, 30, 5 * SECOND)
    assert taken_at(budget, 0) == 4


@pytest.mark.parametrize("order", [1, -1])
def test_hints_of_two_lengths_both_hold(order: int) -> None:
    """3 left for a second and 5 for a minute, in either order: 3 now, and 2 more after the second."""
    budget = Budget((Limit(100, MINUTE),), 0, None)
    for left, until in [(3, SECOND), (5, MINUTE)][::order]:
        budget.ceilings.tighten(Counts.CALLS, left, until)
    taken = []
    for now in (0, SECOND, MINUTE - 1):
        budget.advance(now)
        taken.append(0)
        while budget.try_take(1, now) == 0:
            taken[-1] += 1
    assert taken == [3, 2, 0]
