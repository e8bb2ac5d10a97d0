"""One budget as the store has it.

Rule: `last` is the newest time that some replica's own clock has confirmed; nothing ends by a time that none has. Every
field is written by `serve` and its parts alone, in one transaction.

A lease is charged whole from its grant. Its calls leave it for the logs and the levels as they land, or come back as
they are returned; what nobody reports has arrived by `arrived`: then it fills the buckets, and it counts in windows
until `per` after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apiflux_grpc.core.lease.less import lowered
from apiflux_grpc.core.lease.terms import LAPSE, at_most
from apiflux_grpc.core.lease.words import COST, NOTHING, Amounts, Lower

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiflux_grpc.core.lease.level import Level
    from apiflux_grpc.core.lease.log import Log
    from apiflux_grpc.core.lease.words import Cap, Like, Reply


@dataclass(slots=True)
class Lease:
    """So many `calls`, of so much `cost` together, may still be sent, or arrive; all have by `arrived`."""

    calls: int
    cost: int
    arrived: int
    landed: Amounts = NOTHING
    returned: Amounts = NOTHING
    over: int = 0
    late: Amounts = NOTHING


@dataclass(slots=True)
class Slots:
    """What one member has of the calls in flight that are allowed at once: see slots.py. Instants are the store's."""

    most: int
    timeout: int
    holds: int
    wants: int
    allotted: int = 0
    until: int = 0  # it begins calls until then, as far as is known now
    since: int = 0  # when it last had none
    next_since: int = -1  # since when it is next to get one; -1: it isn't

    def charge(self, now: int) -> int:
        """The most that it may have in flight."""
        return max(self.allotted, self.holds) if now < self.until + at_most(self.timeout) else 0


@dataclass(slots=True)
class Member:
    """One incarnation that uses the budget. Instants are the store's."""

    born: int
    seen: int
    reply: Reply
    caps: tuple[Cap, ...]
    life: int
    jitter: int
    number: int = 0
    established: bool = False  # its clock may confirm the store's
    left_at: int | None = None  # it said so
    refusal: str = ""
    want: Amounts = NOTHING
    least: int = 0  # the cost of a call that must fit into a grant
    due: int = 0  # when its turn comes
    turn: int = 0  # how long it's kept for it then
    refused: tuple[int, ...] = ()  # by the upstream, of what is landed in each of its limits
    leases: dict[int, Lease] = field(default_factory=dict)  # by the number of the round that was granted it
    slots: Slots | None = None

    @property
    def counts_cost(self) -> bool:
        """Whether it tells what its calls cost."""
        return any(cap.counts == COST for cap in self.caps)

    @property
    def late(self) -> int:
        """By how long after its grant what it is granted has arrived."""
        return self.life + at_most(self.jitter)

    def gone_at(self) -> int:
        """When it has left, as far as is known now."""
        return self.seen + LAPSE if self.left_at is None else self.left_at


@dataclass(slots=True)
class Entry:
    """Logs by the length of their windows, levels by that of their buckets and what they count; members in the order of
    their turns."""

    epoch: str
    run_id: str
    last: int
    offset: int = 0  # of the store's time from its clock
    paused: int = 0  # for how long it was held back in all
    trusted: bool = False  # it began empty, and that was taken to mean that nothing was spent
    began: int = 0
    logs: dict[int, Log] = field(default_factory=dict)
    levels: dict[tuple[int, int], Level] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)  # those who want more than they got, in turn
    registered: set[str] = field(default_factory=set)  # who has told what it remembers of the time before this epoch
    roster: set[str] = field(default_factory=set)  # and who must, for all that those know
    facts: dict[str, tuple[int, int]] = field(default_factory=dict)  # until when, and the amount
    claims: dict[str, tuple[int, str]] = field(default_factory=dict)  # until when, and whose

    def others(self, name: str) -> Iterator[Member]:
        """The other members that haven't left, and aren't refused."""
        # By `last`, not by the clock: if that has jumped ahead, everybody would seem to have left.
        for other, member in self.members.items():
            if other != name and self.lends_to(member):
                yield member

    def lends_to(self, member: Member) -> bool:
        """Whether it hasn't left, and isn't refused, as far as was known when it was last heard."""
        return not member.refusal and self.last < member.gone_at()

    def caps(self, now: int) -> dict[Like, Cap]:
        """The limits that hold now: of like ones the lower; one that has gone with its members, for its length more."""
        caps: dict[Like, Cap] = {}
        for member in self.members.values():
            for cap in member.caps:
                if now < member.gone_at() + at_most(cap.span):
                    held = caps.get(cap.like, cap)
                    caps[cap.like] = cap._replace(max=min(cap.max, held.max), depth=min(cap.depth, held.depth))
        return caps

    def lower(self, name: str) -> tuple[Lower, ...]:
        """The limits that hold for this member by others' word."""
        mine = self.members[name].caps
        if all(member.caps == mine for member in self.members.values()):
            return ()
        own = {cap.like: cap for cap in mine}
        found = []
        for like, cap in self.caps(self.last).items():
            ours = own.get(like)
            if ours is not None and cap.max >= ours.max and cap.depth >= ours.depth:
                continue  # it may be higher: our own has gone with us, until we are heard again
            whose = next(
                other
                for other, member in self.members.items()
                for one in member.caps
                if one.like == like and self.last < member.gone_at() + at_most(one.span) and _sets(one, cap, ours)
            )
            found.append(Lower(cap, whose))
        return tuple(found)

    def free(self, cap: Cap, now: int) -> int:
        """What may be granted of this limit; below 0 while more is owed."""
        if cap.depth:
            return self.levels[cap.per, cap.counts].free(cap, self.open()[cap.counts])
        log = self.logs[cap.per]
        return cap.max - log.used[cap.counts] - self.leased(log, now)[cap.counts]

    def free_after(self, cap: Cap, amount: int) -> int:
        """How long until a bucket has room for so much, by what leaks alone."""
        return self.levels[cap.per, cap.counts].free_after(amount, cap, self.open()[cap.counts])

    def open(self) -> Amounts:
        """What may still be sent, or arrive."""
        return self.leased_since(self.last)

    def leased(self, log: Log, now: int) -> Amounts:
        """The same, and what may have arrived within this log's length that nobody told of."""
        return self.leased_since(now - log.kept)

    def leased_since(self, instant: int) -> Amounts:
        """What is left of leases of which all has arrived only after this instant."""
        calls = cost = 0
        for member in self.members.values():
            for lease in member.leases.values():
                if lease.arrived > instant:
                    calls += lease.calls
                    cost += lease.cost
        return Amounts(calls, cost)

    def move_on(self, now: int) -> None:
        """It is `now` for certain."""
        before, self.last = self.last, now
        if not self.levels:
            return
        for cap in lowered(self.facts, self.caps(now).values(), now):
            if cap.depth:
                self.levels[cap.per, cap.counts].leak(cap, now)
        for member in self.members.values():
            for lease in member.leases.values():
                if before < lease.arrived <= now:
                    self.fill(Amounts(lease.calls, lease.cost))

    def record(self, instant: int, calls: int, cost: int) -> None:
        """So much arrived by this instant."""
        for log in self.logs.values():
            log.record(instant, calls, cost)

    def fill(self, amounts: Amounts) -> None:
        """So much arrived, for all that is known just now."""
        for level in self.levels.values():
            level.fill(amounts)


def _sets(one: Cap, held: Cap, ours: Cap | None) -> bool:
    """Whether it is by this limit that one holds which isn't ours."""
    if ours is None:
        return True
    return one.max == held.max < ours.max or one.depth == held.depth < ours.depth
