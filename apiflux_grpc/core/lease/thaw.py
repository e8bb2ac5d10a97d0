"""A frozen budget opened by hand: somebody knows that nothing was spent which its store doesn't remember.

Rule: who opens it is a visitor, and not a member: it has no limits, is granted nothing, confirms no time, and is in no
roster. What the store has been told since it began counts on. What it never had, or has lost without anybody having
asked since, it doesn't make: only a replica knows the limits.

A budget is frozen by its logs and its levels. Waits of seconds aren't ended: for calls in flight, for a new store that
is trusted, and for what is on its way once all replicas have told the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.hours import unknown_until
from apiflux_grpc.core.lease.level import unit_of
from apiflux_grpc.core.lease.words import Reply

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.entry import Entry
    from apiflux_grpc.core.lease.words import Round


def thaw(entry: Entry | None, round: Round, clock: int, run_id: str, *, steady: bool) -> Reply:
    """Open it. The reply's `opens` tells for how long it would have been frozen yet, 0: it wasn't; `epoch` is "" if the
    store doesn't know it."""
    if entry is None or entry.run_id != run_id:
        return Reply(round.number, "", clock)
    frozen = max(0, unknown_until(entry, round, steady=steady) - entry.last)
    if frozen:
        depths = {cap.like[:2]: cap.depth for cap in entry.caps(entry.last).values() if cap.depth}
        for log in entry.logs.values():
            log.opens = 0
        for like, level in entry.levels.items():
            if level.at > entry.last:
                # It was taken to be full; what has arrived since stays.
                level.filled = max(0, level.filled - depths.get(like, 0) * unit_of(level.per))
                level.at = entry.last
    return Reply(round.number, entry.epoch, entry.last, opens=frozen)
