"""What a fleet promises, and how much of a limit arrivals took: the judge's part of a fleet.

Rule: it knows instants and amounts as the upstream saw them, and nothing of leases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.lease.words import Cap


@dataclass
class Promise:
    """Limits that hold from `since` until their length after `until`, and no longer than until `replaced`.

    `replaced`: other amounts have taken their place then. `counts_all`: they took the place of others, so in a window
    of which the end is theirs all counts that arrived before.
    """

    key: str
    caps: tuple[Cap, ...]
    since: int
    until: int
    replaced: int = 1 << 62
    counts_all: bool = False


def fullest_bucket(
    arrivals: Sequence[int], cap: Cap, since: int, until: int, amounts: Sequence[int] | None = None
) -> float:
    """The most that was ever in this bucket, if it was empty at `since`."""
    each = zip(arrivals, amounts or [1] * len(arrivals), strict=True)
    level = fullest = 0.0
    last = since
    for at, amount in sorted(each):
        if since < at <= until:
            level = max(0.0, level - (at - last) * cap.max / cap.per) + amount
            fullest, last = max(fullest, level), at
    return fullest


def worst_window(
    arrivals: Sequence[int],
    per: int,
    since: int,
    until: int,
    amounts: Sequence[int] | None = None,
    *,
    counts_all: bool = False,
) -> int:
    """The most arrivals, or the most that they took, in any half-open window within [since, until]. `counts_all`: in
    any that ends there with an arrival."""
    each = zip(arrivals, amounts or [1] * len(arrivals), strict=True)
    within = [one for one in sorted(each) if (counts_all or since < one[0]) and one[0] <= until]
    worst = first = inside = 0
    for at, amount in within:
        inside += amount
        while at - within[first][0] >= per:
            inside -= within[first][1]
            first += 1
        if at > since:
            worst = max(worst, inside)
    return worst
