"""How full a bucket is that many share.

Rule: what is leased counts whole and leaks nothing until it is told to have arrived; then it fills the bucket, as if it
arrived that moment. A bucket into which the same amounts come later is never emptier, so the upstream's holds what this
one does, however long leases live and however late anything is told.

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

    def leak(self, cap: Cap, now: int) -> None:
        """Be as full as at `now`."""
        passed = (now - self.at) // MICROSECOND
        if passed > 0:
            self.at += passed * MICROSECOND
            passed = passed * DRIFT // (DRIFT + 1)  # clocks differ, so less flows in than this one tells
            self.filled = self.filled - passed * cap.max if passed <= self.filled // cap.max else 0

    def free(self, cap: Cap, leased: int) -> int:
        """What may be leased beside what is; below 0 while more is owed."""
        return (cap.depth * unit_of(cap.per) - self.filled) // unit_of(cap.per) - leased

    def free_after(self, amount: int, cap: Cap, leased: int) -> int:
        """How long until so much is free, if nothing arrives and what is leased stays so."""
        missing = max(0, self.filled + (amount + leased - cap.depth) * unit_of(cap.per))
        return -(-missing * (DRIFT + 1) // (cap.max * DRIFT)) * MICROSECOND

    def fill(self, amounts: Amounts) -> None:
        """So much arrived."""
        self.filled += amounts[self.counts] * unit_of(self.per)

    def __repr__(self) -> str:
        return f"<Level {self.filled / unit_of(self.per):g} per {self.per / 1e9:g} s>"


def full(cap: Cap, at: int) -> Level:
    """A bucket that nothing is known of but that it is no fuller than full at `at`."""
    return Level(cap.per, cap.counts, cap.depth * unit_of(cap.per), at)


def unit_of(per: int) -> int:
    """The parts that a bucket counts a call as."""
    return max(1, -(-per // MICROSECOND))
