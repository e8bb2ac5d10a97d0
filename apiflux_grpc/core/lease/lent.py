"""One lease, the replica's side.

Rule: a call is in one place at any time: *room* (not taken), *taken* (a permit), *flying* (sent, and neither answered
nor J past), *landed*, or *returned*; and what the lease may still send never grows.

A call is sent before `until` or not at all: whoever writes it looks at the clock right before.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.terms import at_least, at_most
from apiflux_grpc.core.lease.words import Group, Held

if TYPE_CHECKING:
    from collections.abc import Iterable


class Flying:
    """Calls of one lease that were sent at about the same instant, and haven't landed."""

    __slots__ = ("calls", "first", "last", "lent")

    def __init__(self, lent: Lent, at: int) -> None:
        self.lent = lent
        self.first = self.last = at
        self.calls = 0


class Landing:
    """Calls that landed at about the same instant; `last` is the latest."""

    __slots__ = ("amount", "first", "last")

    def __init__(self, at: int) -> None:
        self.first = self.last = at
        self.amount = 0


class Lent:
    """A lease of `granted` calls, to be sent before `until`. Instants are of the replica's own clock."""

    __slots__ = ("_told", "_unknown", "flying", "granted", "landed", "landings", "number", "returned", "taken", "until")

    def __init__(self, number: int, granted: int, until: int) -> None:
        self.number = number
        self.granted = granted
        self.until = until
        self.taken = 0
        self.flying: deque[Flying] = deque()
        self.landed = 0
        self.returned = 0
        self.landings: deque[Landing] = deque()  # those that no reply has acknowledged
        self._told = 0  # of them, those that the round under way has told
        self._unknown = True  # the store hasn't acknowledged all

    @property
    def room(self) -> int:
        """Calls that may be taken; it ends by `expire`."""
        return self.granted - self.taken - self.in_flight - self.landed - self.returned

    @property
    def in_flight(self) -> int:
        """Calls that were sent, and haven't landed."""
        return sum(one.calls for one in self.flying)

    @property
    def is_open(self) -> bool:
        """Whether some call may still be sent, or arrive."""
        return self.landed + self.returned < self.granted

    @property
    def is_over(self) -> bool:
        """Whether all its calls have landed or were returned, and the store knows."""
        return not self.is_open and not self._unknown

    def withdraw(self) -> None:
        """No more of it is taken; what wasn't is returned."""
        room = self.room
        if room > 0:
            self.returned += room
            self._unknown = True

    def sent(self, at: int, span: int) -> Flying:
        """One that was taken went out."""
        self.taken -= 1
        if not self.flying or not 0 <= at - self.flying[-1].first <= span:
            self.flying.append(Flying(self, at))
        flying = self.flying[-1]
        flying.last = max(flying.last, at)
        flying.calls += 1
        return flying

    def answered(self, flying: Flying, at: int, span: int) -> None:
        """One of these got its answer, so it arrived by then; after its J it has landed already."""
        if flying.calls and flying in self.flying:
            flying.calls -= 1
            self._land(at, 1, span)

    def land(self, now: int, jitter: int, span: int) -> None:
        """However late an answer comes, a call has arrived when J is past."""
        while self.flying and self.flying[0].last + at_most(jitter) <= now:
            flying = self.flying.popleft()
            if flying.calls:
                self._land(flying.last + at_most(jitter), flying.calls, span)

    def _land(self, at: int, amount: int, span: int) -> None:
        self.landed += amount
        self._unknown = True
        landings = self.landings
        # None that the round under way has told: it's acknowledged as it was then.
        if len(landings) <= self._told or not 0 <= at - landings[-1].first <= span:
            landings.append(Landing(at))
        landings[-1].last = max(landings[-1].last, at)
        landings[-1].amount += amount

    def told(self, now: int) -> Held:
        """For a round: what became of it so far."""
        self._told = len(self.landings)
        self._unknown = False
        return Held(self.number, self.landed, self.returned, tuple(ages(self.landings, now)))

    def acknowledged(self) -> list[Landing]:
        """The round that told of it got its reply. Returns the landings that the store knows now."""
        known = [self.landings.popleft() for _ in range(self._told)]
        self._told = 0
        return known

    def __repr__(self) -> str:
        return f"<Lent {self.number}: {self.room} of {self.granted}>"


def ages(landings: Iterable[Landing], now: int) -> Iterable[Group]:
    """How long ago they landed, at the least: a clock that runs fast must not make them older."""
    return (Group(one.amount, at_least(now - one.last)) for one in landings)
