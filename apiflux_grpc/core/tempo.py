"""When the rounds of a pool that can wait go: all together, at the instants of one beat.

Rule: all processes together make one exchange for so many calls as their limits let through, or so many in a second if
that is more; but no round waits for longer than a part of the shortest window, which is lost to use. The beat is the
store's time, so all come at the same instants: what has come back since the last is shared out evenly among those who
wait, and nobody asks for each call that comes back. What is due meanwhile goes along with any exchange that is sent for
something that can't wait.

Not known here: which rounds can wait. Owner: Borrowing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.lease.words import CALLS
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.lease.words import Cap

ENOUGH: Final = 16  # calls for one exchange; the goal is ten, and there are those that can't wait
LEAST: Final = 80  # exchanges a second, of all processes: a store has many more to spare
PART: Final = 12  # of the shortest window: on the average half of it is lost to use
LONGEST: Final = 100 * MILLISECOND  # a long window has leases that live a hundredth of it


class Tempo:
    """Opens once in each `span` (ns); 0: always."""

    __slots__ = ("_began", "_budgets", "_is_near", "_members", "_shift", "_span")

    def __init__(self, *, is_near: bool) -> None:
        self._is_near = is_near
        self._budgets: dict[object, tuple[object, Sequence[Cap]]] = {}  # their kinds and limits
        self._members = 1  # processes
        self._began = -LONGEST
        self._shift = 0  # of the store's time from ours
        self._span: int | None = None  # None: to be reckoned

    def keep(self, one: object, kind: object, caps: Sequence[Cap]) -> None:
        """This budget has these limits. A call pays from one budget of each kind."""
        self._budgets[one] = kind, caps
        self._span = None

    def drop(self, one: object) -> None:
        """This one has none any more."""
        del self._budgets[one]
        self._span = None

    def members(self, count: int) -> None:
        """So many processes share a budget."""
        if count != self._members:
            self._members = count
            self._span = None

    @property
    def span(self) -> int:
        """From one beat to the next."""
        if self._span is None:
            # A store nearby is asked for little at a time, and often: that costs no round trip.
            self._span = 0 if self._is_near else self._reckon()
        return self._span

    def _reckon(self) -> int:
        longest, rates = LONGEST, dict[object, float]()
        for kind, caps in self._budgets.values():
            longest = min(longest, *(cap.span // PART for cap in caps))
            calls = (cap.max * SECOND / cap.per for cap in caps if cap.counts == CALLS)
            rates[kind] = rates.get(kind, 0.0) + min(calls, default=0.0)
        rate = max(LEAST, min(rates.values(), default=0.0) / ENOUGH)
        return min(longest, int(self._members * SECOND / rate))

    def told(self, store: int, now: int) -> None:
        """It was so late by the store's time."""
        self._shift = store - now

    def went(self, now: int) -> None:
        """An exchange began, with all that was due."""
        self._began = now

    def is_open(self, now: int) -> bool:
        """Whether what can wait may go."""
        return self.opens_at() <= now

    def opens_at(self) -> int:
        """When it may: at the next beat, but not right after another exchange."""
        span = self.span
        if not span:
            return self._began
        earliest = self._began + span // 2 + self._shift
        return -(-earliest // span) * span - self._shift

    def __repr__(self) -> str:
        return f"<Tempo of {self.span / 1e6:g} ms>"
