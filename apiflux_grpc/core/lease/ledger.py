"""What one replica may spend of a budget that many share.

Rule: nothing is spent but what was leased, and each lease until L after the replica's clock *before* the first request
that it came with: however late the reply is. All instants are of that clock, which no one steps and which goes on while
the process is stopped (BOOTTIME).

One round is under way at a time. Without a reply it is asked again as it was, but for the floor; so a lost reply is
told again, and a lost request is made up for. When the store is gone nothing comes in: what is leased is spent until it
ends, and then calls wait.

Owner: the pool's scheduler. Not known here: the store, its errors, who waits.

Over 400 lines: what is spent, what is told of it and when is one state.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.lease.lent import Lent
from apiflux_grpc.core.lease.log import Log
from apiflux_grpc.core.lease.news import News, later
from apiflux_grpc.core.lease.shares import PACE
from apiflux_grpc.core.lease.terms import BEAT, DRIFT, LAPSE, LEAST_LIFE, LONG, at_least, at_most, lag_of, life_of
from apiflux_grpc.core.lease.words import COST, NOTHING, Amounts, Cap, Group, Memory, Round
from apiflux_grpc.core.window import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.lease.lent import Flying, Landing
    from apiflux_grpc.core.lease.words import Fact, Lower, Reply, Use

Leaving = tuple[tuple[Cap, ...], int]  # the limits that it leaves with, and the life of leases by them

ROUND_TRIPS: Final = 4  # the shortest of so many is what a round trip takes: one slow reply refuses nobody


class Ledger:
    """The leases of one budget that one incarnation holds."""

    def __init__(
        self,
        budget: str,
        incarnation: str,
        caps: Sequence[Cap],
        jitter: int,
        life: int | None = None,
        *,
        least_life: int = LEAST_LIFE,
        trust: bool = False,
        pace: int | None = None,
    ) -> None:
        """`life` None: as follows from the shortest limit, and `least_life`. `pace` (ns) is from one round to the next
        at the least; None: a part of a lease's life. Raises ValueError without limits."""
        self.budget = budget
        self.jitter = jitter
        self._terms = (life, least_life, pace)
        self.trust = trust
        self.delay = 0  # for so long its rounds wait for others' at the most
        self.debt = 0  # calls that went out after their lease's end, as a stopped process may send them
        self._last_spent = -FAR
        self._spent: Log | None = None
        self._leaving: Leaving | None = None
        self._era = self._number = 0
        self._keep_to(caps)
        self.news = News()
        self.refused: tuple[int, ...] = ()  # by the upstream, of what is in each window: `use` is told then
        self.use: tuple[Use, ...] = ()  # of each of its limits, by the last reply
        self.begin(incarnation)

    def _keep_to(self, caps: Sequence[Cap]) -> None:
        if not caps:
            raise ValueError("a budget without limits needs no leases")
        life, least_life, pace = self._terms
        self.caps = tuple(sorted(caps, key=lambda cap: (cap.span, cap)))
        self.life = max(life_of(self.caps[0].span), least_life) if life is None else life
        self._pace = self.life // PACE if pace is None else min(pace, self.life // PACE)
        self.by_cost = any(cap.counts == COST for cap in self.caps)
        self._span = self.caps[0].span // GROUPS
        self._lag = lag_of(self.caps[0].span)
        self._kept = at_most(self.caps[-1].span)
        # All that it spent in the longest window, if that is too long to be waited for when a store forgets.
        longest = max((cap.per for cap in self.caps if not cap.depth), default=0)
        if longest <= LONG:
            self._spent = None
        elif self._spent is None or self._spent.per != longest:
            self._spent = Log(longest)

    def begin(self, incarnation: str) -> None:
        """Begin as another incarnation: of a new process, if the store has forgotten this one, or with other limits."""
        self.incarnation = incarnation
        self._era += 1
        self.leases: list[Lent] = []  # the one that ends first at the head
        # Number 0, which no round has: what others of its incarnations sent late, or what that cost more.
        self._earlier = Lent(0, NOTHING, -FAR, by_cost=True, era=self._era)
        self.refusal = ""
        self.lower: tuple[Lower, ...] = ()  # limits of others that hold here too
        self.forgotten = False
        self.opens_at = -FAR  # the budget is frozen until then
        self.epoch = ""  # of the store, as it was last told
        self.heard_at = -FAR  # when the last reply came
        self._number = 0
        self._told = self._told_at = -1
        self._paused = 0
        self._roster: frozenset[str] = frozenset()
        self._under_way: Round | None = None
        self._began = self._sent_at = -FAR  # of the round under way, or the last: its first request, and its newest
        self._ask_at = -FAR
        self._is_short = False  # the store had less than it wanted
        self._dear = 0  # the most that a call costs which found no room since the last round
        self._registers = False  # the store has forgotten, and is to be told
        self._changed = False  # its limits, and the store isn't told yet
        self._trips: deque[int] = deque(maxlen=ROUND_TRIPS)
        self.news.begin()

    def was(self, incarnation: str) -> bool:
        """Whether this was its own name before, with other limits or in a store that has forgotten it."""
        return self.incarnation.startswith(f"{incarnation}+")

    def change(self, caps: Sequence[Cap], now: int) -> None:
        """Its limits are these from now on, and nothing more is taken of what was leased by others.

        Other amounts of like limits hold as soon as the store knows them. If there are other limits, those of before
        hold until their length after, as those of a server that has left: so it leaves, and `forgotten` asks to begin
        as another. Raises ValueError without limits.
        """
        before = (self.caps, self.life)
        self._keep_to(caps)
        for lent in self.leases:
            lent.withdraw()
        self._dear = 0
        self.refused = self.use = ()
        if not self._number:
            return  # nobody was told
        self._changed = True
        if self._leaving is None and not _are_like(before, (self.caps, self.life)):
            self._leaving = before
            self.trust = False

    # -- the way of a call --------------------------------------------------------------------

    def room(self, now: int) -> Amounts:
        """What may be taken now; a single call takes of one lease."""
        self._expire(now)
        calls = cost = 0
        for lent in self.leases:
            calls += lent.calls
            cost += lent.cost
        return Amounts(calls, cost)

    def fits(self, cost: int, now: int) -> int:
        """0: a call of this cost may be taken; FAR: not before a reply, and the next round asks for it."""
        self._expire(now)
        for lent in self.leases:
            if lent.fits(cost):
                return 0
        self._dear = max(self._dear, cost)
        return FAR

    def take(self, cost: int = 0) -> Lent:
        """Take one call, of the lease that ends first; only right after `fits` said 0. It must be sent before `until`.

        Raises IndexError: it doesn't fit.
        """
        lent = next((lent for lent in self.leases if lent.fits(cost)), None)
        if lent is None:
            raise IndexError("no lease has room for this call")
        lent.take(cost)
        return lent

    def sent(self, lent: Lent, cost: int, at: int) -> Flying:
        """The call went out at `at`."""
        if at >= lent.until:
            self.debt += 1
            if lent.era != self._era:
                lent = self._earlier
                lent.granted = Amounts(lent.granted.calls + 1, lent.granted.cost + cost)
            self._list(lent)
        self._last_spent = max(self._last_spent, at)
        return lent.sent(cost, at, self._span)

    def answered(self, flying: Flying, cost: int, at: int, actual: int | None = None) -> None:
        """The call's answer came at `at`; `actual`: what it cost, if that is known and not `cost`."""
        lent = flying.lent
        over = lent.answered(flying, cost, at, cost if actual is None else actual, self.jitter, self._span)
        if over and lent.era != self._era:
            self._earlier.owe(over, at, self._span)
            lent = self._earlier
        if over:
            self._list(lent)

    def unanswered(self, flying: Flying, cost: int) -> None:
        """The call was sent, and will get no answer."""
        flying.lent.unanswered(flying, cost, self.jitter, self._span)

    def give_back(self, lent: Lent, cost: int, now: int) -> None:
        """The call certainly wasn't sent."""
        lent.give_back(cost)
        self._expire(now)

    def _list(self, lent: Lent) -> None:
        """More is to be told of this lease, though it was over."""
        if lent not in self.leases:
            self.leases.insert(0, lent)

    def _expire(self, now: int) -> None:
        for lent in self.leases:
            if lent.until <= now:
                lent.withdraw()
            lent.land(now, self.jitter, self._kept, self._span)

    # -- rounds -------------------------------------------------------------------------------

    @property
    def under_way(self) -> Round | None:
        """The round that has no reply yet."""
        return self._under_way

    def next_round(self, now: int, calls: int, cost: int = 0) -> Round | None:
        """What to ask and report now; None: nothing, until `wake_at`. It can send so many calls within L, of so much
        cost together."""
        room = self.room(now)
        if self._under_way is not None or now < self._round_at(now, calls, cost, room):
            return None
        if self._leaving is not None:
            return self._begin_round(now, NOTHING, withdraw=True, leaves=True)
        # What it has left is too little for a call that waits: it all goes back, and comes as one.
        withdraw = not calls or (self.by_cost and self._dear > 0)
        if not withdraw:
            calls, cost = max(0, calls - room.calls), max(0, cost - room.cost)
        return self._begin_round(now, Amounts(calls, cost), withdraw=withdraw)

    def leave(self, now: int) -> Round | None:
        """The last round of an orderly end: everything that wasn't sent is returned; None: one is under way."""
        if self._under_way is not None:
            return None
        self._expire(now)
        return self._begin_round(now, NOTHING, withdraw=True, leaves=True)

    def wake_at(self, now: int, calls: int, cost: int = 0) -> int:
        """When to look for a round again, wanting so much; FAR: not before something changes."""
        return FAR if self._under_way is not None else self._round_at(now, calls, cost, self.room(now))

    def is_pressing(self, now: int, calls: int, cost: int = 0) -> bool:
        """Whether a round can't wait for those of other budgets: it is for more than it has, and the store wasn't short
        of that when it was last asked; or it has something to tell."""
        room = self.room(now)
        wants = calls > room.calls or (self.by_cost and (cost > room.cost or (calls > 0 and self._dear > 0)))
        return (wants and not self._is_short) or self.news.is_due or self._changed

    def _round_at(self, now: int, calls: int, cost: int, room: Amounts) -> int:
        paced = self._began + self._pace
        beat = self._began + BEAT
        # Known before there is work, and never forgotten: or its first call would wait until all others are heard.
        at = self._began + LAPSE
        if self._registers or self._changed:
            at = paced
        elif calls > room.calls or (self.by_cost and (cost > room.cost or (calls and self._dear))):
            # What it brings back itself may be enough for the call that waits: then it needn't wait for others'.
            brings = 0 < self._dear <= sum(lent.spare for lent in self.leases)
            at = paced if brings else max(paced, self._ask_at)
        elif not calls and any(room):
            at = paced  # an idle replica holds nothing
        # Heard while anything of it counts: others' clocks are checked by it, and it remembers what a store may lose.
        # Of a long window always: it is told who may have spent of it, which nobody else may know.
        if any(lent.landings for lent in self.leases):
            at = min(at, max(paced, self._began + self._lag))
        counts_until = self._last_spent + self._kept + at_most(self.jitter + BEAT)
        if self.leases or calls or self._spent is not None or now < counts_until or self.news.claims:
            at = min(at, beat)
        if self.news.is_due:
            at = min(at, paced)
        return at

    def _begin_round(self, now: int, want: Amounts, *, withdraw: bool, leaves: bool = False) -> Round:
        if withdraw:
            for lent in self.leases:
                lent.withdraw()
        least = 0
        if self.by_cost and want.calls:
            least = max(self._dear, -(-want.cost // want.calls))
            want = Amounts(want.calls, max(want.cost, least))
        else:
            want = Amounts(want.calls)
        self._dear = 0
        self._changed = False
        caps, life = self._leaving or (self.caps, self.life)
        self._number += 1
        self._began = self._sent_at = now
        trip = min(self._trips) if len(self._trips) == ROUND_TRIPS else 0
        self._under_way = Round(
            self.budget,
            self.incarnation,
            self._number,
            caps,
            life,
            self.jitter,
            self.epoch,
            self._told,
            self._floor(now),
            self._paused,
            want,
            least,
            trip,
            tuple(lent.told(now) for lent in self.leases),
            self._memory(now),
            leaves,
            self.trust,
            self.news.facts(now),
            () if leaves else self.news.claims,
            refused=self.refused,
            delay=self.delay,
        )
        return self._under_way

    def again(self, now: int) -> Round:
        """The round under way, to be asked again. It must be one that `next_round` returned."""
        assert self._under_way is not None
        self._sent_at = now
        self._trips.clear()  # nobody knows which of the requests a reply answers
        facts = later(self._under_way.facts, now - self._began)
        return self._under_way._replace(floor=self._floor(now), facts=facts)

    def _floor(self, now: int) -> int:
        return -1 if self._told < 0 else self._told + at_least(now - self._told_at)

    def heard(self, reply: Reply, now: int) -> tuple[Fact, ...]:
        """A reply came. One to an earlier round changes nothing. Returns what others have told since the last."""
        under_way = self._under_way
        if under_way is None or reply.number != under_way.number:
            return ()
        self._under_way = None
        self.forgotten = reply.forgotten or (self._leaving is not None and under_way.leaves)
        if self.forgotten:
            self._void(now)  # all of it ended long ago, or is no more to be told of
            self._leaving = None
            return ()
        if self._sent_at == self._began:
            self._trips.append(now - self._began)
        self.heard_at = self._told_at = now
        self._told = reply.now
        self._paused = reply.paused
        self._registers = False
        if self.epoch and reply.epoch != self.epoch:
            self._void(now)
            self._registers = self._spent is not None
            self.news.again()
        if not self._registers:
            self._roster = reply.roster
        self.epoch = reply.epoch
        self.refusal = reply.refusal
        self.lower = reply.lower
        is_of_these = under_way.caps == self.caps
        self.use = reply.use if is_of_these else ()
        self.opens_at = now + reply.opens if reply.opens else -FAR
        for lent in self.leases:
            self._keep(lent.acknowledged())
        self.leases = [lent for lent in self.leases if not lent.is_over]
        if reply.granted.calls:
            until = self._began + at_least(self.life)
            lent = Lent(reply.number, reply.granted, until, by_cost=self.by_cost, era=self._era)
            self.leases.append(lent)
            if not is_of_these:
                lent.withdraw()
        # A ms later than it may be rather than too early: asked in vain it would have to ask twice.
        self._is_short = reply.again > 0
        self._ask_at = now + reply.again + reply.again // DRIFT
        return self.news.heard(under_way, reply, self._began)

    # -- what it remembers for a store that forgets ---------------------------------------------

    def _keep(self, landings: Iterable[Landing]) -> None:
        if self._spent is not None:
            for one in landings:
                self._spent.record(one.last, one.calls, one.cost)

    def _memory(self, now: int) -> Memory | None:
        if not self._registers or self._spent is None:
            return None
        self._spent.expire(now)
        cells = sorted(self._spent.cells.values())
        landed = tuple(Group(calls, cost, at_least(now - at)) for at, calls, cost in cells if at <= now)
        ahead = [(calls, cost) for at, calls, cost in cells if at > now]
        return Memory(landed, Amounts(*(sum(amounts) for amounts in zip(*ahead, strict=True))), self._roster)

    def _void(self, now: int) -> None:
        """The store knows nothing of these leases any more: nothing more of them is taken."""
        arrived = now + self.life + at_most(self.jitter)
        for lent in self.leases:
            lent.withdraw()
            self._keep(lent.landings)
            if self._spent is not None and any(lent.left):
                self._spent.record(arrived, *lent.left)
        # The freeze is for what was sent in time. What went out after its lease's end counts from its own instant.
        self.leases = [lent for lent in self.leases if lent.is_late]
        for lent in self.leases:
            lent.untold()

    def __repr__(self) -> str:
        return f"<Ledger {self.budget}: {len(self.leases)} leases>"


def _are_like(before: Leaving, after: Leaving) -> bool:
    """Whether nothing but amounts has changed: the store then reckons on with what it has, and remembers as long."""
    (old, old_life), (new, life) = before, after
    likes = [{cap.like for cap in caps} for caps in (old, new)]
    return likes[0] == likes[1] and old_life == life and new[-1].span <= old[-1].span
