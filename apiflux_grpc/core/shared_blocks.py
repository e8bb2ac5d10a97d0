"""What an upstream's refusal of one process means for the others that share the budget.

Rule: what one of them was told or has found out of a key, a group or a limit with paths holds for all: until when they
must wait, how often in a row a wait was guessed, that the key is rejected, and that a call has passed after it. At the
end of a guess and of a breaker's cool-down one process at a time sends a probe: who has the claim on it, which its
store grants to the first that asks. A process claims it only while calls wait, and lets it go if it can't use it; the
claim of one that died ends by itself. Without its store each decides alone.
A process that starts doesn't take it from others that a key is rejected: it may have been mended, or replaced.

The facts (core/lease/facts.py): of `wait` the end is that of the wait. Of `guess` and `rejected` it's KEPT after the
end of the wait, and PASSED after the instant at which a call passed, with the amount 0: of what is told of one owner
the last that happened so ends last. The amounts are how many waits were guessed, and the status of the rejection.

Owner: the pool's borrowing. Owners without limits have no ledger, and share nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.block import FIRST_GUESS, Block
from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.events import KeyAccepted, KeyRejected
from apiflux_grpc.core.held import refused_elsewhere
from apiflux_grpc.core.keys import KeyState
from apiflux_grpc.core.lease.terms import BEAT
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.keys import GroupState
    from apiflux_grpc.core.lease.news import News
    from apiflux_grpc.core.lease.words import Fact
    from apiflux_grpc.core.store_health import StoreHealth

WAIT: Final = "wait"
GUESS: Final = "guess"
REJECTED: Final = "rejected"
PROBE: Final = "probe"  # a claim
KEPT: Final = 120 * SECOND  # how long it's known what happened last: whoever is heard meanwhile hears it
# Half of the shortest wait longer, or what is told ever so slowly of the wait that it ended would end later.
PASSED: Final = KEPT + FIRST_GUESS // 2
LATER: Final = 50 * MILLISECOND  # more than two that are told of one instant may seem apart
UNUSED: Final = BEAT  # a claim that could have been used for so long is let go
LEASELESS: Final = 10 * BEAT  # and one that couldn't, for want of a lease: a call that never fits gets none


class Probes:
    """The owners of a pool that a probe must open. `woken` lists an owner's keys anew."""

    __slots__ = ("store", "waiting", "woken")

    def __init__(self, store: StoreHealth, woken: Callable[[KeyState | GroupState, int], None]) -> None:
        self.store = store
        self.woken = woken
        self.waiting: dict[SharedBlocks, None] = {}

    def look(self, now: int, waiting_for: Callable[[tuple[str, ...]], int]) -> None:
        """Claim the probes that can be used, and let go of others. `waiting_for` tells how many calls wait that meet
        the limits with these paths."""
        for blocks in [*self.waiting]:
            if not blocks.look(now, waiting_for(blocks.paths) > 0):
                del self.waiting[blocks]

    def heard(self, blocks: SharedBlocks, facts: tuple[Fact, ...], now: int) -> None:
        """The reply to a round of this owner's budget came, with these facts that are new."""
        for fact in facts:
            blocks.hear(fact, now)
        blocks.is_new = False
        if facts or blocks in self.waiting:
            self.woken(blocks.owner, now)


class SharedBlocks:
    """What is shared of one owner."""

    __slots__ = (
        "_claimed_at",
        "_gone",
        "_last",
        "_leaseless_since",
        "_news",
        "_pauses_until",
        "_probes",
        "_say",
        "is_new",
        "owner",
        "paths",
    )

    def __init__(self, owner: KeyState | GroupState, news: News, probes: Probes, say: Callable[[int], None]) -> None:
        """`say` has its budget looked at by an instant, so that a round is sent."""
        self.owner = owner
        self.paths = () if isinstance(owner, KeyState) else owner.paths
        owner.shared = self
        if isinstance(owner, KeyState):
            owner.breaker.gate = self
        self._news = news
        self._probes = probes
        self._say = say
        self._last: dict[str, int] = {}  # the end of the last fact of each name, its own or another's
        self._claimed_at: int | None = None  # since when the probe is ours to send, and isn't sent
        self._leaseless_since: int | None = None  # since when it's ours, and there is no lease for it
        self._pauses_until = 0
        self.is_new = True  # nothing was heard yet
        self._gone = False

    def let_go(self) -> None:
        """Nobody else has anything to do with its owner any more: its probes are its own."""
        self._gone = True
        self._probes.waiting.pop(self, None)
        self.owner.shared = None
        if isinstance(self.owner, KeyState):
            self.owner.breaker.gate = None

    # -- what happened here -------------------------------------------------------------------

    def blocked(self, now: int) -> None:
        """A call was refused, and its owner is blocked."""
        block = self.owner.block
        assert block is not None
        if block.ends_by_probe:
            self._tell(GUESS, block.guesses, block.until + KEPT, now)
        else:
            self._tell(WAIT, 0, block.until, now)

    def passed(self, now: int) -> None:
        """A call has ended the block."""
        self._tell(GUESS, 0, now + PASSED, now)

    def rejected(self, status: int, until: int, now: int) -> None:
        """The key is rejected, and its breaker open until then."""
        self._tell(REJECTED, status, self._after_all(until + KEPT), now)

    def accepted(self, now: int) -> None:
        """The key works again, or it was none of its own faults: that may be known before its time is over."""
        self._tell(REJECTED, 0, self._after_all(now + PASSED), now)

    def _after_all(self, until: int) -> int:
        """Until then, or as long as it takes to end after what was last known of the key's rejection."""
        return max(until, self._last.get(REJECTED, 0) + LATER)

    def _tell(self, name: str, amount: int, until: int, now: int) -> None:
        self._last[name] = until
        self._news.tell(name, amount, until)
        self._say(now)

    # -- what happened elsewhere ----------------------------------------------------------------

    def hear(self, fact: Fact, now: int) -> None:
        """Another process has told this."""
        name, amount, left = fact
        if now + left <= self._last.get(name, now):
            return
        self._last[name] = now + left
        if name == WAIT:
            block = self._blocked(now)
            block.extend(now, now + left, refused_elsewhere())
            if block.told and self.owner.budget.told is not None:
                self.owner.budget.told.waits_until(block.until)
        elif name == GUESS and amount:
            self._blocked(now).guessed(now, now + left - KEPT, amount, refused_elsewhere())
        elif name == GUESS:
            self.owner.passed(now)
        elif name == REJECTED and isinstance(key := self.owner, KeyState):
            self._judged(key, amount, now + left - KEPT, now)

    def _judged(self, key: KeyState, status: int, until: int, now: int) -> None:
        breaker, store = key.breaker, self._probes.store
        if not status:
            if breaker.closed(now):
                store.tell(KeyAccepted(key.key.label))
        elif not self.is_new:
            was_open = breaker.state is not State.CLOSED
            key.rejected_with = status
            breaker.opened(now, until)
            if not was_open:
                store.tell(KeyRejected(key.key.label, max(0, until - now), status))

    def _blocked(self, now: int) -> Block:
        owner = self.owner
        if owner.block is None:
            owner.block = Block(now, self)
        return owner.block

    # -- probes ---------------------------------------------------------------------------------

    def lets(self, now: int) -> bool:
        """Whether a probe may go; else it's asked for, if calls wait."""
        if self._gone or self._probes.store.is_silent or PROBE in self._news.claimed:
            return True
        self._probes.waiting[self] = None
        return False

    def look(self, now: int, waits: bool) -> bool:
        """Claim the probe, or let it go. False: none is needed any more."""
        news, owner = self._news, self.owner
        block, breaker = owner.block, owner.breaker if isinstance(owner, KeyState) else None
        is_out = (block is not None and block.probing) or (breaker is not None and breaker.probing)
        blocked = block is not None and block.ends_by_probe and block.until <= now
        rejected = breaker is not None and breaker.state is not State.CLOSED and breaker.until <= now
        if not (is_out or blocked or rejected):
            news.release(PROBE)
            self._claimed_at = self._leaseless_since = None
            return False
        if is_out:
            self._claimed_at = self._leaseless_since = None
        elif owner.budget.opens_at > now:  # refused, or frozen: without a lease no probe of ours can go
            news.release(PROBE)
            self._claimed_at = None
        elif not waits or now < self._pauses_until:
            news.release(PROBE)
            self._claimed_at = None
            if waits:
                self._say(self._pauses_until)
        elif PROBE not in news.claimed:  # that is asked for, and then a lease
            news.claim(PROBE)
            self._claimed_at = self._leaseless_since = None
        elif owner.budget.is_unleased and now < (self._leaseless_since or now) + LEASELESS:
            self._leaseless_since = self._leaseless_since or now
            self._claimed_at = None
        elif self._claimed_at is None and not owner.budget.is_unleased:
            self._claimed_at, self._leaseless_since = now, None
        elif self._claimed_at is None or now >= self._claimed_at + UNUSED:
            # Its calls can't use the key: they have been there, or wait for another probe that somebody else has.
            news.release(PROBE)
            self._pauses_until, self._claimed_at = now + 2 * UNUSED, None
            self._leaseless_since = None
            self._say(self._pauses_until)
        if news.is_due:
            self._say(now)
        return True

    def __repr__(self) -> str:
        return f"<SharedBlocks of {self.owner!r}>"
