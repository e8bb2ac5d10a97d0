"""What the other processes of a fleet have of the limits of one budget, and what all of them know of strangers.

Rule: replicas aren't strangers. A word of the upstream's is judged when the next reply of the store tells what all had
of the limit: whatever had arrived by then was leased before; others tell a little later what was refused to them.
What strangers take is told to all (lease/less.py), so that the store doesn't grant it; the local window deducts it from
the same limit, not from what was granted. A cut is told as well.

An estimate is told with the end of a new word only once that is judged: an old one would be believed by those who know
better.

Not perfect: with demand 100 to 1 an estimate may take several lengths of a window to settle. On virtual time all that
half of strangers leave is used from the fifth window on, whenever four processes began; of eight to which 30 % are left
some lost a third of it for six windows.

An estimate that is wrong costs capacity while it lasts, `per` + J, and is never a reason to spend more than the limit.

Nothing is told or asked for an upstream that says nothing. Owner: the budget's borrower.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.bucket import FAR, Bucket
from apiflux_grpc.core.lease.less import CUT, OTHERS, fact_name
from apiflux_grpc.core.lease.words import CALLS, COST, Cap
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.others import OURS, Others, OthersInBucket
from apiflux_grpc.core.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.lease.ledger import Ledger
    from apiflux_grpc.core.lease.words import Fact, Use
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.others import Word

MOST_KEPT: Final = 64  # replies
RENEWED: Final = 8  # so often while it lasts an estimate that stays is told again
FINE: Final = 64  # one of so many parts of a limit more or less is told at once


class OthersOfFleet(Others):
    """What strangers take of a window that a fleet shares."""

    __slots__ = ("_high", "_least", "_low", "_low_at", "_since", "is_pending", "most")

    def __init__(self, window: Window, jitter: int, now: int) -> None:
        super().__init__(window, jitter, now)
        self.is_pending = False  # a word waits for replies
        self._low = 0
        self._high: int | None = None
        self._least = 0  # that strangers have for certain, by the last word
        self._since = self._low_at = now
        self.most = 0  # that the rest of the fleet has, by the last reply

    @property
    def explains(self) -> bool:
        # That fewer are left than it takes is a word, whatever becomes of it.
        return self.is_pending or super().explains

    @property
    def refused_now(self) -> int:
        """How much of what the window has was answered as limited."""
        self._forget_refused()
        return self._refused_sum

    @property
    def is_heard(self) -> bool:
        """Whether a reply has told what the last word means: the estimate is as new as that word."""
        return self._high is None

    @property
    def is_doubted(self) -> bool:
        """Whether one call is to find out whether it still holds."""
        return self._doubted > 0

    @property
    def holds_until(self) -> int:
        """When the estimate is too old, by the last answer that was in time."""
        return self._heard_at + self._lasts

    @property
    def lasts(self) -> int:
        """How long (ns) an estimate holds."""
        return self._lasts

    def _judge(self, base: int, word: Word, now: int) -> None:
        low = base - self._back_since(word.sent_at)
        if low >= self._low or self._is_old(now):
            self._low, self._since, self._low_at = low, word.sent_at, now
        self._high = self._above(base, word, now)
        self.is_pending = True

    def _is_old(self, now: int) -> bool:
        # Until then others may tell what was refused to them.
        return not self.is_pending or now - self._low_at > self._lasts // RENEWED

    def _leaves_none(self, ours: int) -> bool:
        return self._window.used + self.most >= self._window.max and (ours + self.most) * OURS <= self._window.max

    def resolve(self, kept: deque[tuple[int, int, int]], refused: int, now: int) -> int:
        """A reply came; `kept` is what the rest of the fleet had by this one and those before: (heard at, the most, the
        least), and of that so much was refused. Returns by how much the estimate changed."""
        before = self._window.others
        if self.is_pending:
            most, least = kept[-1][1:]
            for at, high, low in reversed(kept):
                most, least = max(most, high), min(least, low)
                if at < self._since:
                    break
            low = self._least = self._low - most + refused
            if low > before:
                self._take(low, now)
            elif before and self._high is not None and self._high - least + refused < before:
                self._window.set_others(max(0, self._high - least + refused))
            self._high = None
            self.is_pending = not self._is_old(now)
        return self._window.others - before

    def learn(self, amount: int, until: int, now: int) -> None:
        """Another process tells what strangers take, until then."""
        if until <= self.holds_until and not self._doubted:
            return
        self._doubted, self._doubted_at = 0, FAR
        if now < self._low_at + self._lasts:
            amount = max(amount, min(self._least, self._window.others))
        self._heard_at = min(now, until - self._lasts)
        self._told_at = max(self._told_at, self._heard_at)
        self._step = 0
        if amount > self._window.others:
            self._take(amount, now)
        else:
            self._window.set_others(amount)


class OthersInBucketOfFleet(OthersInBucket):
    """What strangers take of a bucket that a fleet shares: the store's level is raised, and no pacer's."""

    __slots__ = ("_filled", "_since", "is_pending")

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self.is_pending = False
        self._filled = self._since = 0

    @property
    def explains(self) -> bool:
        return self.is_pending or super().explains

    def hear(self, word: Word, now: int) -> int:
        depth = self._bucket.limit.depth if word.max is None else min(word.max, self._bucket.limit.depth)
        if not self.is_pending or depth - word.remaining > self._filled:
            self._filled, self._since = depth - word.remaining, word.sent_at
        self.is_pending = True
        return 0

    def resolve(self, kept: deque[tuple[int, int, int]]) -> int:
        """A reply came: how much there is that the fleet can't explain."""
        if not self.is_pending:
            return 0
        self.is_pending = False
        most = kept[-1][1]
        for at, high, _ in reversed(kept):
            most = max(most, high)
            if at < self._since:
                break
        self.amount = max(0, self._filled - most)
        return self.amount


class Shared:
    """One limit, and what all know of it."""

    __slots__ = ("amount", "cap", "cut_until", "heard", "kept", "limit", "mine", "others", "until")

    def __init__(self, cap: Cap, limit: Limit, kept: Window | Bucket) -> None:
        self.cap = cap
        self.limit = limit
        self.kept = kept
        self.others: OthersOfFleet | OthersInBucketOfFleet | None = None
        self.mine = 0  # what of ours the store knows to have landed, when the round under way began
        self.heard: deque[tuple[int, int, int]] = deque(maxlen=MOST_KEPT)
        self.amount = self.until = 0  # of strangers, as it was told last, by whomever
        self.cut_until = 0


class Fleet:
    """Of one budget."""

    __slots__ = ("_budget", "_ledger", "_named", "_rows")

    def __init__(self, budget: Budget, ledger: Ledger) -> None:
        self._budget = budget
        self._ledger = ledger
        kept = {cap_of(limit): (limit, one) for limit, one in budget.kept_limits}
        self._rows = [Shared(cap, *kept[cap]) for cap in ledger.caps]
        self._named = {fact_name(of, row.cap): (of, row) for row in self._rows for of in (OTHERS, CUT)}

    def others_of(self, kept: Window | Bucket, jitter: int, now: int) -> Others | OthersInBucket:
        """What strangers take of this one, to be kept from now on."""
        others = OthersOfFleet(kept, jitter, now) if isinstance(kept, Window) else OthersInBucketOfFleet(kept)
        for row in self._rows:
            if row.kept is kept:
                row.others = others
        return others

    # -- before a round -----------------------------------------------------------------------

    def prepare(self, now: int) -> None:
        """A round may begin: what it is to tell."""
        for row in self._rows:
            self._tell_cut(row, now)
        if self._budget.told is None:
            return
        refused = []
        for row in self._rows:
            others, window = row.others, row.kept
            refused.append(others.refused_now if isinstance(others, OthersOfFleet) else 0)
            if isinstance(others, OthersOfFleet) and isinstance(window, Window):
                by_calls = row.cap.counts == CALLS
                out = self._budget.unarrived if by_calls else self._budget.unarrived_cost
                row.mine = window.used - window.others - out
                self._tell_others(row, others, now)
        self._ledger.refused = tuple(refused)

    def _tell_others(self, row: Shared, others: OthersOfFleet, now: int) -> None:
        amount, until = others.amount, others.holds_until
        if not others.is_heard:  # what was known before a word is told on for a moment, not as if it were as new
            until = min(until, now + 2 * others.lasts // RENEWED)
        known = row.amount if row.until > now else 0
        if others.is_doubted:
            # So much that one call fits: its answer tells the rest.
            amount, until = max(0, row.limit.max - row.mine - others.most - 1), now + others.lasts
            if amount >= known:
                return
        elif (
            until <= now
            or (until, amount) <= (row.until, row.amount)
            or not (amount or known)
            or (abs(amount - known) <= row.limit.max // FINE and until - row.until < others.lasts // RENEWED)
        ):
            return
        row.amount, row.until = amount, until
        self._ledger.news.tell(fact_name(OTHERS, row.cap), amount, until)

    def _tell_cut(self, row: Shared, now: int) -> None:
        less, until = row.kept.cut_off
        if less and until > max(row.cut_until + row.limit.per // RENEWED, now):
            row.cut_until = until
            self._ledger.news.tell(fact_name(CUT, row.cap), less, until)

    # -- after a reply ------------------------------------------------------------------------

    def heard(self, use: Sequence[Use], facts: Sequence[Fact], now: int) -> bool:
        """The store told what all have of each limit, and others told facts. True: what may be taken is another now."""
        changed = False
        for fact in facts:
            changed |= self._learn(fact, now)
        for row, (spent, ending, lent, refused) in zip(self._rows, use, strict=False):
            others = row.others
            if isinstance(others, OthersInBucketOfFleet):
                row.heard.append((now, spent, spent))
                if more := others.resolve(row.heard):
                    row.until = max(row.until, now) + more * row.limit.per // row.limit.max
                    self._ledger.news.tell(fact_name(OTHERS, row.cap), more, row.until)
            elif others is not None:
                theirs = max(0, spent - row.mine)
                refused = min(refused, theirs)  # what has ended since its process was heard isn't refused any more
                others.most = theirs + lent - refused
                row.heard.append((now, theirs + lent, max(0, theirs - ending)))
                changed |= others.resolve(row.heard, refused, now) != 0
                self._tell_others(row, others, now)
        return changed

    def _learn(self, fact: Fact, now: int) -> bool:
        """Another process told a fact of this budget. True: it was of one of its limits."""
        if fact.name not in self._named:
            return False
        of, row = self._named[fact.name]
        until = now + fact.left
        if of == CUT:
            row.cut_until = until
            row.kept.follow_cut(fact.amount, until, now)
            return True
        self._budget.listen(now)
        row.amount, row.until = fact.amount, until
        if isinstance(row.others, OthersOfFleet):
            row.others.learn(min(fact.amount, row.limit.max), until, now)
        return True

    def __repr__(self) -> str:
        return f"<Fleet of {self._ledger!r}>"


def cap_of(limit: Limit) -> Cap:
    """A limit as a store counts it."""
    counts = CALLS if limit.counts is Counts.CALLS else COST
    return Cap(limit.per, limit.max, counts, limit.depth if limit.kind is Kind.BUCKET else 0)
