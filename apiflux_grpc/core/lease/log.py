"""What is certainly spent of one limit, as a grouped log of instants.

Rule: calls within one 128th of the window come back together, `per` after the latest of them: later than some must,
never earlier. Reports come in any order, so groups are cells of a grid of the store's time: whatever the order, the
same calls make the same log, of at most 130 groups.

Groups hold instants, not ends, so that another length can be applied to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.terms import at_most, whole
from apiflux_grpc.core.units import MICROSECOND
from apiflux_grpc.core.window import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log:
    """The calls of the last `per` ns, and since when all are known."""

    __slots__ = ("cells", "kept", "opens", "per", "span", "used")

    def __init__(self, per: int, opens: int = 0) -> None:
        self.per = per
        self.kept = at_most(per)
        self.span = max(MICROSECOND, whole(per // GROUPS))
        self.opens = opens  # nothing may be granted before: what was spent earlier isn't known
        self.used = 0
        self.cells: dict[int, list[int]] = {}  # by place in the grid: [latest instant, amount]

    def record(self, instant: int, amount: int) -> None:
        """So many calls arrived by this instant."""
        self.used += amount
        cell = self.cells.setdefault(instant // self.span, [instant, 0])
        cell[0] = max(cell[0], instant)
        cell[1] += amount

    def expire(self, now: int) -> None:
        """Take back what has ended by `now`."""
        for place in [place for place, cell in self.cells.items() if cell[0] + self.kept <= now]:
            self.used -= self.cells.pop(place)[1]

    def ends(self) -> Iterator[tuple[int, int]]:
        """(end, amount) of every group."""
        return ((instant + self.kept, amount) for instant, amount in self.cells.values())

    def heir(self, per: int, now: int) -> Log:
        """The log of another length: what this one can't know counts as spent, until it must have ended."""
        # `opens` alone can't tell what else was spent before: an heir of an heir knows no more than it did.
        unknown = max(self.opens - self.kept, now - self.kept)
        new = Log(per, 0 if unknown + at_most(per) <= now else unknown + at_most(per))
        for instant, amount in self.cells.values():
            new.record(instant, amount)
        new.expire(now)
        return new

    def __repr__(self) -> str:
        return f"<Log {self.used} per {self.per / 1e9:g} s, {len(self.cells)} groups>"
