"""What those who share a budget tell each other of it, the store's side.

Rule: of what is told under one name that which ends later holds, and of equal ends the larger amount: so it doesn't
matter in which order it comes, or how often. What has ended is forgotten.

A claim is one member's alone. It has it until it stops listing it, or isn't heard for CLAIM; the first that asks then
gets it. What names mean is not known here, but for what fills a bucket (less.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.lease.less import OTHERS, fact_name
from apiflux_grpc.core.lease.level import unit_of
from apiflux_grpc.core.lease.terms import CLAIM
from apiflux_grpc.core.lease.words import Fact
from apiflux_grpc.core.units import MICROSECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.entry import Entry
    from apiflux_grpc.core.lease.words import Round

MOST_FACTS: Final = 64  # of one budget, and as many claims: nobody can make an entry grow


def learn(entry: Entry, round: Round) -> None:
    """What this round tells, and claims."""
    if round.facts:
        facts = entry.facts
        for name, amount, left in round.facts:
            facts[name] = max(facts.get(name, (0, 0)), (entry.last + left, amount))
        while len(facts) > MOST_FACTS:
            del facts[min(facts, key=lambda name: (facts[name], name))]
    if not round.claims and not entry.claims:
        return
    claims, mine = entry.claims, round.incarnation
    for name in [name for name, (_, whose) in claims.items() if whose == mine and name not in round.claims]:
        del claims[name]
    for name in round.claims:
        until, whose = claims.get(name, (0, mine))
        if (whose == mine or until <= entry.last) and (name in claims or len(claims) < MOST_FACTS):
            claims[name] = (entry.last + CLAIM, mine)


def fill_levels(entry: Entry, round: Round) -> None:
    """Strangers have filled buckets by more than was known; before `learn` has this round's facts."""
    for cap in entry.caps(entry.last).values() if round.facts and entry.levels else ():
        if not cap.depth:
            continue
        name = fact_name(OTHERS, cap)
        for told in round.facts:
            if told.name == name:
                known = max(entry.facts.get(name, (0, 0))[0], entry.last)
                more = (entry.last + told.left - known) // MICROSECOND * cap.max
                level = entry.levels[cap.like[:2]]
                # It holds no more than its depth, whatever is said.
                level.filled = max(level.filled, min(level.filled + more, cap.depth * unit_of(cap.per)))


def forget_facts(entry: Entry) -> None:
    """Forget what has ended."""
    for ended in (entry.facts, entry.claims):
        for name in [name for name, (until, _) in ended.items() if until <= entry.last]:
            del ended[name]


def live_facts(entry: Entry, now: int) -> tuple[Fact, ...]:
    """All that live, counted from `now`."""
    return tuple(Fact(name, amount, until - now) for name, (until, amount) in entry.facts.items() if until > now)


def claims_of(entry: Entry, name: str) -> tuple[str, ...]:
    """What this member has claimed."""
    return tuple(claim for claim, (_, whose) in entry.claims.items() if whose == name)
