"""Who is granted how much of what is free.

Rule: what is free goes round in turn, to each its fair share, one call at the least; what one doesn't want is the
others'. A turn that isn't taken lapses, so that who has died holds up nobody. Who waits is told when the call comes
back that will be its own, so that not all ask for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.lease.terms import BEAT, TURN, lag_of, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.lease.entry import Entry
    from apiflux_grpc.core.lease.log import Log

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


def grant(entry: Entry, name: str, want: int, round_trip: int, life: int) -> tuple[int, int]:
    """(calls, after how long to ask for more) of a replica that wants so many."""
    now, members, queue = entry.last, entry.members, entry.queue
    me = members[name]
    me.want = want
    me.turn = max(TURN, 2 * round_trip)
    queue[:] = [one for one in queue if one == name or now <= members[one].due + members[one].turn]
    if not want:
        if name in queue:
            queue.remove(name)
        return 0, 0
    if name not in queue:
        queue.append(name)
    caps = entry.caps(now)
    used = {per: entry.logs[per].used + entry.leased(entry.logs[per], now) for per in caps}
    free = min(caps[per] - used[per] for per in caps)
    # Among those whose turn it is; the others' comes with what comes back then.
    present = [one for one in queue if one == name or members[one].due <= now]
    share = fair((members[one].want for one in present), free)
    theirs = sum(min(members[one].want, share) for one in present[: present.index(name)])
    granted = max(0, min(want, share, free - theirs))
    if granted:
        me.want -= granted
        queue.remove(name)
        if me.want:
            queue.append(name)
    if not me.want:
        return granted, 0
    ahead = queue.index(name) + 1 + granted
    again = max(_room_at(entry, entry.logs[per], used[per] + ahead - caps[per], now) for per in caps) - now
    # What has landed may be told any moment, and what is unsent be returned: then others' calls come back sooner.
    again = min(max(again, whole(life // PACE)), lag_of(min(caps)))
    me.due = now + again
    return granted, again


def _room_at(entry: Entry, log: Log, missing: int, now: int) -> int:
    """When so many more have come back."""
    if missing <= 0:
        return now
    ends = [*log.ends()]
    ends += [
        (lease.arrived + log.kept, lease.left)
        for member in entry.members.values()
        for lease in member.leases.values()
        if lease.left
    ]
    for end, amount in sorted(ends):
        missing -= amount
        if missing <= 0:
            return max(end, now)
    return now + BEAT
