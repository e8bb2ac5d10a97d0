"""What a fleet may have less of a limit, by facts: what strangers take of it, and what refusals cut it by.

Rule: such a fact only ever lowers what is granted, until it ends. A wrong or an old one costs capacity until then, and
never lets more than a limit be spent.

    others/LIKE   strangers have `amount` of a window until it ends. Of a bucket its end tells all: so full of theirs
                  that it would have run empty by then. It is filled as such a fact comes, once
    cut/LIKE      it was cut by `amount`. A STEP-th of it comes back with each length of it, all by the end: of two cuts
                  the deeper one ends later

LIKE is a limit's length in microseconds, what it counts, and whether it is a bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.lease.level import unit_of
from apiflux_grpc.core.window import STEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apiflux_grpc.core.lease.words import Cap

    Facts = Mapping[str, tuple[int, int]]  # until when, and the amount

OTHERS: Final = "others"
CUT: Final = "cut"


def fact_name(of: str, cap: Cap) -> str:
    """The fact that tells this of a limit."""
    return f"{of}/{unit_of(cap.per)}/{cap.counts}/{int(cap.depth > 0)}"


def lowered(facts: Facts, caps: Iterable[Cap], now: int) -> list[Cap]:
    """The limits as they may be granted now; below 0 while strangers have more than all of a window."""
    return [_lowered(facts, cap, now) for cap in caps] if facts else list(caps)


def _lowered(facts: Facts, cap: Cap, now: int) -> Cap:
    less = 0
    until, amount = facts.get(fact_name(CUT, cap), (0, 0))
    if until > now:
        less = min(amount, -(-(until - now) // cap.per) * max(1, cap.max // STEP))
    if cap.depth:
        return cap._replace(max=max(1, cap.max - less))
    until, amount = facts.get(fact_name(OTHERS, cap), (0, 0))
    if until > now:
        less += amount
    return cap._replace(max=cap.max - less)
