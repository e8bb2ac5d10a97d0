"""What an upstream has told of one owner's limits, a key's or a group's.

Rule: kept from the first word on, so that nothing is counted for an upstream that says nothing. From then on each call
has a mark, its place among those that were taken since, by which it is known what came after it.

Of a configured limit a word says what others take (others.py). Of any other limit the newest word holds: since its call
no more is taken than it says is left, though at least one call at a time; if that is nothing, none until the reset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from apiflux_grpc.core.bucket import FAR, Bucket
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.others import Others, OthersInBucket, Word, others_of
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.window import Window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from apiflux_grpc.core.hints import Hint
    from apiflux_grpc.core.model import Limit

Maker = Callable[[Window | Bucket, int, int], Others | OthersInBucket]  # of what is known of others of a limit

MOST_WORDS: Final = 8
MOST_SHAPES: Final = 64
LONGEST_WORD: Final = 60 * SECOND  # of a limit whose period isn't known
WITHOUT_RESET: Final = SECOND  # how long a key waits if nothing is left and nobody says until when


class Mark(NamedTuple):
    """A call's place among those of its owner that were taken since Told began; and how much had arrived by then."""

    calls: int
    cost: int
    arrived: int  # calls, this one included: it has arrived when its answer comes
    arrived_cost: int


# Of a hint: max, per, what it counts; and of its call: the path class, and how many budgets paid beside its key's own,
# since a key gets more of them when its limits change.
Shape = tuple[int | None, int | None, Counts | None, int, int, bool]
# The place of its owner among those who paid, and of the limit among its kept ones; None: none of ours.
Meaning = tuple[int, int] | None


UNMARKED: Final = Mark(0, 0, 0, 0)  # taken before


@dataclass(slots=True)
class Allowance:
    """The newest word on a limit that isn't configured."""

    counts: Counts
    mark: Mark  # of its call
    left: int  # what may be taken after that call
    until: int  # nothing before; 0: that is over
    ends_at: int  # FAR: it holds until another word comes
    since: int  # the first word of this header without anything left between

    def spent(self, taken: Mark, cost: int) -> bool:
        """Whether a call of this cost is more than is left, `taken` being the newest call."""
        # Calls overtake each other: what hadn't arrived for certain when the word's call was taken may come after it.
        if self.counts is Counts.CALLS:
            return taken.calls - self.mark.arrived + 1 > self.left
        return taken.cost - self.mark.arrived_cost + cost > self.left


class Told:
    """What was told of the limits of one owner."""

    __slots__ = ("_alone", "_heard", "_newest", "_others", "_out", "_words", "meanings")

    def __init__(
        self, limits: Iterable[tuple[Limit, Window | Bucket]], jitter: int, now: int, make: Maker = others_of
    ) -> None:
        """`make` makes what is known of others of each limit."""
        self._others = [(limit, make(one, jitter, now)) for limit, one in limits]
        self._newest = UNMARKED
        self._heard = -1  # the newest call when an answer last spoke of a configured limit
        self._out: dict[int, None] = {}  # marked calls that aren't over, oldest first
        self._alone: int | None = None  # the newest call when an estimate became too old: until an answer one at a time
        self._words: dict[str, Allowance] = {}  # by the header that it came in
        self.meanings: dict[Shape, Meaning] = {}  # of a key's: which limit hints of this shape mean

    def follow(
        self, limits: Iterable[tuple[Limit, Window | Bucket]], jitter: int, now: int, make: Maker = others_of
    ) -> None:
        """The owner's limits are these from now on: what others take of one of the same period they still take."""
        self.meanings.clear()
        known, self._others = self._others, [(limit, make(one, jitter, now)) for limit, one in limits]
        for limit, others in self._others:
            for old, its in known:
                alike = (old.per, old.counts) == (limit.per, limit.counts)
                if alike and isinstance(others, Others) and isinstance(its, Others):
                    others.inherit(its)

    # -- the way of a call --------------------------------------------------------------------

    def wait(self, cost: int, now: int) -> int:
        """0: a call may go by what was told. Else from when on it may; FAR: not before another is over.

        It may sooner if another is over."""
        if self._alone is not None and self._is_out_since(self._alone):
            return FAR
        wait = 0
        for word in self._words.values():
            if word.until > now:
                wait = max(wait, word.until)
            elif word.ends_at > now and word.spent(self._newest, cost) and self._is_out_since(word.mark.calls):
                wait = max(wait, word.ends_at)
        return wait

    def _is_out_since(self, calls: int) -> bool:
        """Whether a call is on its way that was taken after so many."""
        return bool(self._out) and next(reversed(self._out)) > calls

    def mark(self, cost: int, flying: int, flying_cost: int) -> Mark:
        """A call was taken; `flying` is what hasn't arrived for certain, this call included."""
        calls, spent = self._newest.calls + 1, self._newest.cost + cost
        self._newest = Mark(calls, spent, calls - flying + 1, spent - flying_cost + cost)
        self._out[calls] = None
        return self._newest

    def ended(self, mark: Mark, *, answered: bool) -> bool:
        """The call of this mark is over. True: another may go that had to wait for it."""
        alone = self._alone
        waited = bool(self._words) or (alone is not None and mark.calls > alone)
        self._out.pop(mark.calls, None)
        if answered and alone is not None and mark.calls > alone:
            self._alone = None
        return waited

    # -- what is told -------------------------------------------------------------------------

    def refused(self, cost: int, instant: int) -> None:
        """A call that is charged since `instant` was answered as limited: the upstream didn't count it."""
        for limit, others in self._others:
            others.refused(1 if limit.counts is Counts.CALLS else cost, instant)

    def waits_until(self, at: int) -> None:
        """A call was refused, and its owner waits until `at` as it was told."""
        for _, others in self._others:
            others.waits_until(at)

    def hear(self, place: int, hint: Hint, sent_at: int, mark: Mark | None, now: int) -> int:
        """What is left of the limit at this place by the answer to a call. Returns by how much the estimate of others
        changed."""
        limit, others = self._others[place]
        unsure = None
        if mark is not None:
            by_calls = limit.counts is Counts.CALLS
            unsure = self._newest.calls - mark.arrived if by_calls else self._newest.cost - mark.arrived_cost
        self._alone, self._heard = None, self._newest.calls
        return others.hear(Word(hint.remaining, hint.max, sent_at, unsure), now)

    def is_taken_by_others(self, place: int) -> bool:
        """Whether others take something of the limit at this place, by what was told."""
        return self._others[place][1].explains

    def allow(self, hint: Hint, mark: Mark | None, in_flight: int, now: int, *, limited: bool) -> None:
        """What is left of a limit that isn't configured, by the answer to a call; `in_flight`: calls of the owner.

        `limited`: the call was refused, and its owner is blocked for that.
        """
        word, left = self._words.get(hint.name), hint.remaining
        if mark is None:
            # Nobody knows which calls from before were counted in that.
            mark, left = UNMARKED, max(0, left - (in_flight - len(self._out)))
            if word is not None and word.left <= left:
                return
        if word is not None and mark.calls < word.mark.calls:
            return  # calls overtake each other: this says what was, not what is
        lasts = hint.reset_in or hint.per
        until = 0 if hint.remaining or limited else now + (hint.reset_in or WITHOUT_RESET)
        ends_at = now + (lasts or LONGEST_WORD) if hint.remaining else FAR
        if word is None and len(self._words) >= MOST_WORDS:
            del self._words[next(iter(self._words))]
        since = now if word is None or word.left else word.since
        self._words[hint.name] = Allowance(hint.counts or Counts.CALLS, mark, left, until, ends_at, since)

    @property
    def has_words(self) -> bool:
        """Whether anything is told of limits that aren't configured."""
        return bool(self._words)

    def learn(self, shape: Shape, meaning: Meaning) -> None:
        """Hints of this shape mean this limit."""
        if len(self.meanings) >= MOST_SHAPES:  # an upstream that invents them
            self.meanings.clear()
        self.meanings[shape] = meaning

    def silent(self, mark: Mark | None, cost: int, names: Collection[str], now: int) -> None:
        """An answer spoke of the limits with these names only: who waited for its word on another waits no more."""
        for name, word in list(self._words.items()):
            if name in names:
                continue
            newer = mark is not None and mark.calls > word.mark.calls
            if newer and word.until <= now and word.spent(self._newest, cost):
                del self._words[name]

    # -- what happens by itself ---------------------------------------------------------------

    def expire(self, now: int) -> None:
        """Take back what has ended in the windows, and forget what is too old."""
        slow = next(iter(self._out), FAR) <= self._heard
        for _, others in self._others:
            if others.expire(now, out=bool(self._out), slow=slow):
                self._alone = self._newest.calls
        for name, word in list(self._words.items()):
            if word.ends_at <= now:
                del self._words[name]
            elif word.until <= now:
                word.until = 0

    def next_end(self) -> int:
        """When the first of what holds back ends by itself; FAR: nothing does."""
        ends = [others.ends_at() for _, others in self._others]
        ends += [word.until or word.ends_at for word in self._words.values()]
        return min(ends, default=FAR)

    def held_until(self, now: int) -> int:
        """Until when nothing may go, for nothing is left of a limit that isn't configured; `now`: it may."""
        until = now
        for word in self._words.values():
            if word.until > until:
                until = word.until
        return until

    # -- for people ---------------------------------------------------------------------------

    def taken(self) -> list[tuple[Limit, int, int, int | None]]:
        """(limit, how much of it can't be used, since when, the upstream's own max if that is lower) of each."""
        return [
            (limit, others.amount, others.since, others.lower)
            for limit, others in self._others
            if isinstance(others, Others) and others.amount
        ]

    def newly_lower(self) -> list[tuple[Limit, int]]:
        """(limit, the upstream's own max) of each that it lowered, or lowered again, since this was last asked."""
        news = []
        for limit, others in self._others:
            if isinstance(others, Others) and others.lower != others.lower_seen:
                others.lower_seen = others.lower
                if others.lower is not None:
                    news.append((limit, others.lower))
        return news

    def nothing_left(self, now: int) -> list[tuple[str, int, int]]:
        """(header, since when, until when) of each by which nothing may go."""
        return [(name, word.since, word.until) for name, word in self._words.items() if word.until > now]

    def __repr__(self) -> str:
        return f"<Told {self._others}, {len(self._words)} words>"
