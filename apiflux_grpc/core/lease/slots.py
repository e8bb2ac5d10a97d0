"""How many calls each member may have in flight, the store's side.

Rule: what a member may have in flight is charged from the reply that allots it until the member has said that it keeps
to less, and the sum of all charges is never above the lowest of the bounds. A member that isn't heard any more begins
no call after the life of what it was allotted, and its last one has ended a timeout later: its charge ends then.

A slot isn't borrowed for one call: a member uses what it is allotted as often as it likes. Each gets an even part of
what it wants, and what one doesn't want is the others'. Whoever has more than its part is told so, begins no call above
it, and brings the rest back with its next round. If there are more members than slots, each has one for a turn.

An entry is of one kind: it has limits and leases, or slots. Its queue is the members who want any, in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.entry import Slots
from apiflux_grpc.core.lease.terms import SLOT_PACE, whole
from apiflux_grpc.core.lease.words import Allotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.lease.entry import Entry, Member
    from apiflux_grpc.core.lease.words import Round


def hear_slots(entry: Entry, member: Member, round: Round) -> None:
    """What this round says of the calls in flight. Nothing is allotted by it."""
    if round.slots is None:
        return
    if member.slots is None:
        member.slots = Slots(*round.slots)
    slots, now = member.slots, entry.last
    slots.most, slots.timeout, slots.holds, slots.wants = round.slots
    slots.until = now + round.life
    if not slots.allotted:
        slots.since = now
    slots.allotted = 0


def allot(entry: Entry, round: Round) -> int:
    """Allot this member its part. Returns after how long to ask for more; 0: it has all that it wants."""
    now, line, name = entry.last, entry.queue, round.incarnation
    all = {other: member.slots for other, member in entry.members.items() if member.slots is not None}
    mine = all[name]
    if name not in line:
        line.append(name)
    line[:] = [one for one in line if now < all[one].until and all[one].wants]
    charges = {other: slots.charge(now) for other, slots in all.items()}
    most = _most(entry)
    room = most - sum(charge for other, charge in charges.items() if other not in line)
    # A turn is over with the second renewal, whichever way the clocks differ.
    if room < len(line) and name in line[: max(0, room)] and now - mine.since >= whole(round.life * 3 // 4):
        line.remove(name)
        line.append(name)
    part = 0
    if name in line:
        part = even([all[one].wants for one in line], room)[line.index(name)]
    mine.allotted = max(0, min(part, most - sum(charges.values()) + charges[name]))
    if mine.allotted >= mine.wants:
        mine.next_since = -1
        return 0
    # Who is to have one as soon as it comes back looks for it soon, and the less often the longer that takes.
    if part <= mine.allotted and (part or line.index(name) >= 2 * room):
        mine.next_since = -1
        return whole(round.life // 2)
    if mine.next_since < 0:
        mine.next_since = now
    return min(max(whole((now - mine.next_since) // 8), SLOT_PACE), whole(round.life // 2))


def even(wants: Sequence[int], room: int) -> list[int]:
    """Even parts of so much room, none larger than is wanted; what can't be divided goes to the first."""
    left, rest = max(0, room), sorted(wants)
    level, more = rest[-1], 0
    for place, want in enumerate(rest):
        share, over = divmod(left, len(rest) - place)
        if want > share:
            level, more = share, over
            break
        left -= want
    parts = []
    for want in wants:
        one = 1 if want > level and more else 0
        more -= one
        parts.append(min(want, level) + one)
    return parts


def allotted(entry: Entry, name: str) -> Allotted:
    """What this member has, as its reply tells it."""
    slots = entry.members[name].slots
    assert slots is not None
    scarce = any(
        other.slots is not None and entry.last < other.slots.until and other.slots.allotted < other.slots.wants
        for one, other in entry.members.items()
        if one != name
    )
    return Allotted(slots.allotted, _most(entry), scarce, longest_timeout(entry))


def longest_timeout(entry: Entry) -> int:
    """Of all that is known here."""
    return max((member.slots.timeout for member in entry.members.values() if member.slots is not None), default=0)


def _most(entry: Entry) -> int:
    """The lowest bound of those that haven't left, or have calls in flight yet."""
    return min(
        (
            member.slots.most
            for member in entry.members.values()
            if member.slots is not None and (entry.lends_to(member) or member.slots.charge(entry.last))
        ),
        default=0,
    )
