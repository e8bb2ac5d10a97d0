"""How much the keys of a pool borrow of their budgets, and when they ask for it.

Rule: a ledger asks for what its calls can use within `reach`, a part of a lease's life, not for one call at a time: for
as much as it has spent of late, and for its part of what waits. What is asked for and not sent is lost to all for a
while if the process is killed, so that it isn't more. Calls that no lease is left for are shared out among those who
lack one, the key with the most headroom first, until all are asked for; so one call isn't asked for with every key.

Nothing is looked at that is neither short of a lease nor due. Between two looks at least LOOKS-th of a lease's life
passes, unless a call waits for it.

Not known here: the store, and who waits. Owner: the pool's keyring.

Over 400 lines: what one budget borrows, and how all of a pool's are asked for together.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.alarms import Alarms
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.words import NOTHING, Amounts
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.room import back_by
from apiflux_grpc.core.shared_blocks import Probes, SharedBlocks
from apiflux_grpc.core.slots import SlotBorrower, Slots
from apiflux_grpc.core.store_health import StoreHealth, in_words
from apiflux_grpc.core.units import MILLISECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.fleet import Fleet
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.lease.ledger import Ledger
    from apiflux_grpc.core.lease.words import Cap, Fact, Reply
    from apiflux_grpc.core.model import Limit

LOOKS: Final = 16
REACH: Final = 4  # so often in the life of a lease something is asked for at least; ledgers may twice as often
LEAST_SHARE: Final = 0.05  # that is hoped for of what others use alone
NEAR_PORTION: Final = 50  # a process that is killed loses at most one of so many of each limit
NEAR_PACE: Final = 5 * MILLISECOND  # and asks so often for another
MOST: Final = 100  # budgets in one exchange: all of its rounds take as long as the last


class Demand(Protocol):
    """What waits in the pool."""

    def waiting_for(self, paths: tuple[str, ...]) -> int:
        """Calls that meet the limits with these paths; all, if there are none."""

    def begun_within(self, length: int) -> int:
        """The most calls that can begin in so long (ns), by the bound on those in flight."""

    def mean_cost(self) -> float:
        """Of the calls that wait."""


class Spending:
    """What was taken of late: in this slice of time, and in the one before."""

    __slots__ = ("_before", "_now", "_slice", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self._slice = -2
        self._now = self._before = NOTHING

    def add(self, cost: int, now: int) -> None:
        """A call was taken."""
        self._turn(now)
        self._now = Amounts(self._now.calls + 1, self._now.cost + cost)

    def lately(self, now: int) -> Amounts:
        """What was taken within about one slice."""
        self._turn(now)
        return max(self._before, self._now)

    def less_at(self, now: int) -> int:
        """When that will be less, if nothing more is taken; FAR: it's nothing."""
        return (now // self.length + 1) * self.length if self.lately(now).calls else FAR

    def _turn(self, now: int) -> None:
        number = now // self.length
        if number != self._slice:
            self._before = self._now if number == self._slice + 1 else NOTHING
            self._slice, self._now = number, NOTHING


class Borrower:
    """One budget that is shared through a store: whose it is, its ledger, and what was spent of it of late."""

    __slots__ = (
        "_used",
        "asked",
        "blocks",
        "by_cost",
        "chunk",
        "fleet",
        "kept_until",
        "lacks",
        "ledger",
        "most",
        "owner",
        "portion",
        "reach",
        "retired",
        "short_at",
        "spending",
        "tier",
        "wake",
    )

    def __init__(
        self, owner: KeyState | GroupState, ledger: Ledger, limits: Sequence[Limit], tier: Tier, portion: int = 1
    ) -> None:
        """No more than one of so many portions of a limit is borrowed at a time, or what flows within its reach."""
        self.owner = owner
        self.ledger = ledger
        self.tier = tier
        self.wake = FAR  # for Alarms
        self.fleet: Fleet | None = None  # what the others have of it, from the budget's beginning on
        self.blocks: SharedBlocks
        self.portion = portion
        self.retired = False  # its owner has no limits any more
        self.lacks = 0  # a call of this cost, or 1, found no lease with enough; 0: none did since it was granted one
        self.asked = 0  # calls that wait for what it has asked for
        self.kept_until = -FAR  # what it has is returned no sooner
        self.short_at = -FAR  # when it was last granted less than it wanted
        self.keep_to(limits)

    def keep_to(self, limits: Sequence[Limit]) -> None:
        """What follows from the limits, which its ledger has too."""
        life, portion = self.ledger.life, self.portion
        self._used = Spending(max(limit.per for limit in limits))
        self.reach = min(life, max(life // REACH, 50 * MILLISECOND))
        self.spending = Spending(self.reach)
        self.by_cost = any(limit.counts is Counts.COST for limit in limits)
        # Within its reach: the most that can be sent, and as much as the limits let through at an even pace.
        self.most = self._least(limits, lambda one, flow: min(_most(one, flow), max(1, flow, one.max // portion)))
        self.chunk = self._least(limits, lambda limit, flow: max(1, flow))

    def _least(self, limits: Sequence[Limit], amount: Callable[[Limit, int], int]) -> Amounts:
        calls, cost = (
            min((amount(one, one.max * self.reach // one.per) for one in limits if one.counts is counts), default=FAR)
            for counts in (Counts.CALLS, Counts.COST)
        )
        return Amounts(calls, cost)

    def part(self, waiting: int, most: int, mean: float) -> Amounts:
        """Its part of so many calls that wait, of which so many at the most can be sent; of this mean cost."""
        if not waiting or not most:
            return NOTHING
        each = max(mean, 1e-3)  # a cost may be 0
        chunk = min(self.chunk.calls, max(1, int(self.chunk.cost / each)))
        share = max(chunk, -(-min(waiting, most) // self.tier.lacking))
        calls = min(self.most.calls, max(1, int(self.most.cost / each)), most, share)
        return Amounts(calls, max(self.lacks, math.ceil(calls * mean)) if self.by_cost else 0)

    def spent(self, cost: int, now: int) -> None:
        """A call was taken."""
        self.spending.add(cost, now)
        self._used.add(cost, now)

    def share(self, now: int) -> float:
        """The part of its limits that is ours, 0 to 1: 1 as long as it gets all that it wants."""
        if now - self.short_at >= self._used.length:
            return 1.0
        used = self._used.lately(now)
        parts = (
            (used.calls if limit.counts is Counts.CALLS else used.cost) * limit.per / (limit.max * self._used.length)
            for limit in self.owner.budget.limits
        )
        # What others use can be seen where all is used: of the limit that binds.
        return min(1.0, max(LEAST_SHARE, *parts))

    def __repr__(self) -> str:
        return f"<Borrower {self.ledger!r}>"


class Tier:
    """The budgets of one kind: those of the keys themselves, those of groups, those of limits with the same paths. A
    call pays from at most one of them."""

    __slots__ = ("asked", "lacking", "paths", "short")

    def __init__(self, paths: tuple[str, ...] = ()) -> None:
        self.paths = paths
        self.short: dict[
            Borrower, None
        ] = {}  # those that lack a lease and have asked for none, in the order of finding
        self.lacking = 0  # those that lack one, asked or not
        self.asked = 0  # calls that wait for what was asked for


class Borrowing:
    """The ledgers of a pool. `woken` is told whose calls may have a lease again; `listeners` of what others have told
    of a budget, each fact as it changed."""

    __slots__ = ("_alarms", "_mean", "_woken", "borrowers", "listeners", "probes", "slots", "store", "tiers")

    def __init__(self, woken: Callable[[KeyState | GroupState, int], None]) -> None:
        self.store = StoreHealth()
        self.slots = Slots()
        self.borrowers: list[Borrower] = []
        self.listeners: list[Callable[[Borrower, Fact, int], None]] = []
        self.tiers: dict[object, Tier] = {}
        self._alarms: Alarms[Borrower] = Alarms()
        self._mean = 0.0  # cost of the calls that wait, while it's asked who has a round to send; 0: not known yet
        self._woken = woken
        self.probes = Probes(self.store, woken)

    def add(self, borrower: Borrower, now: int) -> None:
        """Its store is to know it before there is work."""
        self.borrowers.append(borrower)
        say = partial(self._by, borrower)
        borrower.blocks = SharedBlocks(borrower.owner, borrower.ledger.news, self.probes, say)
        self._alarms.set(borrower, now)

    def change(self, borrower: Borrower, limits: Sequence[Limit], caps: Sequence[Cap], now: int) -> None:
        """Its owner has other limits from now on; `caps` are these as a store counts them."""
        self._has(borrower)  # what found no lease may fit never, or with what there is
        borrower.ledger.change(caps, now)
        borrower.keep_to(limits)
        self._alarms.set(borrower, now)

    def retire(self, borrower: Borrower, now: int) -> None:
        """Its owner has no limits any more: it leaves. What it lets be sent is charged until its leases have ended."""
        self._has(borrower)
        borrower.retired = True
        borrower.blocks.let_go()
        self.borrowers.remove(borrower)
        self.store.forget(borrower.owner)
        self._alarms.set(borrower, now)

    # -- what happens to a budget -------------------------------------------------------------

    def lacks(self, borrower: Borrower, cost: int) -> None:
        """A call of this cost found no lease."""
        if not borrower.lacks:
            borrower.tier.lacking += 1
            if borrower.ledger.under_way is None:  # else its reply comes first
                borrower.tier.short[borrower] = None
        borrower.lacks = max(borrower.lacks, cost, 1)

    def full(self, borrower: Borrower, cost: int, until: int) -> None:
        """A call of this cost finds no room here `until` then. It's asked for a little earlier, or all that comes back
        would be lent to those who ask."""
        if not borrower.lacks:
            borrower.tier.lacking += 1
        borrower.lacks = max(borrower.lacks, cost, 1)
        if borrower.ledger.under_way is None and until - borrower.reach < borrower.wake:
            borrower.tier.short.pop(borrower, None)
            self._alarms.set(borrower, until - borrower.reach)

    def keep(self, borrower: Borrower, now: int) -> None:
        """A call that it has a lease for waits for one of another budget: or each would go back in the very exchange
        that asks for the other, and none would ever meet."""
        borrower.kept_until = now + borrower.ledger.life // LOOKS

    def spent(self, borrower: Borrower, cost: int, now: int) -> None:
        """A call was taken."""
        borrower.spent(cost, now)
        self.changed(borrower, now)

    def changed(self, borrower: Borrower, now: int) -> None:
        """A call was taken, given back or answered: a round may be due soon."""
        soon = now + borrower.ledger.life // LOOKS
        if borrower.wake > soon and not borrower.retired:
            self._alarms.set(borrower, soon)

    def returned(self, borrower: Borrower, now: int) -> None:
        """A call wasn't sent: another may have its lease."""
        self._satisfy(borrower, now)
        self.changed(borrower, now)

    # -- rounds -------------------------------------------------------------------------------

    def ask(self, now: int, demand: Demand) -> list[Borrower | SlotBorrower]:
        """Those that have a round to send now, at most MOST; `under_way` of its ledger has it."""
        # Before others: what isn't renewed in time can't be used any more.
        slots: list[SlotBorrower] = []
        if self.slots.borrowers or self.slots.next_at() < FAR:
            slots = self.slots.ask(now, min(demand.waiting_for(()), demand.begun_within(0)), MOST)
            dropped, self.slots.dropped = self.slots.dropped, []
            for one in dropped:
                self._woken(one.key, now)
        return [*slots, *self._ask(now, demand, len(slots))]

    def _ask(self, now: int, demand: Demand, asking: int) -> list[Borrower]:
        found: list[Borrower] = []
        self._mean = 0.0
        if self.probes.waiting:
            self.probes.look(now, demand.waiting_for)
        for tier in self.tiers.values():
            if tier.short and len(found) + asking < MOST:
                self._share_out(tier, now, demand, found, MOST - asking)
        if len(found) + asking < MOST:
            for borrower in self._alarms.ring(now):
                self._look(borrower, now, demand, found)
                if len(found) + asking >= MOST:
                    break
        return found

    def _share_out(self, tier: Tier, now: int, demand: Demand, found: list[Borrower], most: int) -> None:
        missing = demand.waiting_for(tier.paths) - tier.asked
        while missing > 0 and tier.short and len(found) < most:
            borrower = next(iter(tier.short))
            part = self._part(borrower, demand).calls
            if not part:
                break  # all that can be in flight is
            missing -= part
            self._look(borrower, now, demand, found)

    def _part(self, borrower: Borrower, demand: Demand) -> Amounts:
        """What it asks for calls that wait."""
        waiting, most = demand.waiting_for(borrower.tier.paths), demand.begun_within(borrower.reach)
        if borrower.by_cost:
            self._mean = self._mean or demand.mean_cost()  # that looks at all open batches: once for all keys
        return borrower.part(waiting, most, self._mean if borrower.by_cost else 1.0)

    def _look(self, borrower: Borrower, now: int, demand: Demand, found: list[Borrower]) -> None:
        ledger, tier = borrower.ledger, borrower.tier
        if ledger.under_way is not None:
            return  # its reply sets the alarm
        if borrower.retired:
            ledger.leave(now)
            found.append(borrower)
            return
        if borrower.fleet is not None:
            borrower.fleet.prepare(now)
        part, want, full_until = NOTHING, borrower.spending.lately(now), FAR
        if borrower.lacks:
            part = self._part(borrower, demand)
            tier.short.pop(borrower, None)
            if not part.calls:
                tier.short[borrower] = None  # nothing waits just now
            else:
                part = Amounts(*map(min, part, back_by(borrower.owner.budget, now + borrower.reach)))
                full_until = borrower.owner.budget.next_change()
                if borrower.by_cost:
                    ledger.fits(borrower.lacks, now)  # it asks for what it knows to be missing, anew in each round
        else:
            room = ledger.room(now)
            if 2 * room.calls >= want.calls and 2 * room.cost >= want.cost * borrower.by_cost:
                want = min(want, room)  # a round for each call that was sent would be many
        calls = min(want.calls + part.calls, borrower.most.calls)
        # A call that costs more than a portion needs it whole.
        cost = min(want.cost + part.cost, max(borrower.most.cost, borrower.lacks)) if borrower.by_cost else 0
        if not calls and now < borrower.kept_until and ledger.room(now).calls:
            calls, full_until = 1, borrower.kept_until + borrower.reach
        if ledger.next_round(now, calls, cost) is not None:
            # Only what is on its way: if the store has nothing for it until later, another is to ask.
            borrower.asked = part.calls
            tier.asked += part.calls
            found.append(borrower)
            return
        wake_at = min(ledger.wake_at(now, calls, cost), borrower.spending.less_at(now), full_until - borrower.reach)
        self._alarms.set(borrower, max(now + 1, wake_at))

    def hear(self, borrower: Borrower | SlotBorrower, reply: Reply, now: int) -> None:
        """The reply to its round."""
        if isinstance(borrower, SlotBorrower):
            left = borrower.ledger.under_way is not None and borrower.ledger.under_way.leaves
            borrower.ledger.heard(reply, now)
            if borrower.retired:
                self.store.forget(borrower)
            else:
                self.store.heard(borrower, borrower.ledger, [*borrower.lower], now)
            self.slots.heard(borrower, now, left=left)
            self._woken(borrower.key, now)
            return
        asked = borrower.ledger.under_way
        told = borrower.ledger.heard(reply, now)
        borrower.tier.asked -= borrower.asked
        borrower.asked = 0
        if borrower.retired:
            if asked is not None and not asked.leaves:
                self._alarms.set(borrower, now)
            return
        if asked is not None and reply.granted.calls < asked.want.calls:
            borrower.short_at = now
        lower = [in_words(one, borrower.ledger) for one in borrower.ledger.lower]
        self.store.heard(borrower.owner, borrower.ledger, lower, now)
        if borrower.ledger.forgotten:
            borrower.ledger.begin(f"{borrower.ledger.incarnation}+")
        self.probes.heard(borrower.blocks, told, now)
        for fact in told:
            for listener in self.listeners:
                listener(borrower, fact, now)
        if borrower.fleet is not None and borrower.fleet.heard(borrower.ledger.use, told, now):
            self._woken(borrower.owner, now)
        self._satisfy(borrower, now)
        self._alarms.set(borrower, now)

    def _by(self, borrower: Borrower, at: int) -> None:
        """Look at it then, or before."""
        if at < borrower.wake:
            self._alarms.set(borrower, at)

    def tell(self, borrower: Borrower, name: str, amount: int, until: int, now: int) -> None:
        """Tell all others as soon as the pace allows: until then, of equal ends the larger amount."""
        borrower.ledger.news.tell(name, amount, until)
        self._by(borrower, now)

    def _satisfy(self, borrower: Borrower, now: int) -> None:
        if not borrower.lacks or not any(borrower.ledger.room(now)):
            return
        # What isn't enough for a dear call is for others, and the dear one goes on being asked for.
        if not borrower.ledger.fits(borrower.lacks if borrower.by_cost else 0, now):
            self._has(borrower)
        self._woken(borrower.owner, now)

    def _has(self, borrower: Borrower) -> None:
        """It lacks no lease, for all that is known."""
        if borrower.lacks:
            borrower.tier.short.pop(borrower, None)
            borrower.tier.lacking -= 1
            borrower.lacks = 0

    def holds(self, now: int) -> Sequence[Held]:
        """What of the store, or of those who share it, holds the pool's calls back now."""
        return (*self.store.holds(now), *self.slots.holds(now))

    def holds_of(self, key: KeyState, now: int) -> Sequence[Held]:
        """What of it holds this key's back."""
        owners = (*key.owners, *key.path_owners, *([self.slots.borrowers[key]] if key in self.slots.borrowers else []))
        return (*self.store.holds_of(owners, now), *self.slots.holds_of(key, now))

    def leave(self, now: int) -> list[Borrower | SlotBorrower]:
        """Those whose last round is to be sent: an orderly end."""
        leaving = [borrower for borrower in self.borrowers if borrower.ledger.leave(now) is not None]
        return [*self.slots.leave(now), *leaving]

    def next_at(self) -> int:
        """When to ask again; FAR: not before something happens."""
        return min(self._alarms.next_at(), self.slots.next_at())

    def __repr__(self) -> str:
        return f"<Borrowing of {len(self.borrowers)} budgets>"


def _most(limit: Limit, flow: int) -> int:
    """What it lets through at once and in the time of `flow`."""
    return limit.depth + flow if limit.kind is Kind.BUCKET else min(limit.max, limit.depth + flow)
