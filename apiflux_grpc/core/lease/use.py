"""What all who share limits have of them, for a member that was told what is left of one.

Rule: by this, and what it has itself, it knows what strangers take: the others of its fleet aren't strangers. Nothing
is told to who doesn't ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.level import unit_of
from apiflux_grpc.core.lease.words import Use

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.entry import Entry, Member
    from apiflux_grpc.core.lease.words import Cap


def use_of(entry: Entry, name: str) -> tuple[Use, ...]:
    """Of each limit of this member; () if it didn't ask, or has left, and its limits with it."""
    member = entry.members[name]
    kept = all(cap.like[:2] in entry.levels if cap.depth else cap.per in entry.logs for cap in member.caps)
    return tuple(_use_of(entry, member, cap) for cap in member.caps) if member.refused and kept else ()


def _use_of(entry: Entry, mine: Member, cap: Cap) -> Use:
    now = entry.last
    if cap.depth:
        return Use(-(-entry.levels[cap.like[:2]].filled // unit_of(cap.per)) + entry.open()[cap.counts])
    log, refused, lent = entry.logs[cap.per], 0, 0
    for member in entry.members.values():
        if member is mine:
            continue
        # What was refused has ended like all else, though nobody was heard to say so.
        for other, amount in zip(member.caps, member.refused, strict=False):
            if other.like == cap.like and now - member.seen < cap.per:
                refused += amount
        for lease in member.leases.values():
            if lease.arrived > now - log.kept:
                lent += (lease.calls, lease.cost)[cap.counts]
    ending = sum(amounts[cap.counts] for end, amounts in log.ends() if end - log.kept <= now + mine.jitter - cap.per)
    return Use(log.used[cap.counts], ending, lent, refused)
