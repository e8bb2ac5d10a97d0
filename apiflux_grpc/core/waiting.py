"""What calls wait for in the ordinary course: a limit of which nothing is left, or the time of their next attempt.

Rule: a key that more than its limits holds back (holding.py tells that) is left out, and so is one whose calls in
flight are all that it may have; if any other has room, calls wait for nothing. Nothing is changed here; it is looked at
about once a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apiflux_grpc.core import held
from apiflux_grpc.core.bucket import FAR, Bucket
from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.holding import MOST_LABELS
from apiflux_grpc.core.keys import KeyState
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.room import window_room_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.keys import GroupState, Seat
    from apiflux_grpc.core.model import Limit


class _Spent(NamedTuple):
    """A limit that a call must wait for, whose it is, and until when."""

    at: int
    limit: Limit
    owner: KeyState | GroupState


# What a call of this cost must wait for by the limits of one owner, so that each is asked once for all path classes.
Known = dict[tuple["KeyState | GroupState", int], "_Spent | None"]


def for_limit(seats: Iterable[Seat], cost: int, now: int, known: Known) -> Held | None:
    """What a call of `cost` waits for, whichever of these keys it may use, in the words of that which has room first;
    None: for no limit. `known` is of this `now`."""
    spent: list[_Spent] = []
    for seat in seats:
        key = seat.key
        told = key.budget.told
        if key.in_flight >= key.most or seat.usable_at(now) > now or (told is not None and told.wait(cost, now) > now):
            continue
        one = _latest(seat, cost, now, known)
        if one is None:
            return None
        spent.append(one)
    if not spent:
        return None
    first = min(spent, key=lambda one: one.at)
    is_own = isinstance(first.owner, KeyState)
    owners = [one.owner for one in spent if one.limit == first.limit and isinstance(one.owner, KeyState) is is_own]
    labels = dict.fromkeys(label for owner in owners for label in owner.labels)
    until = first.at if first.at < FAR else None
    shared = 0 if is_own else len({id(owner) for owner in owners})
    words = held.spent(first.limit, tuple(labels), shared)
    return Held(Cause.SPENT, words, now, until, tuple(labels)[:MOST_LABELS], len(labels))


def for_time(calls: int, at: int, now: int) -> Held:
    """So many calls wait for their next attempt, the first of them until `at`."""
    return Held(Cause.BACKOFF, held.backoff(calls), now, at if now < at < FAR else None)


def _latest(seat: Seat, cost: int, now: int, known: Known) -> _Spent | None:
    """Of all limits that such a call meets, the one that has room last; None: all have room."""
    latest: _Spent | None = None
    owners: tuple[KeyState | GroupState, ...] = (seat.key, *seat.others)
    for owner in owners:
        if (owner, cost) not in known:
            known[owner, cost] = _latest_of(owner, cost, now)
        one = known[owner, cost]
        if one is not None and (latest is None or one.at > latest.at):
            latest = one
    return latest


def _latest_of(owner: KeyState | GroupState, cost: int, now: int) -> _Spent | None:
    latest: _Spent | None = None
    for limit, keeper in owner.budget.kept_limits:
        amount = 1 if limit.counts is Counts.CALLS else cost
        if isinstance(keeper, Bucket):
            at = keeper.ready_at(amount, now)
        elif keeper.free >= amount:
            continue
        else:
            at = window_room_at(owner.budget, keeper, limit.counts, amount, now)
        if at > now and (latest is None or at > latest.at):
            latest = _Spent(at, limit, owner)
    if latest is None and owner.budget.is_unleased:
        return _Spent(FAR, owner.budget.limits[0], owner)  # others have spent the rest of it, or will
    return latest
