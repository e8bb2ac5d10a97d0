"""What others take of one limit of ours, by what the upstream says is left of it.

Rule: a hint is no ceiling. On a sliding window or a bucket what is left grows again by itself, and held until the reset
`remaining` idles a key for half its time. So a hint only says how much of the limit is used that we didn't use, and
that not exactly: calls overtake each other, and the upstream counts a call somewhere between its sending and its
answer. What is certain is an interval, and the estimate moves into it by as little as possible:

    ours    what we hold of the window, without what was answered as limited (the upstream didn't count it)
    low     max - remaining - ours - what came back while this call was on its way
    high    max - remaining - ours + what hadn't arrived for certain when this call was taken, and all after that
            + ours whose sending is `per` ago (the upstream has freed it; we keep it J longer)

`max` is the header's own where it is above the configured one. One that is below holds while it is told: what it
allows less counts as taken by others.

An estimate lasts `per` + J beyond the last answer that spoke of the limit, whatever reset was told. Then one call goes
alone, and its answer sets the estimate anew. The same if others took nearly all, the wait that a refusal told is over
and no answer is to come: a fixed window may have begun anew. (Where much of it is ours, that comes back first.)

An answer to a call that took longer than that says what was left at an instant that nobody knows: when the call
arrived, or when it was answered. It says nothing, then, and one call alone would take just as long. Only refusals,
which come at once, say what others take: between them the estimate shrinks, each period by twice as much as in the
one before, until a refusal corrects it.

Of a bucket the upstream's own level is told, and the pacer's is raised to it where we can't explain it.

Processes that share a limit aren't others of each other: fleet.py has what they find out together.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.window import Window

if TYPE_CHECKING:
    from apiflux_grpc.core.bucket import Bucket

MOST_KEPT: Final = 256  # of what came back lately
OURS: Final = 8  # below nominal / OURS an estimate that leaves nothing is of others nearly alone
FIRST_STEP: Final = 64  # nominal / FIRST_STEP is what an estimate shrinks by at first


class Word(NamedTuple):
    """What one answer says of one limit, and how its call stood to others of the same owner. Amounts are in what the
    limit counts."""

    remaining: int
    max: int | None  # as the upstream says it
    sent_at: int
    unsure: int | None  # what the upstream may have counted after this call; None: nobody counted then


class Others:
    """What others take of one window. `window.others` has the estimate, and is written here alone."""

    __slots__ = (
        "_back",
        "_doubted",
        "_doubted_at",
        "_heard_at",
        "_jitter",
        "_refused",
        "_refused_sum",
        "_step",
        "_told_at",
        "_window",
        "is_slow",
        "lower",
        "lower_seen",
        "since",
    )

    def __init__(self, window: Window, jitter: int, now: int) -> None:
        self._window = window
        self._jitter = jitter
        self._heard_at = now  # by an answer that was in time
        self._told_at = now  # by any
        self._doubted_at = FAR  # when a wait that was told ends, if nothing was left before it
        self._doubted = 0  # the estimate until then, while one call finds out
        self._step = 0  # by how much the estimate shrank last; 0: it was heard of since
        self.is_slow = False  # calls take longer than an estimate lasts
        self.since = now  # when others were seen to take something
        self.lower: int | None = None  # the upstream's own max of this period, if it is below the configured one
        self.lower_seen: int | None = None  # of these, what observers were told
        self._back: deque[tuple[int, int]] = deque()  # (seen at, amount) of what came back lately
        self._refused: deque[tuple[list[int], int]] = deque()  # (its entry of the log, amount)
        self._refused_sum = 0

    @property
    def amount(self) -> int:
        return self._window.others

    @property
    def explains(self) -> bool:
        """Whether a call may be refused for what others take."""
        return self._window.others > 0

    def inherit(self, other: Others) -> None:
        """It follows this one, of the same period."""
        self._heard_at, self._told_at, self.since = other._heard_at, other._told_at, other.since
        self._step, self.is_slow = other._step, other.is_slow
        self.lower = self.lower_seen = other.lower
        self._window.set_others(min(other.amount, self._window.nominal))

    def refused(self, amount: int, instant: int) -> None:
        """A call that the window is charged with since `instant` was answered as limited."""
        self._forget_refused()
        entry = self._window.entry_of(instant)
        if entry is not None:
            self._refused.append((entry, amount))
            self._refused_sum += amount

    def _forget_refused(self) -> None:
        """Those whose slots have come back."""
        window, refused = self._window, self._refused
        while refused and not window.has(refused[0][0]):
            self._refused_sum -= refused.popleft()[1]

    def hear(self, word: Word, now: int) -> int:
        """An answer said what is left. Returns by how much the estimate changed."""
        window = self._window
        if self._doubted:
            window.set_others(self._doubted)
            self._doubted = 0
        before = window.others
        self._told_at = now
        self.lower = None if word.max is None or word.max >= window.nominal else word.max
        if now - word.sent_at > self._lasts:
            self.is_slow = True
            if self._floor > before:
                self._take(self._floor, now)
            return window.others - before
        self._heard_at, self._step, self._doubted_at = now, 0, FAR
        if word.remaining:  # else it may have been refused, which comes at once however long calls take
            self.is_slow = False
        self._forget_refused()
        most = window.nominal if word.max is None else max(word.max, window.nominal)
        self._judge(most - word.remaining - (window.used - window.others - self._refused_sum), word, now)
        return window.others - before

    def _judge(self, base: int, word: Word, now: int) -> None:
        """Move the estimate by a word; `base`: what is used that isn't ours, if all that is ours was counted."""
        before = self._window.others
        if base > before:
            low = base - self._back_since(word.sent_at)
            if low > before:
                self._take(low, now)
        elif before and base < before:
            high = self._above(base, word, now)
            if high < before:
                self._window.set_others(max(0, high))

    def _above(self, base: int, word: Word, now: int) -> int:
        """The most that isn't ours: of ours some hadn't arrived, and some doesn't count there any more."""
        window = self._window
        unsure = window.used if word.unsure is None else word.unsure
        return base + unsure + window.ends_by(now + self._jitter + window.kept - window.per)

    def _take(self, amount: int, now: int) -> None:
        """Others take more than was known."""
        self.since = self.since if self._window.others else now
        self._window.set_others(min(amount, self._window.nominal))

    @property
    def _floor(self) -> int:
        """What can't be used though nobody else takes it."""
        return 0 if self.lower is None else self._window.nominal - self.lower

    @property
    def _lasts(self) -> int:
        """How long (ns) an estimate holds."""
        return self._window.kept + self._jitter

    def _back_since(self, at: int) -> int:
        total = 0
        for seen_at, amount in reversed(self._back):
            if seen_at < at:
                break
            total += amount
        return total

    def expire(self, now: int, *, out: bool, slow: bool) -> bool:
        """Take back what has ended in the window. True: the estimate doesn't hold any more. `out`: calls are on their
        way, `slow`: for longer than it lasted."""
        window = self._window
        held = window.used
        window.expire(now)
        if held > window.used:
            self._came_back(held - window.used, now)
        if now < self.ends_at():
            return False
        doubted, self._doubted_at = now >= self._doubted_at, FAR
        if doubted and now < self._heard_at + self._lasts:
            self._forget_refused()
            ours = window.used - window.others - self._refused_sum
            if out or not self._leaves_none(ours):
                return False  # an answer will say
            self._doubted = window.others
            window.set_others(self._floor)
            return True
        if now - self._told_at >= self._lasts:
            self.lower = None
        if slow or self.is_slow:
            self._heard_at = now
            self._step = 2 * self._step or max(1, window.nominal // FIRST_STEP)
            window.set_others(max(self._floor, window.others - self._step))
            return False
        self.lower = None
        window.set_others(0)
        return True

    def _leaves_none(self, ours: int) -> bool:
        """Whether others have all of it, or nearly so."""
        return self._window.used >= self._window.max and ours * OURS <= self._window.max

    def waits_until(self, at: int) -> None:
        """Nothing was left, and we were told to wait until `at`: what others take is another matter then."""
        self._doubted_at = at

    def _came_back(self, amount: int, now: int) -> None:
        back = self._back
        if len(back) == MOST_KEPT:  # the older of two counts as the later one: of longer calls the low end is lower
            _, oldest = back.popleft()
            back[0] = (back[0][0], back[0][1] + oldest)
        back.append((now, amount))

    def ends_at(self) -> int:
        """When the estimate is too old to hold; FAR: it holds nothing back."""
        return min(self._heard_at + self._lasts, self._doubted_at) if self._window.others else FAR


class OthersInBucket:
    """What others take of a bucket: its level is raised to what the upstream tells, and leaks by itself."""

    __slots__ = ("_bucket", "amount")

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.amount = 0  # more than we could explain, by the last word

    @property
    def explains(self) -> bool:
        """As Others.explains."""
        return self.amount > 0

    def refused(self, amount: int, instant: int) -> None:
        """It was charged, and wasn't taken: that much is less at the upstream, and leaks away here."""

    def hear(self, word: Word, now: int) -> int:
        """As Others.hear; the level of a pacer leaks by itself, so there is nothing to lower."""
        bucket = self._bucket
        depth = bucket.limit.depth if word.max is None else min(word.max, bucket.limit.depth)
        # Ours since this call was sent: what leaked away, and what was taken after it, the upstream didn't know of.
        ours = bucket.level(now) + (now - word.sent_at) * bucket.limit.max / bucket.limit.per
        self.amount = max(0, int(depth - word.remaining - ours))
        if self.amount:
            bucket.raise_level(self.amount, now)
        return self.amount

    def waits_until(self, at: int) -> None:
        """Its level leaks by itself."""

    def expire(self, now: int, *, out: bool, slow: bool) -> bool:
        return False

    def ends_at(self) -> int:
        return FAR


def others_of(kept: Window | Bucket, jitter: int, now: int) -> Others | OthersInBucket:
    """What others take of a limit that is nobody else's in a fleet."""
    return Others(kept, jitter, now) if isinstance(kept, Window) else OthersInBucket(kept)
