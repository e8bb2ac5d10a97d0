"""What a replica and the store say to each other: one round, one reply.

Rule: a commit carries totals, never differences, so that one which is applied twice changes nothing. Spans of the
replica's clock cross over as ages, never as instants: no two clocks need to agree.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from apiflux_grpc.core.units import MICROSECOND

CALLS: Final = 0  # what a limit counts: places in Amounts
COST: Final = 1


class Amounts(NamedTuple):
    """So many calls, and what they cost together; 0 where no limit counts cost."""

    calls: int = 0
    cost: int = 0


NOTHING: Final = Amounts()


Like = tuple[int, int, bool]  # a limit's length, what it counts, whether it is a bucket


class Cap(NamedTuple):
    """At most `max` calls (or `max` of cost) in any `per` (ns).

    With a `depth` it is a bucket: so many at once, and `max` flow in during each `per`.
    """

    per: int
    max: int
    counts: int = CALLS
    depth: int = 0

    @property
    def like(self) -> Like:
        """Limits that are alike in this differ in their amounts alone: the lower holds."""
        return self.per, self.counts, self.depth > 0

    @property
    def span(self) -> int:
        """After how long (ns) nothing that was spent counts any more: a full bucket has run empty."""
        return self.per if not self.depth else -(-self.depth * self.per // self.max // MICROSECOND) * MICROSECOND


class Lower(NamedTuple):
    """A limit that holds here, and is lower than the replica's own or isn't among those: with its amounts as they hold,
    and by which incarnation."""

    cap: Cap
    whose: str


class Group(NamedTuple):
    """What landed together, `age` (ns) before this was said, or longer."""

    calls: int
    cost: int
    age: int


class Held(NamedTuple):
    """What became of one lease so far, in totals; what has neither landed nor been returned may be sent, or arrive.

    `over`: the cost that landed above what was taken for it, and so above what was granted. `late`: what was sent after
    the lease's end, as a stopped process may. `groups` are the landed
    that no reply has acknowledged, in the order in which they became known.
    """

    lease: int
    landed: Amounts
    returned: Amounts
    groups: tuple[Group, ...] = ()
    over: int = 0
    late: Amounts = NOTHING


class Memory(NamedTuple):
    """What a replica knows of a budget whose store forgot it: for windows that are too long to be waited for."""

    landed: tuple[Group, ...]  # all of its own in the longest window, the oldest first
    open: Amounts  # may still be sent, or arrive
    roster: frozenset[str]  # the incarnations that may have spent of it


class Fact(NamedTuple):
    """What one replica tells the others, `left` (ns) before it ends: what `name` means is for them to know."""

    name: str
    amount: int
    left: int


class Asked(NamedTuple):
    """Of calls in flight at once: this replica's settings allow `most`, and each has ended `timeout` (ns) after its
    sending. Until the reply comes no more than `holds` are in flight; `wants`: so many could be."""

    most: int
    timeout: int
    holds: int
    wants: int


class Allotted(NamedTuple):
    """So many `slots` for calls in flight, of `most` that all have together. `scarce`: others wait for more. `timeout`
    is the longest of all whose calls may be in flight."""

    slots: int
    most: int
    scarce: bool
    timeout: int = 0


class Use(NamedTuple):
    """What all who share a limit have of it.

    `spent` has landed in the window; of the others' the upstream `refused` so much, and didn't count that.
    `ending` of it may have ended at the upstream. `lent` may still be sent, or arrive, of the others' leases. Of a
    bucket `spent` is all: how full it is, and all leases.
    """

    spent: int
    ending: int = 0
    lent: int = 0
    refused: int = 0


class Round(NamedTuple):
    """What a replica asks and reports. `number` is 1 for its first; a round that got no reply is asked again as it was.

    `epoch`, `told` (the store's time) and `paused` are those of the last reply; `floor` is `told` and what passed
    since, at least; -1 without a reply. `held` lists all leases that the replica knows; what else the store has lent it
    is returned. `least`: the cost of a call that waits; a grant of less would not let it go. `claims` are the names of
    all that it claims for itself alone; what else it had is free again. `refused`: how much of what has landed in each
    of its limits, in their order, the upstream refused; () if it was told of none what is left. `delay`: by so much
    after its time it may ask for more, since its rounds wait for each other.
    """

    budget: str
    incarnation: str
    number: int
    caps: tuple[Cap, ...]
    life: int
    jitter: int
    epoch: str = ""
    told: int = -1
    floor: int = -1
    paused: int = 0
    want: Amounts = NOTHING  # more than it has leased
    least: int = 0
    round_trip: int = 0
    held: tuple[Held, ...] = ()
    memory: Memory | None = None
    leaves: bool = False
    trust: bool = False  # an empty store means that nothing was spent
    facts: tuple[Fact, ...] = ()  # that no reply has acknowledged
    claims: tuple[str, ...] = ()
    slots: Asked | None = None  # then it has no limits: see slots.py
    refused: tuple[int, ...] = ()
    delay: int = 0
    thaw: bool = False  # no replica's: see thaw.py


class Reply(NamedTuple):
    """What the store says to round `number`: what is `granted` is leased under that number.

    `again`: after how long (ns) it's worth asking for more; `opens`: after how long a frozen budget opens, 0 if it
    isn't. `refusal`: why nothing is ever granted to this replica; "": it isn't refused.
    """

    number: int
    epoch: str
    now: int
    granted: Amounts = NOTHING
    again: int = 0
    opens: int = 0
    refusal: str = ""
    roster: frozenset[str] = frozenset()
    paused: int = 0  # for how long the store's time was held back in all, which its clock wasn't
    forgotten: bool = False  # it was silent for so long that nothing of it counts: it must begin as another
    lower: tuple[Lower, ...] = ()  # limits of other replicas that hold for this one too
    facts: tuple[Fact, ...] = ()  # all that live: `left` is counted from `now`
    claims: tuple[str, ...] = ()  # which of its claims this replica has
    slots: Allotted | None = None  # for the calls that it begins within the life of a lease
    use: tuple[Use, ...] = ()  # of its limits, if the round told `refused`
