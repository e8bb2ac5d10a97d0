"""What the arrival margin J costs, and whether it fits.

Rule: J can't be seen from here, for nobody tells when a call arrived. What can be seen bounds it: a call arrives
before its answer, and no sooner than a connection takes to open. So advice is given on evidence alone: a 429 though
every limit was kept (J may be too small, or somebody else uses the key), or a J far above the time that connecting
takes, if that costs capacity.

Round trips are counted in bins that double, and halved now and then, so that old ones fade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import Kind
from apiflux_grpc.core.units import MILLISECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apiflux_grpc.core.model import Limit

SHIFT: Final = 16  # bins begin at 65 us
BINS: Final = 32
FADE_AT: Final = 100_000
WORTH: Final = 0.01  # of capacity: below that there is nothing to say
AMPLE: Final = 10  # J is large if it is so many times what connecting takes
LEAST: Final = 20 * MILLISECOND  # no smaller J is advised: timers and schedulers are late too


class RoundTrips:
    """How long it takes from sending a call to its status line."""

    __slots__ = ("_bins", "_count")

    def __init__(self) -> None:
        self._bins = [0] * BINS
        self._count = 0

    def add(self, length: int) -> None:
        """One round trip (ns)."""
        place = (length >> SHIFT).bit_length()
        self._bins[place if place < BINS else BINS - 1] += 1
        self._count += 1
        if self._count >= FADE_AT:
            self._bins = [count // 2 for count in self._bins]
            self._count = sum(self._bins)

    def quantile(self, share: float) -> int | None:
        """The upper end (ns) of the bin where this share of them is reached; None: there were none."""
        left = share * self._count
        if not self._count:
            return None
        for place, count in enumerate(self._bins):
            left -= count
            if left <= 0:
                return 1 << (SHIFT + place)
        return 1 << (SHIFT + BINS)

    def __repr__(self) -> str:
        return f"<RoundTrips: {self._count}>"


def cost_of(jitter: int, limits: Iterable[Limit], latency: int) -> float:
    """The largest share of a window's steady rate that J takes, at this latency (ns): 1 - T / (T + min(latency, J))."""
    wait = min(jitter, latency)
    periods = [limit.per for limit in limits if limit.kind is Kind.WINDOW]
    return max((wait / (per + wait) for per in periods), default=0.0)


def advice(jitter: int, cost: float, connecting: int | None, cuts: int) -> str:
    """What to change about `arrival_jitter`, in words; "": nothing.

    `connecting` is the longest that opening a connection took lately (ns), `cuts` how often a 429 came although every
    limit was kept.
    """
    if cuts:
        return (
            f"{cuts} times a 429 came although every limit was kept: raise arrival_jitter; or the limits are lower "
            "than configured, or somebody else uses the keys"
        )
    if connecting is not None and cost >= WORTH:
        enough = max(LEAST, AMPLE // 2 * connecting)
        if jitter > 2 * enough and jitter > AMPLE * connecting:
            return (
                f"arrival_jitter costs {cost:.1%} of the capacity, and connecting takes {connecting / 1e6:.1f} ms "
                f"at most: {enough / 1e6:.0f} ms would do"
            )
    return ""
