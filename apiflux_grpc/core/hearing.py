"""Which limit a hint means, and what it says of it.

Rule: a hint means the limit whose period it tells; without a period, exactly one whose max it tells; telling neither,
the only one of its unit. It is sought among the limits of all owners that paid for the call: its key, the key's group,
the limits with its path. What it says is counted for that owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apiflux_grpc.core.model import Counts, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.flight import Part
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.permit import Permit

    Owned = tuple[KeyState | GroupState, Limit]


class Heard(NamedTuple):
    """What came of an answer's hints."""

    explained: bool  # others took what a refused call would have needed
    changed: Sequence[tuple[KeyState | GroupState, int]]  # by how much the estimate of others did


def meant(hint: Hint, limits: Sequence[Owned]) -> Owned | None:
    """The limit that a hint means, of those that these owners have; None: it isn't configured."""
    if hint.counts is not None:
        limits = [one for one in limits if one[1].counts is hint.counts]
    if hint.per is not None:
        limits = [one for one in limits if one[1].per == hint.per]
        if len(limits) > 1:
            limits = [one for one in limits if _has(one[1], hint.max)]
    elif hint.max is not None:
        limits = [one for one in limits if _has(one[1], hint.max)]
    if len(limits) > 1 and hint.counts is None:  # most headers without a unit count calls
        limits = [one for one in limits if one[1].counts is Counts.CALLS]
    return limits[0] if len(limits) == 1 else None


def _maxes(limit: Limit) -> tuple[int, ...]:
    """What an upstream may tell as this limit's max: of a bucket Envoy and others tell what it holds."""
    return (limit.max, limit.depth) if limit.kind is Kind.BUCKET else (limit.max,)


def _has(limit: Limit, most: int | None) -> bool:
    """Whether the upstream may call this the limit's max: of a bucket it tells the depth."""
    return most is not None and most in ((limit.max, limit.depth) if limit.kind is Kind.BUCKET else (limit.max,))


def hear(permit: Permit, told: Sequence[Hint], answered_at: int, now: int, *, limited: bool) -> Heard:
    """An answer to the permit's call, which is settled, carried these hints; `limited`: it was refused for a limit."""
    owners = _owners(permit)
    limits = [(owner, limit) for owner, _ in owners for limit in owner.budget.limits]
    found = [(hint, meant(hint, limits)) for hint in told]
    if limited:
        for owner, part in owners:
            if told:
                owner.budget.listen(now)
            _refused(owner.budget, part, answered_at)
    sent_at = permit.taken_at if permit.sent_at < 0 else permit.sent_at
    explained, changed, unknown = False, [], set()
    for hint, one in found:
        short = hint.remaining < (permit.cost if hint.counts is Counts.COST else 1)
        if one is None and hint.resource:
            continue  # of some calls only, and nobody knows which: it must not hold back the others
        if one is None:
            key = permit.key
            key.budget.listen(now).allow(hint, permit.mark, key.in_flight, now, limited=limited)
            unknown.add(hint.name)
            explained |= short
            continue
        owner, limit = one
        mark = next(part.mark for other, part in owners if other is owner)
        budget = owner.budget.listen(now)
        if change := budget.hear(limit, hint, sent_at, mark, now):
            changed.append((owner, change))
        explained |= short and budget.taken_by_others(limit) > 0
    if permit.key.budget.told is not None:
        permit.key.budget.told.silent(permit.mark, permit.cost, unknown, now)
    return Heard(explained, changed)


def _refused(budget: Budget, part: Part, answered_at: int) -> None:
    if budget.told is not None and part.flight is not None:
        late = part.flight.gone  # J had passed before its answer
        budget.told.refused(part.cost, part.flight.last + budget.jitter if late else answered_at)


def _owners(permit: Permit) -> list[tuple[KeyState | GroupState, Part]]:
    """Who paid for the call, and its part in each budget."""
    return [(permit.key, permit), *((share.owner, share) for share in permit.shares)]
