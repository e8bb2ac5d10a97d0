"""The store's time, and whether it has lost what it knew.

Rule: time here may pause, and never skips, or what was noted before ends too soon. The store's clock may be stepped;
the replicas' can't (BOOTTIME), so they hold it to its pace: each sends the last time that it was told, and what has
passed since at the least. A time that is further above that than a request can be on its way has jumped, and is held
back to it. Steps shorter than that aren't seen: clocks are slewed over those. A clock that was set back goes on from
the last time. Nothing makes up for a pause: whoever is late would make time skip.

A new incarnation can't tell a jump from before its own time. It gets nothing until all others must have been heard;
until then its word only ever holds time back, and nothing ends by what it was told.

An epoch is one unbroken memory of the store. Each names the run of the server and the round that began it, so that a
flush, a restart and a failover all begin another. Nothing is known then of what was spent, and of leases that live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.entry import Entry
from apiflux_grpc.core.lease.level import Level, full
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.slots import longest_timeout
from apiflux_grpc.core.lease.terms import DRIFT, FAILOVER_LAG, LAPSE, LONG, OFF, PROBATION, at_most
from apiflux_grpc.core.lease.words import COST

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.entry import Member
    from apiflux_grpc.core.lease.words import Cap, Round


def time_of(entry: Entry, member: Member | None, round: Round, clock: int) -> int:
    """The store's time now, as far as this replica can tell; `entry.last` has what is certain."""
    now = clock + entry.offset
    if now < entry.last:
        entry.offset += entry.last - now
        now = entry.last
    if member is not None and round.epoch == entry.epoch and round.floor >= 0:
        # The floor is less by 1/1000 of what has passed, and the clocks may differ by as much again.
        off = OFF + 2 * (round.floor - round.told) // DRIFT
        # Time has paused since it was told, so it stands so much lower now.
        held = max(entry.last, round.floor - (entry.paused - round.paused))
        if now - held > off:
            entry.paused += now - held
            entry.offset -= now - held
            now = held
    return now


def is_lost(entry: Entry, round: Round, run_id: str) -> bool:
    """Whether the store once knew more than it does."""
    if entry.run_id != run_id:
        return True
    if round.epoch != entry.epoch:
        return entry.trusted and round.epoch != ""  # somebody has spent of it after all
    member = entry.members.get(round.incarnation)
    if member is None:
        return round.number > 1 and not is_forgotten(entry, round)
    return round.number - 1 > member.number  # its last round was answered, and isn't known here


def is_forgotten(entry: Entry, round: Round) -> bool:
    """Whether the replica was silent for so long that the store need not know it any more."""
    return (
        round.epoch == entry.epoch
        and round.number > 1
        and round.incarnation not in entry.members
        and round.told < entry.last - _remembered(round.caps)
    )


def forget(entry: Entry) -> None:
    """Drop what has ended, and who has left for so long that nothing of it counts."""
    now = entry.last
    caps = entry.caps(now).values()
    windows, buckets = {cap.per for cap in caps if not cap.depth}, {cap.like[:2] for cap in caps if cap.depth}
    for per in [*entry.logs]:
        if per in windows:
            entry.logs[per].expire(now)
        else:
            del entry.logs[per]
    for like in [like for like in entry.levels if like not in buckets]:
        del entry.levels[like]
    longest = max((at_most(cap.span) for cap in caps), default=0)
    for name, member in [*entry.members.items()]:
        for number in [number for number, lease in member.leases.items() if lease.arrived + longest <= now]:
            del member.leases[number]
        # A lapse more than `is_forgotten` says: what it was told may be a little later than when it was seen.
        if member.slots is not None and member.slots.charge(now):
            continue
        if member.gone_at() + max(longest, _remembered(member.caps)) + LAPSE <= now and not member.leases:
            del entry.members[name]
            if name in entry.queue:
                entry.queue.remove(name)


def _remembered(caps: tuple[Cap, ...]) -> int:
    return max((at_most(cap.span) for cap in caps), default=0) + LAPSE


def begin(round: Round, clock: int, run_id: str, *, trusted: bool) -> Entry:
    """A new epoch."""
    epoch = f"{run_id}/{round.incarnation}/{round.number}"
    return Entry(epoch, run_id, last=clock, began=clock, trusted=trusted)


def know(entry: Entry, round: Round, *, steady: bool) -> None:
    """Have a log or a level of each limit of this round. What isn't known of the past counts as spent."""
    known = max(entry.logs, default=0)
    is_new = not entry.logs and not entry.levels
    trusted, since = is_new and entry.trusted, entry.began if is_new else entry.last
    # Leases of before live on, and their calls arrive. Nobody else has been told anything by a steady store's older
    # memory.
    lag = FAILOVER_LAG if is_new and not steady else 0
    arrived = round.life + round.jitter + lag
    for cap in round.caps:
        if cap.depth and cap.like[:2] not in entry.levels:
            empty = Level(cap.per, cap.counts, 0, entry.last)
            entry.levels[cap.like[:2]] = empty if trusted else full(cap, since + at_most(arrived))
        elif not cap.depth and cap.per not in entry.logs:
            if known:
                entry.logs[cap.per] = entry.logs[known].heir(cap.per, entry.last)
            else:
                # What arrived last ends then.
                entry.logs[cap.per] = Log(cap.per, 0 if trusted else since + at_most(cap.per + arrived))


def unknown_cost(entry: Entry, member: Member) -> None:
    """It counts cost from now on, and nobody did before: what those without such limits spent isn't known."""
    for other in entry.members.values():
        if other.counts_cost:
            continue
        arrived = other.life + other.jitter
        for cap in member.caps:
            if cap.counts != COST:
                continue
            if not cap.depth:
                log = entry.logs[cap.per]
                log.opens = max(log.opens, other.seen + at_most(cap.per + arrived))
            elif other.seen + at_most(cap.span + arrived) > entry.last:
                level = entry.levels[cap.like[:2]]
                entry.levels[cap.like[:2]] = full(cap, max(level.at, other.seen + at_most(arrived)))


def unknown_until(entry: Entry, round: Round, *, steady: bool) -> int:
    """From when on nothing counts any more that the store doesn't know; 0: it knows all."""
    opens = 0
    lag = 0 if steady else FAILOVER_LAG
    known = _all_have_told(entry)
    for log in entry.logs.values():
        if log.per > LONG and known:
            # All who may have spent of it have told what: only what is on its way yet must be waited for.
            opens = max(opens, min(log.opens, entry.began + at_most(lag + round.life + round.jitter)))
        else:
            opens = max(opens, log.opens)
    return max(opens, *(level.at for level in entry.levels.values() if level.at > entry.last), 0)


def opens_at(entry: Entry, round: Round, *, steady: bool) -> int:
    """From when on anything may be granted."""
    opens = unknown_until(entry, round, steady=steady)
    lag = 0 if steady else FAILOVER_LAG
    if round.slots is not None and not entry.trusted:
        # Calls are in flight that only those know of who began them; and if they have all told, nobody else's are.
        # Of one that is gone the others know how long they take: it may be longer than all of theirs.
        timeout = 0 if _all_have_told(entry) else longest_timeout(entry)
        opens = max(opens, entry.began + at_most(lag + round.life + timeout))
    if entry.trusted and not steady:
        opens = max(opens, entry.began + PROBATION)  # whoever has spent of it is heard by then
    return opens


def _all_have_told(entry: Entry) -> bool:
    """Whether everybody who may have spent of it has told what it remembers."""
    return bool(entry.registered) and entry.roster <= entry.registered
