"""What is certainly spent within one length of time, as a grouped log of instants.

Rule: calls within one 128th of the window come back together, `per` after the latest of them: later than some must,
never earlier. Reports come in any order, so groups are cells of a grid of the store's time: whatever the order, the
same calls make the same log, of at most 130 groups. Calls and their cost are kept side by side.

Groups hold instants, not ends, so that another length can be applied to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.terms import at_most, whole
from apiflux_grpc.core.lease.words import Amounts
from apiflux_grpc.core.units import MICROSECOND
from apiflux_grpc.core.window import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log:
    """The calls of the last `per` ns, and since when all are known."""

    __slots__ = ("calls", "cells", "cost", "kept", "opens", "per", "span")

    def __init__(self, per: int, opens: int = 0) -> None:
        self.per = per
        self.kept = at_most(per)
        self.span = max(MICROSECOND, whole(per // GROUPS))
        self.opens = opens  # nothing may be granted before: what was spent earlier isn't known
        self.calls = 0
        self.cost = 0
        self.cells: dict[int, list[int]] = {}  # by place in the grid: [latest instant, calls, cost]

    @property
    def used(self) -> Amounts:
        """What is in the log."""
        return Amounts(self.calls, self.cost)

    def record(self, instant: int, calls: int, cost: int) -> None:
        """So much arrived by this instant."""
        self.calls += calls
        self.cost += cost
        cell = self.cells.setdefault(instant // self.span, [instant, 0, 0])
        cell[0] = max(cell[0], instant)
        cell[1] += calls
        cell[2] += cost

    def expire(self, now: int) -> None:
        """Take back what has ended by `now`."""
        for place in [place for place, cell in self.cells.items() if cell[0] + self.kept <= now]:
            _, calls, cost = self.cells.pop(place)
            self.calls -= calls
            self.cost -= cost

    def ends(self) -> Iterator[tuple[int, Amounts]]:
        """(end, what then comes back) of every group."""
        return ((instant + self.kept, Amounts(calls, cost)) for instant, calls, cost in self.cells.values())

    def heir(self, per: int, now: int) -> Log:
        """The log of another length: what this one can't know counts as spent, until it must have ended."""
        # `opens` alone can't tell what else was spent before: an heir of an heir knows no more than it did.
        unknown = max(self.opens - self.kept, now - self.kept)
        new = Log(per, 0 if unknown + at_most(per) <= now else unknown + at_most(per))
        for instant, calls, cost in self.cells.values():
            new.record(instant, calls, cost)
        new.expire(now)
        return new

    def __repr__(self) -> str:
        return f"<Log {self.calls} calls, {self.cost} cost per {self.per / 1e9:g} s, {len(self.cells)} groups>"
