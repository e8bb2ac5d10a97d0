"""What limits a judge knows, and what some arrivals make of one of them.

The rule: a limit is a function of the instants and costs of arrivals, and of nothing else. Three kinds:

- **sliding**: at most `max` in any half-open window (t, t + per].
- **fixed**: at most `max` in each window [n * per, (n + 1) * per) of the clock.
- **bucket**: a bucket of `depth` that each arrival takes from, and that gets `max` back in `per`, evenly.

Time is integer nanoseconds. Pure.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from apiflux_grpc.core import units
from apiflux_grpc.core.units import MOST, format_limit

FORM: Final = (
    "must be MAX/DURATION, then :cost, :fixed or :bucket=DEPTH if need be, such as 1000/60s or 20/1s:bucket=40"
)


class Limit(NamedTuple):
    """At most `max` calls of a key (or so much of their cost) per `per_ns`. Only a bucket has a `depth`."""

    max: int
    per_ns: int
    counts: Literal["calls", "cost"] = "calls"
    kind: Literal["sliding", "fixed", "bucket"] = "sliding"
    depth: int = 0

    @property
    def most(self) -> int:
        """What a key may spend in one instant."""
        return self.depth if self.kind == "bucket" else self.max

    def words(self) -> str:
        """As people say it: `100 calls per 10s`."""
        said = format_limit(self.max, self.per_ns, self.counts)
        return f"{said}, {self.depth} at once" if self.kind == "bucket" else said


def parse_limit(text: str) -> Limit:
    """`1000/60s`, `200000/60s:cost`, `1000/60s:fixed`, `20/1s:bucket=40`, `9/1s:cost:bucket=40`. Raises ValueError."""
    first, *words = text.split(":")
    try:
        most, per_ns, _ = units.parse_limit(first)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None
    limit = Limit(most, per_ns)
    for word in words:
        name, _, depth = word.partition("=")
        if word == "cost" and limit.counts == "calls":
            limit = limit._replace(counts="cost")
        elif word == "fixed" and limit.kind == "sliding":
            limit = limit._replace(kind="fixed")
        elif name == "bucket" and limit.kind == "sliding" and _is_count(depth):
            limit = limit._replace(kind="bucket", depth=int(depth))
        else:
            raise ValueError(f"{text!r} {FORM}")
    return limit


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 14 and 1 <= int(text) <= MOST


def fullest(limit: Limit, stamps: Sequence[int], costs: Sequence[int] | None = None) -> int:
    """How full these sorted arrivals made it at worst: above `limit.most` they broke it. `costs` None: each costs 1."""
    if costs is None:
        costs = (1,) * len(stamps)
    if limit.kind == "bucket":
        return _deepest(limit, stamps, costs)
    if limit.kind == "sliding" and limit.counts == "calls":
        return most_in_any_window(stamps, limit.per_ns)
    most = within = first = 0
    for at, stamp in enumerate(stamps):
        within += costs[at]
        begin = stamp - limit.per_ns if limit.kind == "sliding" else stamp // limit.per_ns * limit.per_ns - 1
        while stamps[first] <= begin:
            within -= costs[first]
            first += 1
        most = max(most, within)
    return most


def most_in_any_window(stamps: Iterable[int], per_ns: int) -> int:
    """The most of these sorted stamps that any half-open window of `per_ns` holds; one pass.

    Two pointers, the window never shrinking: it can only be beaten by one stamp more, so a single comparison with the
    stamp `most` places before tells.
    """
    stamps = list(stamps)
    most = 0
    for at, stamp in enumerate(stamps):
        if stamp - stamps[at - most] < per_ns:
            most += 1
    return most


def _deepest(limit: Limit, stamps: Sequence[int], costs: Sequence[int]) -> int:
    """The depth that a bucket would have needed."""
    level = deepest = last = 0  # in units of 1 / per_ns, so that what comes back is a whole number
    for stamp, cost in zip(stamps, costs, strict=True):
        level = max(0, level - (stamp - last) * limit.max) + cost * limit.per_ns
        deepest, last = max(deepest, level), stamp
    return -(-deepest // limit.per_ns)


class Left(NamedTuple):
    """What is left of a limit; `soonest` ns until there is more of it, `whole` until all is back."""

    remaining: int
    soonest: int
    whole: int


class Meter:
    """One limit of one key, over the sorted `stamps` of what was admitted, shared by all meters of the key.

    `sums[n]` is the cost of the first n of them, None where every arrival counts as 1. Whoever admits an arrival adds
    it to these and then calls `added`.
    """

    def __init__(self, limit: Limit, stamps: Sequence[int], sums: Sequence[int] | None) -> None:
        self.limit = limit
        self._max = limit.max
        self._stamps = stamps
        self._sums = sums if limit.counts == "cost" else None

    def wait(self, now: int, cost: int) -> int:
        """In how many ns an arrival fits, if none comes before it; 0: now. `now` is no earlier than any stamp.

        What never fits is told to come back after a period, as good an answer as any.
        """
        if self._sums is None:
            cost = 1
        elif cost > self.limit.most:
            return self.limit.per_ns
        return max(0, self._fits_from(cost) - now)

    def breaks(self, now: int, cost: int, own: Sequence[int]) -> bool:
        """Whether an arrival told late would put too much into a window that ends with it, or with one of `own`."""
        cost = cost if self._sums else 1
        stamps = self._stamps
        for end in (now, *own[bisect_right(own, now) :]):
            begin = self._begin(end)
            if begin > now:
                return False
            if self._units(bisect_left(stamps, begin), bisect_right(stamps, end)) + cost > self.limit.max:
                return True
        return False

    def added(self, place: int) -> None:
        """An arrival was admitted, at this place of `stamps`."""

    def left(self, now: int) -> Left:
        """What is left at `now`, which is no earlier than any stamp."""
        stamps, limit = self._stamps, self.limit
        count = len(stamps)
        used = self._units(bisect_left(stamps, self._begin(now)), count)
        if not used:
            return Left(limit.max, 0, 0)
        remaining = max(0, limit.max - used)
        return Left(remaining, self._fits_from(remaining + 1) - now, self._end(stamps[-1]) - now)

    def _fits_from(self, cost: int) -> int:
        """From when on this cost fits."""
        stamps, sums = self._stamps, self._sums
        # The arrivals before this place must have left the window.
        place = len(stamps) + cost - self._max if sums is None else bisect_left(sums, sums[-1] + cost - self._max)
        if place <= 0:
            return 0
        return self._end(stamps[place - 1])

    def _begin(self, now: int) -> int:
        """The first instant of the window that `now` is in."""
        per_ns = self.limit.per_ns
        return now - per_ns + 1 if self.limit.kind == "sliding" else now // per_ns * per_ns

    def _end(self, stamp: int) -> int:
        """The instant from which an arrival at `stamp` is in no window any more."""
        per_ns = self.limit.per_ns
        return stamp + per_ns if self.limit.kind == "sliding" else (stamp // per_ns + 1) * per_ns

    def _units(self, begin: int, end: int) -> int:
        return end - begin if self._sums is None else self._sums[end] - self._sums[begin]


class BucketMeter(Meter):
    """The same of a bucket. Its level after each arrival is kept, so that one told late can be put in its place.

    Levels are in units of 1 / per_ns: what comes back in a nanosecond is then a whole number.
    """

    def __init__(self, limit: Limit, stamps: Sequence[int], sums: Sequence[int] | None) -> None:
        super().__init__(limit, stamps, sums)
        self._levels: list[int] = []
        self._depth = limit.depth * limit.per_ns

    def breaks(self, now: int, cost: int, own: Sequence[int]) -> bool:
        place = bisect_right(self._stamps, now)
        level = self._level(place, now) + (cost if self._sums else 1) * self.limit.per_ns
        if level > self._depth:
            return True
        for at in range(place, len(self._stamps)):
            stamp = self._stamps[at]
            level = max(0, level - (stamp - now) * self.limit.max) + self._units(at, at + 1) * self.limit.per_ns
            now = stamp
            if level > self._depth and own[bisect_left(own, stamp) : bisect_right(own, stamp)]:
                return True
        return False

    def added(self, place: int) -> None:
        self._levels.insert(place, 0)
        for at in range(place, len(self._stamps)):
            self._levels[at] = self._level(at, self._stamps[at]) + self._units(at, at + 1) * self.limit.per_ns

    def left(self, now: int) -> Left:
        level = self._level(len(self._levels), now)
        remaining = max(0, (self._depth - level) // self.limit.per_ns)
        soonest = self._fits_from(remaining + 1) - now if level else 0
        return Left(remaining, soonest, -(-level // self.limit.max))

    def _fits_from(self, cost: int) -> int:
        if not self._levels:
            return 0
        over = self._levels[-1] + cost * self.limit.per_ns - self._depth
        return self._stamps[-1] - (-over // self.limit.max)

    def _level(self, place: int, now: int) -> int:
        """The level at `now`, before what was admitted at this place."""
        if not place:
            return 0
        return max(0, self._levels[place - 1] - (now - self._stamps[place - 1]) * self.limit.max)


def meter(limit: Limit, stamps: Sequence[int], sums: Sequence[int] | None) -> Meter:
    return (BucketMeter if limit.kind == "bucket" else Meter)(limit, stamps, sums)
