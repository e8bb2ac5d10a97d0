"""One lease, the replica's side.

Rule: a call is in one place at any time: *room* (not taken), *taken* (a permit), *flying* (sent, and neither answered
nor J past), *landed*, or *returned*; and what the lease may still send never grows but by what a call cost less.

A call is sent before `until` or not at all: whoever writes it looks at the clock right before.

What a call costs is known when it has ended. Its cost stays leased until then, and lands as old as its call: what it
was charged and didn't cost is room again, or is returned. What it cost more has an age of its own, from when it was
known: the call may be too old to count by then.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.terms import at_least, at_most
from apiflux_grpc.core.lease.words import Amounts, Group, Held

if TYPE_CHECKING:
    from collections.abc import Iterable


class Flying:
    """Calls of one lease that were sent at about the same instant, and whose end isn't known."""

    __slots__ = ("calls", "cost", "first", "last", "lent", "settled")

    def __init__(self, lent: Lent, at: int) -> None:
        self.lent = lent
        self.first = self.last = at
        self.calls = 0  # that haven't landed
        self.cost = 0  # that hasn't
        self.settled = 0  # of it, what is known, and lands with its calls


class Landing:
    """What landed at about the same instant; `last` is the latest."""

    __slots__ = ("calls", "cost", "first", "last")

    def __init__(self, at: int) -> None:
        self.first = self.last = at
        self.calls = 0
        self.cost = 0


class Lent:
    """A lease, to be sent before `until`. Instants are of the replica's own clock.

    `calls` and `cost` are its room. `by_cost`: cost was asked for, and counts.
    """

    __slots__ = (
        "_landed",
        "_late",
        "_over",
        "_returned",
        "_told",
        "_told_returned",
        "_unknown",
        "by_cost",
        "calls",
        "cost",
        "era",
        "flying",
        "granted",
        "landings",
        "number",
        "unsettled",
        "until",
    )

    def __init__(self, number: int, granted: Amounts, until: int, *, by_cost: bool = False, era: int = 0) -> None:
        self.number = number
        self.era = era  # of its ledger: another incarnation's are told by another
        self.granted = granted
        self.until = until
        self.by_cost = by_cost
        self.calls, self.cost = granted
        self.flying: deque[Flying] = deque()
        self.unsettled: deque[Flying] = deque()  # their calls have landed, their cost isn't known
        self._landed = [0, 0]
        self._returned = [0, 0]
        self._over = 0
        self._late = [0, 0]
        self.landings: deque[Landing] = deque()  # those that no reply has acknowledged
        self._told = 0  # of them, those that the round under way has told
        self._told_returned = 0  # cost
        self._unknown = True  # the store hasn't acknowledged all

    def fits(self, cost: int) -> bool:
        """Whether a call of this cost may be taken; it ends by `withdraw`."""
        return self.calls > 0 and (not self.by_cost or cost <= self.cost)

    @property
    def left(self) -> Amounts:
        """What may still be sent, or arrive, or cost."""
        calls, cost = self.granted
        return Amounts(
            calls - self._landed[0] - self._returned[0], cost + self._over - self._landed[1] - self._returned[1]
        )

    @property
    def spare(self) -> int:
        """The cost that the store gets back with the next round, if none of it is taken any more."""
        return self.cost + self._returned[1] - self._told_returned

    def owe(self, cost: int, at: int, span: int) -> None:
        """A call that another incarnation sent cost so much more than was known."""
        self._over += cost
        self._land(at, 0, cost, span)

    @property
    def is_over(self) -> bool:
        """Whether all of it has landed or was returned, and the store knows."""
        return not self._unknown and not any(self.left)

    @property
    def is_late(self) -> bool:
        """Whether some of it was sent after its end."""
        return self._late[0] > 0

    def withdraw(self) -> None:
        """No more of it is taken; what wasn't is returned."""
        if self.calls or self.cost:
            self._returned[0] += self.calls
            self._returned[1] += self.cost
            self.calls = self.cost = 0
            self._unknown = True

    def take(self, cost: int) -> None:
        """One call is taken; it must fit."""
        self.calls -= 1
        if self.by_cost:
            self.cost -= cost

    def give_back(self, cost: int) -> None:
        """One that was taken isn't sent."""
        self.calls += 1
        if self.by_cost:
            self.cost += cost

    def sent(self, cost: int, at: int, span: int) -> Flying:
        """One that was taken went out."""
        if not self.flying or not 0 <= at - self.flying[-1].first <= span:
            self.flying.append(Flying(self, at))
        flying = self.flying[-1]
        flying.last = max(flying.last, at)
        flying.calls += 1
        cost = cost if self.by_cost else 0
        flying.cost += cost
        if at >= self.until:
            self._late[0] += 1
            self._late[1] += cost
        return flying

    def answered(self, flying: Flying, cost: int, at: int, actual: int, jitter: int, span: int) -> int:
        """One of these got its answer, so it arrived by then; after its J it has landed already.

        Returns what it cost more than was taken for it.
        """
        over = 0
        if self.by_cost:
            # What was counted as its cost when it was too old for anything to change stays that.
            cost = min(cost, flying.cost)
            flying.cost -= cost
            over = max(0, actual - cost)
            self.cost += max(0, cost - actual)
            cost = min(cost, actual)
        else:
            cost = 0
        if flying.calls:
            flying.calls -= 1
            self._land(at, 1, cost, span)
        elif cost:
            self._land(flying.last + at_most(jitter), 0, cost, span)
        if over:
            self._over += over
            self._land(at, 0, over, span)
        return over

    def unanswered(self, flying: Flying, cost: int, jitter: int, span: int) -> None:
        """One of these gets no answer: it costs what it was charged, and lands when its J is past."""
        if not self.by_cost:
            return
        if flying.calls:
            flying.settled += cost
        elif cost <= flying.cost:
            flying.cost -= cost
            self._land(flying.last + at_most(jitter), 0, cost, span)

    def land(self, now: int, jitter: int, kept: int, span: int) -> None:
        """However late an answer comes, a call has arrived when J is past; its cost counts no more after `kept`."""
        late = at_most(jitter)
        while self.flying and self.flying[0].last + late <= now:
            flying = self.flying.popleft()
            if flying.calls or flying.settled:
                self._land(flying.last + late, flying.calls, flying.settled, span)
            flying.calls = 0
            flying.cost -= flying.settled
            if flying.cost:
                self.unsettled.append(flying)
        while self.unsettled and self.unsettled[0].last + late + kept <= now:
            flying = self.unsettled.popleft()
            if flying.cost:
                self._land(flying.last + late, 0, flying.cost, span)
            flying.cost = 0

    def _land(self, at: int, calls: int, cost: int, span: int) -> None:
        self._landed[0] += calls
        self._landed[1] += cost
        self._unknown = True
        landings = self.landings
        # None that the round under way has told: it's acknowledged as it was then.
        for place in range(len(landings) - 1, self._told - 1, -1):
            if 0 <= at - landings[place].first <= span:
                landing = landings[place]
                break
        else:
            landing = Landing(at)
            landings.append(landing)
        landing.last = max(landing.last, at)
        landing.calls += calls
        landing.cost += cost

    def told(self, now: int) -> Held:
        """For a round: what became of it so far."""
        self._told = len(self.landings)
        self._told_returned = self._returned[1]
        self._unknown = False
        groups = tuple(ages(self.landings, now))
        landed, returned, late = (Amounts(*amounts) for amounts in (self._landed, self._returned, self._late))
        return Held(self.number, landed, returned, groups, self._over, late)

    def untold(self) -> None:
        """The store has forgotten what the round under way told it."""
        self._told = 0
        self._unknown = True

    def acknowledged(self) -> list[Landing]:
        """The round that told of it got its reply. Returns the landings that the store knows now."""
        known = [self.landings.popleft() for _ in range(self._told)]
        self._told = 0
        return known

    def __repr__(self) -> str:
        return f"<Lent {self.number}: {self.calls} calls, {self.cost} cost of {self.granted}>"


def ages(landings: Iterable[Landing], now: int) -> Iterable[Group]:
    """How long ago they landed, at the least: a clock that runs fast must not make them older."""
    return (Group(one.calls, one.cost, at_least(now - one.last)) for one in landings)
