"""How full a bucket is that many share.

Rule: what is granted fills the bucket at once, and a grant arrives within L + J of that. The most that arrives in any
time is what was granted in that and in L + J before it; so a depth that is lower by what flows in during L + J keeps
the upstream's own. If that leaves less than one call, the bucket fills more slowly, so that however calls bunch the
upstream's holds them (core/bucket.py).

What comes back unsent has been leaking since its grant, and others may have used that: so much less comes back.

Everything is whole: levels are counted in parts of a call, as many as the bucket's `per` has microseconds, so that
`max` of them flow in with each microsecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.terms import DRIFT
from apiflux_grpc.core.units import MICROSECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.words import Amounts, Cap


class Level:
    """`filled` parts at the instant `at`, which may be yet to come: then nothing leaks before."""

    __slots__ = ("at", "counts", "filled", "per")

    def __init__(self, per: int, counts: int, filled: int, at: int) -> None:
        self.per = per
        self.counts = counts
        self.filled = filled
        self.at = at

    def free(self, cap: Cap, late: int, now: int) -> int:
        """What may be granted at `now`, below 0 while more is owed; grants arrive up to `late` after."""
        unit = unit_of(cap.per)
        depth, slow = _shape(cap, late)
        passed = (now - self.at) // MICROSECOND
        if passed > 0:
            self.at += passed * MICROSECOND
            passed = passed * DRIFT // slow
            self.filled = self.filled - passed * cap.max if passed <= self.filled // cap.max else 0
        return (depth - self.filled) // unit

    def free_after(self, amount: int, cap: Cap, late: int) -> int:
        """How long until so much is free, if nothing is taken."""
        depth, slow = _shape(cap, late)
        missing = max(0, self.filled + amount * unit_of(cap.per) - depth)
        return -(-missing * slow // (cap.max * DRIFT)) * MICROSECOND

    def take(self, amounts: Amounts) -> None:
        """So much was granted, or was spent beside what was granted."""
        self.filled += amounts[self.counts] * unit_of(self.per)

    def give_back(self, amounts: Amounts, cap: Cap, since: int) -> None:
        """So much of what was granted `since` ago isn't sent."""
        back = amounts[self.counts] * unit_of(self.per) - cap.max * _up(since)
        self.filled = max(0, self.filled - max(0, back))

    def __repr__(self) -> str:
        return f"<Level {self.filled / unit_of(self.per):g} per {self.per / 1e9:g} s>"


def full(cap: Cap, at: int) -> Level:
    """A bucket that nothing is known of but that it is no fuller than full at `at`."""
    return Level(cap.per, cap.counts, cap.depth * unit_of(cap.per), at)


def most_of(cap: Cap, late: int) -> int:
    """The most that a single call may take of this limit."""
    if not cap.depth:
        return cap.max
    unit = unit_of(cap.per)
    return max(1, (cap.depth * unit - cap.max * _up(late)) // unit)


def _shape(cap: Cap, late: int) -> tuple[int, int]:
    """(depth in parts, how many of its own microseconds DRIFT of them are taken for)."""
    unit, flow = unit_of(cap.per), cap.max * _up(late)
    depth = cap.depth * unit - flow
    if depth >= unit:
        return depth, DRIFT + 1  # clocks differ, so less flows in than this one tells
    return unit, -(-(DRIFT + 1) * (unit + flow) // (cap.depth * unit))


def unit_of(per: int) -> int:
    """The parts that a bucket counts a call as."""
    return max(1, _up(per))


def _up(span: int) -> int:
    return -(-span // MICROSECOND)
