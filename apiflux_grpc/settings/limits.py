"""The limits of a pool, a key or a group; and a warning for one that doesn't do what it seems to.

Rule: a limit that can't be used is a fault. One that can be used but has no effect, or slows calls down more than it
seems to, is a warning with the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import shape
from apiflux_grpc.core.call import decoded
from apiflux_grpc.core.classes import MOST_CLASSES, Classes
from apiflux_grpc.core.model import Counts, Kind, Limit
from apiflux_grpc.core.units import LONGEST, SECOND, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.settings.findings import Findings, Place
    from apiflux_grpc.settings.tables import LimitTable, PoolTable


def limits_of(
    findings: Findings, place: Place, tables: Sequence[LimitTable | None] | None, jitter: int
) -> tuple[Limit, ...]:
    """The limits of this list; `jitter` is the pool's arrival_jitter, ns."""
    known = []
    for index, table in enumerate(tables or ()):
        limit = None if table is None else _limit(findings, (*place, index), table)
        if limit is not None:
            known.append(limit)
            _warn_of_spacing(findings, (*place, index), limit, jitter)
    for idle, binding in _idle(known):
        findings.warn(place, f"{idle} has no effect, because {binding} is always reached first")
    return tuple(known)


def _limit(findings: Findings, place: Place, table: LimitTable) -> Limit | None:
    for name in ("max", "per"):
        if getattr(table, name) is None:
            findings.fault((*place, name), "is missing")
    if table.max is None or table.per is None:
        return None
    if table.paths is not None and not table.paths:
        findings.fault((*place, "paths"), "is empty, so it would count no call; leave it out to count all")
    # Compared decoded; in one order, so that limits of the same paths are known to count the same calls.
    paths = tuple(sorted({decoded(path) for path in table.paths or () if path is not None}))
    limit = Limit(table.max, table.per, Counts(table.counts), Kind(table.kind), table.burst, paths)
    if table.burst is not None:
        burst, needed = (*place, "burst"), ((*place, "kind"), (*place, "max"), (*place, "per"))
        if limit.kind is Kind.WINDOW and table.burst > limit.max:
            findings.fault(burst, f"must be at most max ({limit.max})", *needed)
        if limit.kind is Kind.BUCKET and table.burst * limit.per > limit.max * LONGEST:
            findings.fault(burst, "must be smaller: at this rate it would take over 366 days to refill", *needed)
    return limit


def check_classes(findings: Findings, here: Place, pool: PoolTable, limits: Sequence[Limit]) -> None:
    """Calls that meet different limits wait apart, and every key is ranked for each kind of them."""
    kinds = Classes(limits).count - 1
    places = [] if pool.limits is None else [(*here, "limits")]
    for name, tables in (("keys", pool.keys), ("groups", pool.groups)):
        places += [(*here, name, at, "limits") for at, one in enumerate(tables) if one is not None and one.limits]
    if kinds > MOST_CLASSES:
        text = f"their paths make {kinds} kinds of calls that meet different limits; use at most {MOST_CLASSES}"
        findings.fault(places[0], text, *places[1:])
    allowed = tuple(decoded(path) for path in pool.allow_paths or () if path is not None)
    for path in sorted({path for limit in limits for path in limit.paths}):
        if allowed and not any(path.startswith(one) or one.startswith(path) for one in allowed):
            findings.warn(places[0], f"{path} counts no call, because allow_paths lets none have such a path")


def _warn_of_spacing(findings: Findings, place: Place, limit: Limit, jitter: int) -> None:
    """Calls that arrive late arrive bunched; if that could overfill a bucket, they are spaced out instead."""
    if limit.kind is Kind.WINDOW or limit.max * jitter <= (limit.depth - 1) * limit.per:
        return
    _, seconds = shape(limit, jitter)
    share = limit.per / SECOND / limit.max / seconds
    what, only = ("calls", "") if limit.counts is Counts.CALLS else ("units of cost", "no call may cost more, and ")
    findings.warn(
        place,
        f"arrival_jitter ({format_duration(jitter)}) leaves 1 of its burst of {limit.depth}: {only}{what} go out at "
        f"least {seconds * 1000:.4g} ms apart, at {share:.1%} of its rate",
    )


def _idle(limits: Sequence[Limit]) -> Iterator[tuple[Limit, Limit]]:
    """Pairs of (a limit that has no effect, the one that is reached before it)."""
    for index, limit in enumerate(limits):
        for other_index, other in enumerate(limits):
            if index == other_index or limit.counts is not other.counts:
                continue
            if _covers(other, limit) and (not _covers(limit, other) or index > other_index):
                yield limit, other
                break


def _covers(other: Limit, limit: Limit) -> bool:
    """Whether whoever keeps `other` keeps `limit`, too. Exact in whole numbers."""
    if other.paths and not (limit.paths and all(path.startswith(other.paths) for path in limit.paths)):
        return False  # there are calls that only `limit` counts
    other_flow, flow = other.max * limit.per, limit.max * other.per  # the rates, both times per * per
    if limit.kind is Kind.WINDOW and other.kind is Kind.WINDOW:
        # So many windows of `other` cover one of `limit`, and each has at most other.max.
        return other.max * -(-limit.per // other.per) <= limit.max
    if limit.kind is Kind.WINDOW:
        # In a window's time a bucket lets its depth through and what flows in meanwhile.
        return other.depth * other.per + other_flow <= flow
    return (other.max if other.kind is Kind.WINDOW else other.depth) <= limit.depth and other_flow <= flow
