"""What one replica tells the others of a budget, what it was told by them, and what it claims for itself alone.

Rule: a fact is told until a reply acknowledged it, and again if the store has forgotten it. Only what others have
changed is handed on: what comes back of one's own, a little later by what was on its way, changes nothing.

Owner: the ledger of the budget. Not known here: what the names mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.terms import at_least
from apiflux_grpc.core.lease.words import Fact
from apiflux_grpc.core.units import MICROSECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.words import Reply, Round


class News:
    """Of one budget."""

    __slots__ = ("_claiming", "_heard", "_told", "_untold", "claimed", "claims")

    def __init__(self) -> None:
        self.claims: tuple[str, ...] = ()  # all that it claims now
        self.claimed: tuple[str, ...] = ()  # and what it has of that, by the last reply
        self._claiming: tuple[str, ...] = ()  # what it claimed when it last said so
        self._told: dict[str, tuple[int, int]] = {}  # its own facts: until when, by its own clock, and the amount
        self._untold: set[str] = set()  # those of them that no reply has acknowledged
        self._heard: dict[str, tuple[int, int]] = {}  # all facts: until when, by the store's time, and the amount

    @property
    def is_due(self) -> bool:
        """There is something to tell."""
        return bool(self._untold) or self.claims != self._claiming

    def tell(self, name: str, amount: int, until: int) -> None:
        """Tell all others. Of what it told before under this name, the one that ends later holds."""
        fact = (until, amount)
        if fact > self._told.get(name, (-1, 0)):
            self._told[name] = fact
            self._untold.add(name)

    def claim(self, name: str) -> None:
        """Claim this, until `release`; `claimed` has it once it is ours."""
        if name not in self.claims:
            self.claims = (*self.claims, name)

    def release(self, name: str) -> None:
        """Let another have it."""
        self.claims = tuple(claim for claim in self.claims if claim != name)
        self.claimed = tuple(claim for claim in self.claimed if claim != name)

    def facts(self, now: int) -> tuple[Fact, ...]:
        """What the next round tells."""
        self._claiming = self.claims
        if not self._untold:
            return ()
        for name in [name for name, (until, _) in self._told.items() if until <= now]:
            del self._told[name]
            self._untold.discard(name)
        return tuple(Fact(name, self._told[name][1], self._told[name][0] - now) for name in sorted(self._untold))

    def heard(self, round: Round, reply: Reply, began: int) -> tuple[Fact, ...]:
        """The reply to this round, which began then. Returns what others have told since the last."""
        ours = {fact.name: fact for fact in round.facts}
        for name, amount, left in round.facts:
            # Not what was told meanwhile: that is for the next round.
            if self._told.get(name) == (began + left, amount):
                self._untold.discard(name)
        self.claimed = tuple(claim for claim in reply.claims if claim in self.claims)
        if not reply.facts and not self._heard:
            return ()
        before, self._heard = self._heard, {fact.name: (reply.now + fact.left, fact.amount) for fact in reply.facts}
        return tuple(
            fact
            for fact in reply.facts
            if self._heard[fact.name] != before.get(fact.name) and not _is_own(fact, ours.get(fact.name))
        )

    def again(self) -> None:
        """The store has forgotten all that it was told."""
        self._untold |= self._told.keys()
        self._heard = {}

    def begin(self) -> None:
        """As another incarnation: what was claimed is claimed again."""
        self._claiming = self.claimed = ()


def later(facts: tuple[Fact, ...], passed: int) -> tuple[Fact, ...]:
    """The same facts when so much has passed since; none is told to end earlier."""
    passed = at_least(passed)
    return tuple(fact._replace(left=fact.left - passed) for fact in facts if fact.left > passed)


def _is_own(fact: Fact, ours: Fact | None) -> bool:
    # The store may count in microseconds, and takes what we told to have begun when it came.
    return ours is not None and fact.amount == ours.amount and fact.left < ours.left + MICROSECOND
