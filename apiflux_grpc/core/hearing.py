"""Which limit a hint means, and what it says of it.

Rule: a hint means the limit whose period it tells; without a period, exactly one whose max it tells; telling neither,
the only one of its unit, unless it names some calls only. It is sought among the limits of all owners that paid for the
call: its key, the key's group, the limits with its path. What it says is counted for that owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.model import Counts, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.flight import Part
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.told import Meaning, Shape, Told

    Owned = tuple[KeyState | GroupState, Limit]


class Heard(NamedTuple):
    """What came of an answer's hints."""

    explained: bool  # others took what a refused call would have needed
    known: bool  # and what they leave is counted from now on
    changed: Sequence[tuple[KeyState | GroupState, int]]  # by how much the estimate of others did
    named: Sequence[Hint]  # of limits that aren't configured, and of some calls only


NOTHING: Final = Heard(False, False, (), ())
_UNKNOWN: Final[Meaning] = (-1, -1)  # no hint of this shape came yet


def meant(hint: Hint, limits: Sequence[Owned]) -> Owned | None:
    """The limit that a hint means, of those that these owners have; None: it isn't configured."""
    limits = may_mean(hint, limits)
    return limits[0] if len(limits) == 1 else None


def may_mean(hint: Hint, limits: Sequence[Owned]) -> Sequence[Owned]:
    """The limits that a hint may mean: if there is more than one, it can't be said which."""
    if hint.resource and hint.per is None and hint.max is None:
        return ()  # it is of some calls only, and a limit without paths is of all
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
    return limits


def is_short(hint: Hint, permit: Permit) -> bool:
    """Whether less is left than the permit's call takes."""
    return hint.remaining < (permit.cost if hint.counts is Counts.COST else 1)


def _has(limit: Limit, most: int | None) -> bool:
    """Whether the upstream may call this the limit's max: of a bucket it tells the depth."""
    return most is not None and most in ((limit.max, limit.depth) if limit.kind is Kind.BUCKET else (limit.max,))


def hear(permit: Permit, told: Sequence[Hint], answered_at: int, now: int, *, limited: bool) -> Heard:
    """An answer to the permit's call, which is settled, carried these hints; `limited`: it was refused for a limit."""
    own = permit.key.budget.listen(now) if told else permit.key.budget.told
    owners = _owners(permit) if permit.shares else [(permit.key, permit)]
    if limited:
        for owner, part in owners:
            if told:
                owner.budget.listen(now)
            _refused(owner.budget, part, answered_at)
    sent_at = permit.taken_at if permit.sent_at < 0 else permit.sent_at
    explained, known, changed, unknown = False, False, [], set()
    named: Sequence[Hint] = ()
    for hint in told:
        assert own is not None
        short = is_short(hint, permit)
        # What it means follows from what it always tells, so that it is found out once.
        shape = (hint.max, hint.per, hint.counts, permit.path_class, len(permit.shares), bool(hint.resource))
        one = own.meanings.get(shape, _UNKNOWN)
        if one is _UNKNOWN:
            one = _found(shape, hint, owners, own)
        if one is not None:
            owner, part = owners[one[0]]
            its = owner.budget.listen(now)
            if change := its.hear(one[1], hint, sent_at, part.mark, now):
                changed.append((owner, change))
            known |= short and its.is_taken_by_others(one[1])
        elif hint.resource:
            named = (*named, hint)
        else:
            own.allow(hint, permit.mark, permit.key.in_flight, now, limited=limited)
            unknown.add(hint.name)
            explained |= short
    if own is not None and own.has_words:
        own.silent(permit.mark, permit.cost, unknown, now)
    if not (explained or known or changed or named):
        return NOTHING
    return Heard(explained or known, known and not explained, changed, named)


def _found(shape: Shape, hint: Hint, owners: Sequence[tuple[KeyState | GroupState, Part]], own: Told) -> Meaning:
    found = meant(hint, [(owner, limit) for owner, _ in owners for limit in owner.budget.limits])
    meaning = None
    if found is not None:
        owner, limit = found
        kept = [one for one, _ in owner.budget.kept_limits]
        meaning = [one for one, _ in owners].index(owner), kept.index(limit)
    own.learn(shape, meaning)
    return meaning


def _refused(budget: Budget, part: Part, answered_at: int) -> None:
    if budget.told is not None and part.flight is not None:
        late = part.flight.gone  # J had passed before its answer
        budget.told.refused(part.cost, part.flight.last + budget.jitter if late else answered_at)


def _owners(permit: Permit) -> list[tuple[KeyState | GroupState, Part]]:
    """Who paid for the call, and its part in each budget."""
    return [(permit.key, permit), *((share.owner, share) for share in permit.shares)]
