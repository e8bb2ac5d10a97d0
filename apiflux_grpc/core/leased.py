"""The keys of a pool whose budgets are shared through a store: a call needs room in its own windows, and a lease.

Rule: a call takes a lease of every budget that it pays from, or of none, and is sent before the first of them ends. A
budget that has local room and no lease can't pay; its borrower asks for one, and the reply lists its keys again. The
local windows know only what was sent from here: they bound what may be asked for, and forecasts and reservations go on
reading them.

Pools without a store run the code of keyring.py and budget.py alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop
from itertools import count
from typing import TYPE_CHECKING

from apiflux_grpc.core.borrower import NEAR_PACE, NEAR_PORTION, Borrower, Tier
from apiflux_grpc.core.borrowing import Borrowing
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.budget_names import name_of_group, name_of_key, with_paths
from apiflux_grpc.core.fleet import Fleet, cap_of
from apiflux_grpc.core.keyring import Keyring
from apiflux_grpc.core.lease.ledger import Ledger
from apiflux_grpc.core.lease.slotledger import SlotLedger
from apiflux_grpc.core.lease.terms import LEAST_LIFE
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.slots import KEPT, SlotBorrower
from apiflux_grpc.core.told import Told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.classes import Classes
    from apiflux_grpc.core.keys import GroupState, KeyState, Seat
    from apiflux_grpc.core.lease.lent import Flying, Lent
    from apiflux_grpc.core.model import Limit, Pool
    from apiflux_grpc.core.ready import Entry
    from apiflux_grpc.core.window import Window

    Kind = tuple[str, tuple[str, ...]]  # whose a budget is, and its paths


@dataclass(frozen=True, slots=True)
class Leasing:
    """How a pool borrows. `incarnation` names this process and pool, and is drawn after any fork; `life` is that of a
    lease (ns), None: as follows from each budget's shortest limit, `least_life` at the least. `trust`: an empty store
    means that nothing was spent before. `is_near`: see LeaseStore."""

    incarnation: str
    life: int | None = None
    trust: bool = True
    least_life: int = LEAST_LIFE
    is_near: bool = False


class Loan:
    """What one call has of the leases of one budget."""

    __slots__ = ("borrower", "cost", "flying", "lent")

    def __init__(self, borrower: Borrower, lent: Lent, cost: int) -> None:
        self.borrower = borrower
        self.lent = lent
        self.cost = cost
        self.flying: Flying | None = None


class LeasedPermit(Permit):
    """A permit with what it has of leases."""

    __slots__ = ("loans", "slot", "slot_until")

    loans: tuple[Loan, ...]  # set as soon as it is paid for
    slot: SlotBorrower | None  # and what bounds its key's calls in flight
    slot_until: int

    @property
    def send_within(self) -> int | None:
        within = super().send_within
        for until in self._ends:
            left = until - 1 - self.taken_at  # the last instant that is allowed
            within = left if within is None else min(within, left)
        return within

    @property
    def _ends(self) -> list[int]:
        """Until when it may be sent, by each thing that it has."""
        ends = [loan.lent.until for loan in self.loans]
        return ends if self.slot is None else [*ends, self.slot_until]

    def is_late(self, at: int) -> bool:
        """Whether something that it was sent with had ended by then."""
        return any(at >= until for until in self._ends)


class LeasedBudget(Budget):
    """A budget of which a store has the whole, and this process what it leased."""

    __slots__ = ("_borrowing", "_fleet", "_now", "borrower", "loan")

    takes_back = True  # a burst that a lease is too short for: its rest would go at the rate of the window

    def __init__(
        self,
        limits: Sequence[Limit],
        jitter: int,
        make_pacer: PacerFactory | None,
        borrower: Borrower,
        borrowing: Borrowing,
    ) -> None:
        super().__init__(limits, jitter, make_pacer)
        self.borrower = borrower
        self.loan: Loan | None = None  # of the call that was taken last
        self._borrowing = borrowing
        self._now = 0
        self._fleet = borrower.fleet = Fleet(self, borrower.ledger)

    def inherit(self, heirs: tuple[tuple[Window, ...], tuple[Window, ...]], told: Told | None, now: int) -> None:
        super().inherit(heirs, None, now)
        self._fleet = self.borrower.fleet = Fleet(self, self.borrower.ledger)  # of these windows
        if told is not None:
            self.told = told
            told.follow(self.kept_limits, self.jitter, now, self._fleet.others_of)

    def listen(self, now: int) -> Told:
        if self.told is None:
            self.told = Told(self.kept_limits, self.jitter, now, self._fleet.others_of)
        return self.told

    def fits(self, cost: int, now: int) -> int:
        wait = super().fits(cost, now)
        if wait:
            if wait >= FAR and cost <= self.most_cost:
                self._borrowing.full(self.borrower, cost, self.next_change())
            return wait
        self._now = now
        if not self.borrower.ledger.fits(cost, now):
            return 0
        self._borrowing.lacks(self.borrower, cost)
        return FAR

    def take(self, cost: int) -> None:
        super().take(cost)
        self.loan = Loan(self.borrower, self.borrower.ledger.take(cost), cost)
        self._borrowing.spent(self.borrower, cost, self._now)

    @property
    def is_unleased(self) -> bool:
        return self.borrower.lacks > 0

    def share(self, now: int) -> float:
        return self.borrower.share(now)

    @property
    def opens_at(self) -> int:
        ledger = self.borrower.ledger
        return FAR if ledger.refusal else ledger.opens_at

    def rank(self, now: int = 0) -> tuple[float, int]:
        share, calls = super().rank(now)
        share += self.borrower.share(now) - 1  # what others have isn't free
        # Without any lease it is asked again when its borrower is told of one, not for every call.
        return share, 0 if self.borrower.lacks and not any(self.borrower.ledger.room(now)) else calls


class LeasedKeyring(Keyring):
    """The keys and groups of one pool, and what they borrow."""

    __slots__ = ("_borrowing", "_leasing", "_numbers", "_pool")

    permit = LeasedPermit

    def __init__(
        self, pool: Pool, classes: Classes, make_pacer: PacerFactory | None, now: int, leasing: Leasing
    ) -> None:
        self._pool = pool
        self._leasing = leasing
        self._numbers = count()
        super().__init__(pool, classes, make_pacer, now)
        self._borrowing = Borrowing(self.refresh, is_near=leasing.is_near)
        self._borrowing.store.keys = len(self.keys)
        for owner, name, kind in self._named(pool):
            if owner.budget.limits:
                owner.budget = self._lent(owner, name, kind, owner.budget.limits, now, trust=leasing.trust)
        for key in self.keys:
            if key.key.max_in_flight is not None:
                self._bound(key, key.key.max_in_flight, now)

    def _lent(
        self, owner: KeyState | GroupState, name: str, kind: Kind, limits: Sequence[Limit], now: int, *, trust: bool
    ) -> LeasedBudget:
        """A budget for this owner of which the store has the whole."""
        leasing, jitter = self._leasing, self._pool.arrival_jitter
        tier = self.borrowing.tiers.setdefault(kind, Tier(kind[1]))
        ledger = Ledger(
            name,
            f"{leasing.incarnation}-{next(self._numbers)}",
            [cap_of(limit) for limit in limits],
            jitter,
            leasing.life,
            least_life=leasing.least_life,
            trust=trust,
            pace=NEAR_PACE if leasing.is_near else None,
        )
        borrower = Borrower(owner, ledger, limits, tier, NEAR_PORTION if leasing.is_near else 1)
        budget = LeasedBudget(limits, jitter, self._make_pacer, borrower, self.borrowing)
        self.borrowing.add(borrower, now)
        return budget

    def _bound(self, key: KeyState, most: int, now: int) -> None:
        """Its calls in flight share this bound."""
        name = f"{name_of_key(self._pool, key.key)}#in-flight"
        incarnation = f"{self._leasing.incarnation}-f{next(self._numbers)}"
        slots = SlotLedger(name, incarnation, most, self._pool.timeout, trust=self._leasing.trust, in_use=key.in_flight)
        self.borrowing.slots.add(SlotBorrower(key, slots), now)

    def _seat(self, key: KeyState) -> None:
        super()._seat(key)
        for seat in key.seats:  # others have slots too, and whether there is one is asked for each call
            seat.shifts = seat.shifts or key.key.max_in_flight is not None

    def _changed(self, owner: KeyState | GroupState, limits: Sequence[Limit], now: int) -> Budget:
        budget = owner.budget
        if not isinstance(budget, LeasedBudget):
            if not limits:
                return super()._changed(owner, limits, now)
            # What was spent without a limit nobody has counted, so an empty store isn't trusted.
            name, kind = next((name, kind) for one, name, kind in self._named(self._pool) if one is owner)
            return budget.pass_on(self._lent(owner, name, kind, limits, now, trust=False), now)
        borrower = budget.borrower
        if not limits:
            self.borrowing.retire(borrower, now)
            return super()._changed(owner, limits, now)
        if limits != budget.limits:
            self.borrowing.change(borrower, limits, [cap_of(limit) for limit in limits], now)
        return budget.pass_on(LeasedBudget(limits, budget.jitter, self._make_pacer, borrower, self.borrowing), now)

    def change_max_in_flight(self, key: KeyState, most: int | None, now: int) -> None:
        slots = self.borrowing.slots
        if most is None:
            slots.retire(key, now)
        elif key in slots.borrowers:
            slots.change(slots.borrowers[key], most, now)
        else:
            # Whoever has calls in flight tells it with its first round, and who has no bound isn't counted.
            self._bound(key, most, now)
        super().change_max_in_flight(key, most, now)
        self._seat(key)

    def _named(self, pool: Pool) -> Iterator[tuple[KeyState | GroupState, str, Kind]]:
        """Each owner of a budget with the name of that in a store, and its kind: whose it is, and its paths."""
        for key in self.keys:
            name = name_of_key(pool, key.key)
            yield key, name, ("key", ())
            for paths, state in key.scoped.items():
                yield state, with_paths(name, paths), ("key", paths)
        for group in self.groups:
            name = name_of_group(pool, (member.key.label for member in group.members))
            yield group, name, ("group", ())
            for paths, state in group.members[0].group_scoped.items():
                yield state, with_paths(name, paths), ("group", paths)

    @property
    def borrowing(self) -> Borrowing:
        return self._borrowing

    # -- the way of a call --------------------------------------------------------------------

    def _another_waits(self, seat: Seat, cost: int, now: int, entry: Entry) -> bool:
        slots = self._borrowing.slots.borrowers.get(seat.key)
        # First of all: a lease that is kept until there is a slot is others' loss.
        if slots is not None and not slots.ledger.room(now):
            heappop(self._ready[seat.number].heap)
            seat.listed = False
            self._borrowing.slots.lacks(slots, now)
            return True
        waits = super()._another_waits(seat, cost, now, entry)
        if waits or seat.key.budget.fits(cost, now):
            if slots is not None:
                slots.ledger.kept_until = now + KEPT
            # All that the call would pay from are asked in one round, and who has a lease keeps it until the others do.
            for owner in (seat.key, *seat.others):
                if not owner.budget.fits(cost, now) and isinstance(owner.budget, LeasedBudget):
                    self._borrowing.keep(owner.budget.borrower, now)
        return waits

    def paid(self, permit: Permit, seat: Seat, now: int) -> None:
        super().paid(permit, seat, now)
        assert isinstance(permit, LeasedPermit)
        budgets = (owner.budget for owner in (seat.key, *seat.others))
        permit.loans = tuple(
            budget.loan for budget in budgets if isinstance(budget, LeasedBudget) and budget.loan is not None
        )
        permit.slot = self._borrowing.slots.borrowers.get(seat.key)
        if permit.slot is not None:
            permit.slot.ledger.take()
            permit.slot_until = permit.slot.ledger.until

    def sent(self, permit: Permit, at: int) -> None:
        super().sent(permit, at)
        assert isinstance(permit, LeasedPermit)
        if permit.is_late(at):
            self._borrowing.store.late(permit.key.key.label)
        for loan in permit.loans:
            loan.flying = loan.borrower.ledger.sent(loan.lent, loan.cost, at)

    def settle(self, permit: Permit, now: int, answered_at: int | None, actual: int | None) -> None:
        super().settle(permit, now, answered_at, actual)
        assert isinstance(permit, LeasedPermit)
        if self._borrowing.slots.borrowers:
            self._borrowing.slots.over(permit.key, now)
        for loan in permit.loans:
            if loan.flying is None:
                loan.borrower.ledger.give_back(loan.lent, loan.cost, now)
                self.borrowing.returned(loan.borrower, now)
            elif answered_at is not None:
                loan.borrower.ledger.answered(loan.flying, loan.cost, min(answered_at, now), actual)
                self.borrowing.changed(loan.borrower, now)
            else:
                loan.borrower.ledger.unanswered(loan.flying, loan.cost)


def make_keyring(
    pool: Pool, classes: Classes, make_pacer: PacerFactory | None, now: int, leasing: Leasing | None
) -> Keyring:
    """The keyring of a pool; `leasing` None: its budgets are its own."""
    if leasing is None:
        return Keyring(pool, classes, make_pacer, now)
    return LeasedKeyring(pool, classes, make_pacer, now, leasing)
