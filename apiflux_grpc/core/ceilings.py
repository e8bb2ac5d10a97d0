"""The upstream's own word on what is left of its limits.

Rule: it only ever tightens: no more than `left` may be taken until `until`. Of several words on one kind of limit those
count that allow less now or hold for longer; the lowest eight are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.model import Counts

MOST: Final = 8  # of one kind


@dataclass(slots=True)
class _Ceiling:
    counts: Counts
    left: int
    until: int

    def amount(self, cost: int) -> int:
        return 1 if self.counts is Counts.CALLS else cost


class Ceilings:
    """What may still be taken by the upstream's word. Falsy while there is none."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[_Ceiling] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def tighten(self, counts: Counts, left: int, until: int) -> None:
        """No more than `left` may be taken until `until` (ns)."""
        ours = [one for one in self._all if one.counts is counts]
        if any(one.left <= left and one.until >= until for one in ours):
            return
        kept = [one for one in ours if one.left < left or one.until > until]
        kept = sorted([*kept, _Ceiling(counts, left, until)], key=lambda one: one.left)[:MOST]
        self._all = [one for one in self._all if one.counts is not counts] + kept

    def wait(self, cost: int, now: int) -> int:
        """0: one call of `cost` may be taken. Else the instant from which it may."""
        return max((one.until for one in self._all if one.until > now and one.left < one.amount(cost)), default=0)

    def take(self, cost: int) -> None:
        """One call of `cost` was taken."""
        for one in self._all:
            one.left -= one.amount(cost)

    def expire(self, now: int) -> None:
        """Forget what held until now."""
        if self._all:
            self._all = [one for one in self._all if one.until > now]

    def next_end(self) -> int:
        """When the first of them ends; FAR: there is none."""
        return min((one.until for one in self._all), default=FAR)

    def __repr__(self) -> str:
        return f"<Ceilings {len(self._all)}>"
