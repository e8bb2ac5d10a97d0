"""The keys of a pool whose calls in flight are bounded together with those of other processes.

Rule: a key without a slot can't be used; that it was wanted is noted, and it is asked for as many as are its part of
what waits. What waits is shared out among the keys that lack a slot, so one call isn't asked for with every key.

Owner: Borrowing. Not known here: the store, and who waits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core import held
from apiflux_grpc.core.alarms import Alarms
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.holding import MOST_LABELS
from apiflux_grpc.core.units import MILLISECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.keys import KeyState
    from apiflux_grpc.core.lease.slotledger import SlotLedger

KEPT: Final = 200 * MILLISECOND  # a slot is kept so long for a call that waits for a lease


class SlotBorrower:
    """One key, and what it may have in flight."""

    __slots__ = ("asked", "key", "lacks_since", "ledger", "retired", "wake")

    def __init__(self, key: KeyState, ledger: SlotLedger) -> None:
        self.key = key
        self.ledger = ledger
        self.wake = FAR  # for Alarms
        self.asked = 0  # calls that wait for what it has asked for
        self.lacks_since: int | None = None  # a call found no slot
        self.retired = False  # its key has no bound any more

    @property
    def labels(self) -> tuple[str, ...]:
        """Its key's."""
        return self.key.labels

    def taken(self, now: int) -> int:
        """How many of its calls in flight others may have; 0 too if the store says nothing of it now."""
        ledger = self.ledger
        is_told = now < ledger.until and ledger.opens_at <= now and not ledger.refusal
        return ledger.bound - ledger.allotted(now) if is_told else 0

    def held(self, now: int) -> Held:
        """That these hold its calls back."""
        words = held.others_in_flight(self.taken(now), self.ledger.bound)
        return Held(Cause.OTHERS, words, self.lacks_since or now, None)

    @property
    def lower(self) -> Sequence[str]:
        """Another server's bound, if it holds here, in words."""
        ledger = self.ledger
        if ledger.bound >= ledger.most:
            return ()
        return (held.elsewhere(held.in_flight(ledger.bound), str(ledger.most)),)

    def __repr__(self) -> str:
        return f"<SlotBorrower {self.ledger!r}>"


class Slots:
    """The ledgers of a pool's calls in flight."""

    __slots__ = ("_alarms", "_asked", "_found", "borrowers", "dropped", "lacking")

    def __init__(self) -> None:
        self.borrowers: dict[KeyState, SlotBorrower] = {}
        self.lacking: dict[SlotBorrower, None] = {}
        self._found: dict[SlotBorrower, None] = {}  # those of them that haven't been looked at since
        self._asked = 0
        self.dropped: list[SlotBorrower] = []  # nothing waits for them any more, so that they can be listed anew
        self._alarms: Alarms[SlotBorrower] = Alarms()

    def add(self, borrower: SlotBorrower, now: int) -> None:
        """Its store is to know it before there is work."""
        self.borrowers[borrower.key] = borrower
        self._alarms.set(borrower, now)

    # -- what happens to a key ----------------------------------------------------------------

    def lacks(self, borrower: SlotBorrower, now: int) -> None:
        """A call found no slot."""
        borrower.ledger.lacks = True
        if borrower.lacks_since is None:
            borrower.lacks_since = now
        self.lacking[borrower] = None
        if borrower.ledger.under_way is None:
            self._found[borrower] = None

    def over(self, key: KeyState, now: int) -> None:
        """A call has ended, or wasn't sent."""
        borrower = self.borrowers.get(key)
        if borrower is None:
            return
        borrower.ledger.over()
        if borrower.ledger.scarce:
            self._alarms.set(borrower, now)

    def change(self, borrower: SlotBorrower, most: int, now: int) -> None:
        """The key has another bound from now on."""
        borrower.ledger.change(most)
        self._alarms.set(borrower, now)

    def retire(self, key: KeyState, now: int) -> None:
        """The key has no bound any more: its borrower leaves."""
        borrower = self.borrowers.pop(key, None)
        if borrower is not None:
            self._satisfied(borrower)
            self._found.pop(borrower, None)
            borrower.retired = True
            borrower.ledger.in_use = 0  # no more of the bound than those of a server that never had one
            self._alarms.set(borrower, now)

    # -- rounds -------------------------------------------------------------------------------

    def ask(self, now: int, waiting: int, most: int) -> list[SlotBorrower]:
        """Those that have a round to send now, at most so many, if so many calls wait that may begin."""
        asking: list[SlotBorrower] = []
        missing = waiting - self._asked
        while self._found and missing > 0 and len(asking) < most:
            borrower = next(iter(self._found))
            del self._found[borrower]
            missing -= self._look(borrower, now, waiting, asking)
        if len(asking) < most:
            for borrower in self._alarms.ring(now):
                self._look(borrower, now, waiting, asking)
                if len(asking) >= most:
                    break
        return asking

    def _look(self, borrower: SlotBorrower, now: int, waiting: int, asking: list[SlotBorrower]) -> int:
        ledger = borrower.ledger
        if ledger.under_way is not None:
            return 0  # its reply sets the alarm
        if borrower.retired:
            ledger.leave(now)
            asking.append(borrower)
            return 0
        if ledger.lacks and not waiting:
            self._satisfied(borrower)
            self.dropped.append(borrower)
        part = -(-waiting // len(self.lacking)) if ledger.lacks else 0
        if ledger.next_round(now, part) is None:
            self._alarms.set(borrower, max(now + 1, ledger.wake_at(now, part)))
            return 0
        borrower.asked = part
        self._asked += part
        asking.append(borrower)
        return part

    def heard(self, borrower: SlotBorrower, now: int, *, left: bool) -> None:
        """The reply to its round was heard; `left`: to its last."""
        self._asked -= borrower.asked
        borrower.asked = 0
        if borrower.retired:
            if not left:
                self._alarms.set(borrower, now)
            return
        if borrower.ledger.forgotten:
            borrower.ledger.begin(f"{borrower.ledger.incarnation}+")
        if not borrower.ledger.lacks:
            self._satisfied(borrower)
        self._alarms.set(borrower, now)

    def _satisfied(self, borrower: SlotBorrower) -> None:
        borrower.ledger.lacks = False
        borrower.lacks_since = None
        self.lacking.pop(borrower, None)

    def holds(self, now: int) -> Sequence[Held]:
        """What others have in flight, if it holds the pool's calls back now."""
        those = [one for one in self.lacking if one.taken(now)]
        if not those:
            return ()
        first = min(those, key=lambda one: one.lacks_since or 0)
        labels = tuple(one.key.key.label for one in those)
        return (replace(first.held(now), keys=labels[:MOST_LABELS], count=len(labels)),)

    def holds_of(self, key: KeyState, now: int) -> Sequence[Held]:
        """The same for this key."""
        one = self.borrowers.get(key)
        return (one.held(now),) if one in self.lacking and one.taken(now) else ()

    def leave(self, now: int) -> list[SlotBorrower]:
        """Those whose last round is to be sent: an orderly end."""
        return [one for one in self.borrowers.values() if one.ledger.leave(now) is not None]

    def next_at(self) -> int:
        """When to ask again; FAR: not before something happens."""
        return self._alarms.next_at()

    def __repr__(self) -> str:
        return f"<Slots of {len(self.borrowers)} keys>"
