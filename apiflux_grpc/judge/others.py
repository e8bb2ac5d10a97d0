"""The second user of every key: an open loop at a constant rate that is always admitted.

The rule: its calls come at instants that are known beforehand, whatever the client does, and spend a share of the
tightest limit of calls; of a limit of cost, as far as there is one, they spend the same share. They have always been
there: a period of the longest limit is past when the judge starts. Integer nanoseconds: no instant is rounded by more
than one.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final

from apiflux_grpc.judge.limits import Limit

CALLS_OF_COST: Final = 100  # that spend a limit of cost, where no limit says how many calls there are


class Others:
    """The instants (ns) and the cost of the second user's calls; those up to `start` are past. It needs a limit."""

    def __init__(self, share: Fraction, limits: Iterable[Limit], start: int) -> None:
        limits = tuple(limits)
        calls = [Fraction(each.max, each.per_ns) for each in limits if each.counts == "calls"]
        cost = [Fraction(each.max, each.per_ns) for each in limits if each.counts == "cost"]
        rate = share * (min(calls) if calls else min(cost) / max(1, min(each.max for each in limits) // CALLS_OF_COST))
        self._every = 1 / rate
        self.start = start
        self._first = start - max(each.per_ns for each in limits)
        self.cost = max(1, int(share * min(cost) / rate)) if cost else 1

    def due(self, count: int, now: int) -> Iterator[int]:
        """Those at or before `now`, the first `count` left out."""
        numerator, denominator = self._every.as_integer_ratio()
        while (at := self._first + (count + 1) * numerator // denominator) <= now:
            yield at
            count += 1
