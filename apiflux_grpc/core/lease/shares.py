"""Who is granted how much of what is free.

Rule: what is free goes round in turn, to each its fair share, one call at the least; what one doesn't want is the
others'. A turn that isn't taken lapses, so that who has died holds up nobody. Who waits is told when the call comes
back that will be its own, so that not all ask for each. A call that costs more than its share waits until that much
has come back together: from who comes later nothing is kept but that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.less import lowered
from apiflux_grpc.core.lease.terms import BEAT, TURN, lag_of, whole
from apiflux_grpc.core.lease.words import CALLS, COST, NOTHING, Amounts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.lease.entry import Entry, Member
    from apiflux_grpc.core.lease.words import Cap, Round

PACE: Final = 8  # no replica asks more often than so many times in a lease's life


def fair(wants: Iterable[int], free: int) -> int:
    """The most that each may have, so that all who want less get what they want, and the rest is even; at least 1."""
    left, rest = free, sorted(wants)
    for place, want in enumerate(rest):
        share = left // (len(rest) - place)
        if want > share:
            return max(1, share)
        left -= want
    return max(1, free)


def grant(entry: Entry, round: Round) -> tuple[Amounts, int]:
    """(what, after how long to ask for more) of a replica that wants so much."""
    now, members, queue, name = entry.last, entry.members, entry.queue, round.incarnation
    me = members[name]
    me.want, me.least = round.want, min(round.least, round.want.cost)
    me.turn = max(TURN, 2 * round.round_trip, 2 * round.delay)
    nominal = entry.caps(now).values()
    caps = lowered(entry.facts, nominal, now)
    free_of = {cap: entry.free(cap, now) for cap in caps}
    free = [FAR, FAR]
    for cap in caps:
        free[cap.counts] = min(free[cap.counts], free_of[cap])
    for cap in nominal:
        if cap.counts == COST and me.least > (cap.depth or cap.max):
            me.want = NOTHING  # others have a lower limit, that its call never fits
    queue[:] = [one for one in queue if one == name or now <= members[one].due + members[one].turn]
    if not me.want.calls:
        if name in queue:
            queue.remove(name)
        return NOTHING, BEAT if round.want.calls else 0
    if name not in queue:
        queue.append(name)
    # Among those whose turn it is; the others' comes with what comes back then. Who came before waits until it may ask
    # again: what comes back at one instant isn't all for whoever asks first then. Who has its part comes no sooner than
    # others who are late for theirs, or what is left for those would be shared out anew.
    soon, place = now + max(whole(round.life // PACE), whole(round.delay // 2)), queue.index(name)
    present = [
        members[one]
        for number, one in enumerate(queue)
        if one == name or members[one].due <= (soon if number < place else now)
    ]
    share = Amounts(
        fair((one.want.calls for one in present), free[CALLS]), fair((one.want.cost for one in present), free[COST])
    )
    least = 0  # of those who come first
    for one in (members[other] for other in queue[:place]):
        least += one.least
        if one in present:
            part = _part(one, share)
            free[CALLS] -= part.calls
            free[COST] -= part.cost
        else:
            free[COST] -= one.least  # a dear call waits until enough has come back together
    granted = _even(me, _part(me, share), free)
    if granted.calls:
        me.want = Amounts(me.want.calls - granted.calls, max(0, me.want.cost - granted.cost))
        queue.remove(name)
        if me.want.calls:
            queue.append(name)
    if not me.want.calls:
        return granted, 0
    ahead = Amounts(queue.index(name) + 1 + granted.calls, least + me.least + granted.cost)
    room_at = max(
        now + entry.free_after(cap, ahead[cap.counts])
        if cap.depth
        else _room_at(entry, cap, ahead[cap.counts] - free_of[cap], now)
        for cap in caps
    )
    # What has landed may be told any moment, and what is unsent be returned: then others' calls come back sooner.
    again = min(max(room_at, soon) - now, lag_of(min(cap.span for cap in nominal)))
    me.due = now + again
    return granted, again


def _part(member: Member, share: Amounts) -> Amounts:
    """What a fair share is of what it wants, and one whole call at the least."""
    return Amounts(min(member.want.calls, share.calls), min(member.want.cost, max(share.cost, member.least)))


def _even(member: Member, part: Amounts, free: list[int]) -> Amounts:
    """As much of its part as is free: calls and cost to match, for one without the other would lie idle."""
    want, calls, cost = member.want, min(part.calls, free[CALLS]), min(part.cost, free[COST])
    if calls <= 0 or cost < member.least:
        return NOTHING
    if want.cost:
        calls = min(calls, -(-want.calls * cost // want.cost))
        first = member.least or -(-want.cost // want.calls)
        cost = min(cost, first + -(-(want.cost - first) * (calls - 1) // max(1, want.calls - 1)))
    return Amounts(calls, cost)


def _room_at(entry: Entry, cap: Cap, missing: int, now: int) -> int:
    """When so much more of this window has come back."""
    if missing <= 0:
        return now
    log, counts = entry.logs[cap.per], cap.counts
    ends = [(end, amounts[counts]) for end, amounts in log.ends()]
    ends += [
        (lease.arrived + log.kept, (lease.calls, lease.cost)[counts])
        for member in entry.members.values()
        for lease in member.leases.values()
    ]
    for end, amount in sorted(ends):
        missing -= amount
        if missing <= 0:
            return max(end, now)
    return now + BEAT
