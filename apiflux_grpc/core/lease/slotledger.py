"""How many calls one replica may have in flight, of a bound that many share.

Rule: a call begins only while fewer are in flight than were allotted, and until L after the replica's clock before the
first request with which that came. What the replica says that it keeps to, it keeps to from before it says so.

It wants what it uses, and what waits for a slot. While others wait for some, what it doesn't use goes back at once;
else with the round that renews what it has. Rounds go one at a time, as those of a Ledger do.

Owner: the pool's scheduler. Not known here: the store, its errors, who waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.terms import DRIFT, LAPSE, PROBATION, SLOT_LIFE, SLOT_PACE, at_least
from apiflux_grpc.core.lease.words import NOTHING, Allotted, Asked, Memory, Round

if TYPE_CHECKING:
    from apiflux_grpc.core.lease.words import Reply


class SlotLedger:
    """The slots that one incarnation holds. `most` is the bound by its own settings; `timeout` (ns) that of a call."""

    def __init__(
        self, budget: str, incarnation: str, most: int, timeout: int, *, trust: bool = False, in_use: int = 0
    ) -> None:
        self.budget = budget
        self.most = most
        self.timeout = timeout
        self.trust = trust
        self.in_use = in_use
        self.life = SLOT_LIFE
        self.kept_until = -FAR  # one more than are used is kept until then
        self.begin(incarnation)

    def begin(self, incarnation: str) -> None:
        """Begin as another incarnation: of a new process, or if the store has forgotten this one."""
        self.incarnation = incarnation
        self.refusal = ""
        self.forgotten = False
        self.opens_at = -FAR  # nothing is allotted until then
        self.until = -FAR  # calls may begin until then
        self.bound = self.most  # the lowest of all
        self.scarce = False  # others wait for slots
        self.lacks = False  # a call found none
        self._allotted = 0
        self._charged = 0  # what the store takes it to have in flight
        self._peak = self.in_use  # the most that were in flight since the last round
        self._number = 0
        self._epoch = ""
        self._told = self._told_at = -1
        self._paused = 0
        self._roster: frozenset[str] = frozenset()
        self._registers = False  # the store has forgotten, and is to be told
        self._under_way: Round | None = None
        self._heard_from = -FAR  # when the round began that had the last reply
        self._longest = self._says = self.timeout  # of the calls of all; and what it says of its own
        self._began = self._ask_at = -FAR
        self._holds = 0  # by the round under way, or the last
        self._changed = False  # its bound, and the store isn't told yet

    def change(self, most: int) -> None:
        """Another bound from now on; calls that are above it go on."""
        self.most = most
        self._changed = True

    # -- the way of a call --------------------------------------------------------------------

    def room(self, now: int) -> int:
        """How many more may begin now."""
        return max(0, self.allotted(now) - self.in_use)

    def take(self) -> None:
        """One begins; only if there is room. It must be sent before `until`."""
        self.in_use += 1
        self._peak = max(self._peak, self.in_use)

    def over(self) -> None:
        """One has ended, or wasn't sent."""
        self.in_use -= 1

    def allotted(self, now: int) -> int:
        """How many may be in flight now, in all."""
        return min(self._allotted, self.most) if now < self.until else 0

    # -- rounds -------------------------------------------------------------------------------

    @property
    def under_way(self) -> Round | None:
        """The round that has no reply yet."""
        return self._under_way

    def next_round(self, now: int, waiting: int) -> Round | None:
        """What to ask and report now, if so many calls wait for a slot; None: nothing, until `wake_at`."""
        if self._under_way is not None or now < self._round_at(now, waiting):
            return None
        return self._begin_round(now, self._wants(now, waiting))

    def leave(self, now: int) -> Round | None:
        """The last round of an orderly end; None: one is under way."""
        return None if self._under_way is not None else self._begin_round(now, 0, leaves=True)

    def wake_at(self, now: int, waiting: int) -> int:
        """When to look for a round again; FAR: not before something changes."""
        return FAR if self._under_way is not None else self._round_at(now, waiting)

    def _wants(self, now: int, waiting: int) -> int:
        wants = self.in_use + (waiting if self.lacks else 0)
        if not self.scarce:
            wants = max(wants, self._peak)
        elif now < self.kept_until:
            wants = max(wants, min(self.allotted(now), self.in_use + 1))
        return min(wants, self.most)

    def _keeps(self, now: int, wants: int) -> int:
        return max(self.in_use, min(self.allotted(now), wants))

    def _round_at(self, now: int, waiting: int) -> int:
        paced = self._began + SLOT_PACE
        at = self._began + LAPSE  # known before there is work, and never forgotten
        wants = self._wants(now, waiting)
        if self._registers or self._changed:
            return paced
        if self.lacks and waiting and wants > self.allotted(now):
            at = max(paced, self._ask_at)
        if self.scarce and self._keeps(now, wants) < self._charged:
            at = min(at, paced)
        if self._charged or self.in_use or (self.lacks and waiting):
            at = min(at, self._began + self.life // 2)
        if self.scarce and now < self.kept_until:
            at = min(at, max(paced, self.kept_until))
        return at

    def _begin_round(self, now: int, wants: int, *, leaves: bool = False) -> Round:
        self._holds = self._keeps(now, wants)
        self._allotted = min(self._allotted, self._holds)
        self._peak = self.in_use
        self._changed = False
        self._number += 1
        self._began = now
        memory = Memory((), NOTHING, self._roster) if self._registers else None
        self._under_way = Round(
            self.budget,
            self.incarnation,
            self._number,
            (),
            self.life,
            0,
            self._epoch,
            self._told,
            self._floor(now),
            self._paused,
            memory=memory,
            leaves=leaves,
            trust=self.trust,
            slots=Asked(self.most, self._says, self._holds, wants),
        )
        return self._under_way

    def again(self, now: int) -> Round:
        """The round under way, to be asked again. It must be one that `next_round` returned."""
        assert self._under_way is not None
        return self._under_way._replace(floor=self._floor(now))

    def _floor(self, now: int) -> int:
        return -1 if self._told < 0 else self._told + at_least(now - self._told_at)

    def heard(self, reply: Reply, now: int) -> None:
        """A reply came. One to an earlier round changes nothing."""
        if self._under_way is None or reply.number != self._under_way.number:
            return
        self._under_way = None
        self.forgotten = reply.forgotten
        slots = reply.slots or Allotted(0, self.most, scarce=False)
        self._allotted = slots.slots
        self._charged = max(slots.slots, self._holds)
        self.until = self._began + at_least(self.life)
        self.bound, self.scarce = slots.most, slots.scarce
        if reply.forgotten:
            return
        forgot = bool(self._epoch) and reply.epoch != self._epoch
        # Who came since it was last heard has begun nothing yet, if that wasn't longer ago: else it vouches for nobody.
        self._registers = forgot and self._began - self._heard_from <= PROBATION - PROBATION // DRIFT
        self._heard_from = self._began
        if forgot:
            self._says = self._longest  # calls of one that is gone may be in flight, and only others know how long
        else:
            self._longest = max(self.timeout, slots.timeout)
            if not reply.opens:
                self._says = self.timeout
        if not self._registers:
            self._roster = reply.roster
        self._epoch, self._told, self._told_at, self._paused = reply.epoch, reply.now, now, reply.paused
        self.refusal = reply.refusal
        self.opens_at = now + reply.opens if reply.opens else -FAR
        self._ask_at = now + reply.again + reply.again // DRIFT
        if self.room(now):
            self.lacks = False

    def __repr__(self) -> str:
        return f"<SlotLedger {self.budget}: {self.in_use} of {self._allotted} in use>"
