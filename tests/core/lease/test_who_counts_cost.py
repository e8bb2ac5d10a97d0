"""Servers with limits of cost beside others without any: what nobody told the cost of is nobody's to spend."""

from __future__ import annotations

from typing import Any

import pytest

from apiflux_grpc.core.lease.terms import LAPSE, at_most
from apiflux_grpc.core.lease.words import COST, NOTHING, Amounts, Cap, Reply, Round
from apiflux_grpc.core.units import SECOND
from tests.core.lease.test_serve import FIRST, LIFE, MINUTE, Store


def test_a_server_that_counts_no_cost_is_refused_while_others_have_limits_of_cost() -> None:
    """Nobody could tell what its calls cost. Who begins to count it knows nothing of the time before."""
    store = Store()
    reply = store.says(FIRST)
    caps = (*FIRST.caps, Cap(MINUTE, 50, COST))
    new = store.says(FIRST, incarnation="new", caps=caps, want=Amounts(1, 1))
    assert (new.granted, new.opens) == (NOTHING, at_most(MINUTE + LIFE + FIRST.jitter))
    reply = store.says(store.after(reply, want=Amounts(1)))
    assert "others have limits of cost" in reply.refusal
    another = store.says(FIRST, incarnation="another", caps=caps)
    assert (another.refusal, another.opens) == ("", new.opens)


@pytest.mark.parametrize("absent", ["it left", "it is refused", "it was silent"])
def test_what_is_spent_while_nobody_counts_its_cost_is_unknown_to_who_counts_it_next(absent: str) -> None:
    """Also if that counted before, or waited until another had left. Rule 1."""
    store = Store()
    caps = (*FIRST.caps, Cap(MINUTE, 50, COST), Cap(SECOND, 50, COST, 9))
    counts = FIRST._replace(incarnation="counts", caps=caps)
    spends = FIRST._replace(incarnation="spends")

    def says(round: Round, reply: Reply, **other: Any) -> Reply:
        terms = {"incarnation": round.incarnation, "caps": round.caps, "life": round.life}
        return store.says(store.after(reply, **terms), **other)

    if absent == "it is refused":
        counts = counts._replace(life=SECOND)
        spent = store.says(spends)
        counted = store.says(counts)
        for _ in range(9):
            store.at += 9 * SECOND
            spent, counted = says(spends, spent), says(counts, counted)
            assert counted.refusal
        spent = says(spends, spent, want=Amounts(3))
    else:
        counted = store.says(counts)
        if absent == "it left":
            says(counts, counted, leaves=True)
            counts = counts._replace(incarnation="next")
        store.at += LAPSE + SECOND
        spent = store.says(spends, want=Amounts(3))
    assert (spent.granted, spent.refusal) == (Amounts(3), "")
    says(spends, spent, leaves=True)
    counted = store.says(counts) if absent == "it left" else says(counts, counted)
    assert (counted.opens, counted.refusal) == (at_most(MINUTE + LIFE + FIRST.jitter), "")
    assert store.entries["key"].levels[SECOND, COST].free(caps[2], 0) == 0
