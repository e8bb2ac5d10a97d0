"""Whose limit a refusal is of: who is left alone for it, and which limit is cut.

Rule: a refused call met the limits of its key, of the key's group, and those with its path. If hints say that too
little is left of one, its owner alone is blocked: a used-up endpoint holds back no other call, and a shared limit all
keys that share it. Anything else is the key's. If the call was refused though every limit was kept, less is used of the
limit that the hints name, else of the tightest that the call met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.hearing import is_short, may_mean
from apiflux_grpc.core.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.bucket import Bucket
    from apiflux_grpc.core.hearing import Owned
    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.permit import Permit


def blamed(permit: Permit, told: Sequence[Hint]) -> Sequence[KeyState | GroupState]:
    """Who is blocked because the permit's call was refused with these hints."""
    if not told or not permit.shares:
        return (permit.key,)
    named: dict[KeyState | GroupState, None] = {}
    for limits in _named(permit, told):
        owners = {owner for owner, _ in limits}
        named[owners.pop() if len(owners) == 1 else permit.key] = None
    return tuple(named) or (permit.key,)


def cut(permit: Permit, told: Sequence[Hint], now: int) -> Limit | None:
    """Allow less of a limit that the permit's refused call met. Returns it, or None if nothing was cut (anew)."""
    rows = [
        (_headroom(kept, now), place, owner, limit, kept)
        for owner in permit.owners
        for place, (limit, kept) in enumerate(owner.budget.kept_limits)
    ]
    named = {one for limits in _named(permit, told) for one in limits}
    chosen = [row for row in rows if (row[2], row[3]) in named] or rows
    if not chosen:
        return None
    _, _, _, limit, kept = min(chosen, key=lambda row: row[:2])
    return limit if kept.cut(now, permit.taken_at) else None


def _named(permit: Permit, told: Sequence[Hint]) -> Iterator[Sequence[Owned]]:
    """For each hint that says that too little is left: the limits that it may mean."""
    met = [(owner, limit) for owner in permit.owners for limit in owner.budget.limits]
    return (may_mean(hint, met) for hint in told if is_short(hint, permit))


def _headroom(kept: Window | Bucket, now: int) -> float:
    return kept.free / kept.max if isinstance(kept, Window) else kept.headroom(now)
