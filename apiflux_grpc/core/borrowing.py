"""How much the keys of a pool borrow of their budgets, and when they ask for it.

Rule: a ledger asks for what its calls can use within `reach`, a part of a lease's life, not for one call at a time: for
as much as it has spent of late, and for its part of what waits. What is asked for and not sent is lost to all for a
while if the process is killed, so that it isn't more. Calls that no lease is left for are shared out among those who
lack one, the key with the most headroom first, until all are asked for; so one call isn't asked for with every key.

Nothing is looked at that is neither short of a lease nor due. Between two looks at least LOOKS-th of a lease's life
passes, unless a call waits for it. A round that no call's haste needs waits for others: see tempo.py.

Not known here: the store, and who waits. Owner: the pool's keyring.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.alarms import Alarms
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.words import NOTHING, Amounts
from apiflux_grpc.core.room import back_by
from apiflux_grpc.core.shared_blocks import Probes, SharedBlocks
from apiflux_grpc.core.slots import SlotBorrower, Slots
from apiflux_grpc.core.store_health import StoreHealth, in_words
from apiflux_grpc.core.tempo import Tempo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.core.borrower import Borrower, Tier
    from apiflux_grpc.core.held import Held
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.lease.words import Cap, Fact, Reply
    from apiflux_grpc.core.model import Limit

LOOKS: Final = 16
MOST: Final = 100  # budgets in one exchange: all of its rounds take as long as the last


class Demand(Protocol):
    """What waits in the pool."""

    def waiting_for(self, paths: tuple[str, ...]) -> int:
        """Calls that meet the limits with these paths; all, if there are none."""

    def begun_within(self, length: int) -> int:
        """The most calls that can begin in so long (ns), by the bound on those in flight."""

    def mean_cost(self) -> float:
        """Of the calls that wait."""


class Borrowing:
    """The ledgers of a pool. `woken` is told whose calls may have a lease again; `listeners` of what others have told
    of a budget, each fact as it changed."""

    __slots__ = (
        "_alarms",
        "_deferred",
        "_mean",
        "_tempo",
        "_woken",
        "borrowers",
        "listeners",
        "probes",
        "slots",
        "store",
        "tiers",
    )

    def __init__(self, woken: Callable[[KeyState | GroupState, int], None], *, is_near: bool = False) -> None:
        self.store = StoreHealth()
        self.slots = Slots()
        self.borrowers: list[Borrower] = []
        self.listeners: list[Callable[[Borrower, Fact, int], None]] = []
        self.tiers: dict[object, Tier] = {}
        self._alarms: Alarms[Borrower] = Alarms()
        self._mean = 0.0  # cost of the calls that wait, while it's asked who has a round to send; 0: not known yet
        self._woken = woken
        self.probes = Probes(self.store, woken)
        self._tempo = Tempo(is_near=is_near)
        self._deferred: dict[Borrower, None] = {}  # those with a round that waits for the next exchange

    def add(self, borrower: Borrower, now: int) -> None:
        """Its store is to know it before there is work."""
        self.borrowers.append(borrower)
        self._tempo.keep(borrower, borrower.tier, borrower.ledger.caps)
        say = partial(self._by, borrower)
        borrower.blocks = SharedBlocks(borrower.owner, borrower.ledger.news, self.probes, say)
        self._alarms.set(borrower, now)

    def change(self, borrower: Borrower, limits: Sequence[Limit], caps: Sequence[Cap], now: int) -> None:
        """Its owner has other limits from now on; `caps` are these as a store counts them."""
        self._has(borrower)  # what found no lease may fit never, or with what there is
        borrower.ledger.change(caps, now)
        borrower.keep_to(limits)
        self._tempo.keep(borrower, borrower.tier, borrower.ledger.caps)
        self._alarms.set(borrower, now)

    def retire(self, borrower: Borrower, now: int) -> None:
        """Its owner has no limits any more: it leaves. What it lets be sent is charged until its leases have ended."""
        self._has(borrower)
        borrower.retired = True
        borrower.blocks.let_go()
        self.borrowers.remove(borrower)
        self._tempo.drop(borrower)
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
        if borrower in self._deferred:
            return  # it's looked at with the next exchange, and not in each pass until then
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
        # Before others: what isn't renewed in time can't be used any more. But half is for leases, if so many are due:
        # of many keys slots may be due in each exchange, if that takes long.
        slots = self._ask_slots(now, demand, MOST // 2)
        leases = self._ask(now, demand, MOST - len(slots), goes=bool(slots))
        if len(slots) == MOST // 2:
            slots += self._ask_slots(now, demand, MOST - len(slots) - len(leases))
        asking: list[Borrower | SlotBorrower] = [*slots, *leases]
        # What was too much for this exchange goes with the next, at once.
        if asking and len(asking) < MOST:
            self._tempo.went(now)
        return asking

    def _ask_slots(self, now: int, demand: Demand, most: int) -> list[SlotBorrower]:
        if not most or not (self.slots.borrowers or self.slots.next_at() < FAR):
            return []
        asking = self.slots.ask(now, min(demand.waiting_for(()), demand.begun_within(0)), most)
        dropped, self.slots.dropped = self.slots.dropped, []
        for one in dropped:
            self._woken(one.key, now)
        return asking

    def _ask(self, now: int, demand: Demand, most: int, *, goes: bool) -> list[Borrower]:
        """At most so many; `goes`: an exchange is sent anyway."""
        found: list[Borrower] = []
        self._mean = 0.0
        if self.probes.waiting:
            self.probes.look(now, demand.waiting_for)
        if goes or self._tempo.is_open(now):
            self._take_along(now, demand, found, most)
        for tier in self.tiers.values():
            if tier.short and len(found) < most:
                self._share_out(tier, now, demand, found, most)
        if len(found) < most:
            for borrower in self._alarms.ring(now):
                self._look(borrower, now, demand, found)
                if len(found) >= most:
                    break
        if goes or found:
            self._take_along(now, demand, found, most)
        return found

    def _take_along(self, now: int, demand: Demand, found: list[Borrower], most: int) -> None:
        """Those that waited for an exchange."""
        while self._deferred and len(found) < most:
            borrower = next(iter(self._deferred))
            del self._deferred[borrower]
            self._look(borrower, now, demand, found, goes=True)

    def _share_out(self, tier: Tier, now: int, demand: Demand, found: list[Borrower], most: int) -> None:
        missing = demand.waiting_for(tier.paths) - tier.asked
        while missing > 0 and tier.short and len(found) < most:
            borrower = next(iter(tier.short))
            part = self._part(borrower, demand).calls
            if not part:
                break  # all that can be in flight is
            before = len(found)
            self._look(borrower, now, demand, found)
            if len(found) > before:
                missing -= part

    def _part(self, borrower: Borrower, demand: Demand) -> Amounts:
        """What it asks for calls that wait."""
        waiting, most = demand.waiting_for(borrower.tier.paths), demand.begun_within(borrower.reach)
        if borrower.by_cost:
            self._mean = self._mean or demand.mean_cost()  # that looks at all open batches: once for all keys
        return borrower.part(waiting, most, self._mean if borrower.by_cost else 1.0)

    def _look(self, borrower: Borrower, now: int, demand: Demand, found: list[Borrower], *, goes: bool = False) -> None:
        ledger, tier = borrower.ledger, borrower.tier
        if ledger.under_way is not None:
            return  # its reply sets the alarm
        if borrower.retired:
            ledger.leave(now)
            found.append(borrower)
            return
        ledger.delay = self._tempo.span
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
        if not (goes or found or self._tempo.is_open(now) or ledger.is_pressing(now, calls, cost)):
            if ledger.wake_at(now, calls, cost) <= now:
                self._deferred[borrower] = None
                return
        elif ledger.next_round(now, calls, cost) is not None:
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
        if reply.now:
            self._tempo.told(reply.now, now)
            self._tempo.members(len(reply.roster))
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
        at = min(self._alarms.next_at(), self.slots.next_at())
        return min(at, self._tempo.opens_at()) if self._deferred else at

    def __repr__(self) -> str:
        return f"<Borrowing of {len(self.borrowers)} budgets>"
