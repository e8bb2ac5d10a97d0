"""Pacers, and the limits that are nothing but a pacer.

Rule: a window limit's pacer only shapes bursts: its rate is a hair above the window's, so that the window is what
binds. A bucket limit (a token bucket upstream, nginx's limit_req) has no window: its pacer keeps the limit, with a
depth lowered by what flows in during J, since calls may arrive up to J late and so bunch.

Nothing can be put into a pacer or taken out of it: when a bucket changes, its pacer is made anew and filled.

Not known here: which library paces.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.lows import Lows
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.window import CUT, STEP

if TYPE_CHECKING:
    from apiflux_grpc.core.model import Limit

FAR: Final = 1 << 62  # no instant: something else has to happen first
MOST_DEBT: Final = 3_600 * SECOND  # of what flows into a bucket
PACER_MARGIN: Final = 1.001  # a pacer's rate over its window's


class Pacer(Protocol):
    """Shapes the bursts of one limit of one owner. Bound to one event loop."""

    def ready_at(self, amount: int, now: int) -> int:
        """`now` or earlier: there is room. Else a later instant at which it is worth asking again."""

    def take(self, amount: int) -> None:
        """Take `amount`; only right after ready_at said that there is room."""

    def level(self, now: int) -> float:
        """What is taken and has not leaked away yet."""

    def fill(self, level: float, now: int) -> None:
        """Start from this level instead of 0, as the heir of another pacer; above the burst it waits for the rest."""


class PacerFactory(Protocol):
    def __call__(self, burst: float, seconds: float, /) -> Pacer:
        """A pacer that lets `burst` pass at once and refills `burst` in `seconds`."""


def paced(limit: Limit, make_pacer: PacerFactory) -> Pacer:
    """The pacer of a window limit: its burst at its rate, the rate a hair higher so that the window binds."""
    seconds = limit.per / 1e9 * limit.depth / limit.max / PACER_MARGIN
    return make_pacer(limit.depth, seconds)


class Shaper:
    """The pacer of a window limit, made anew when a call took less than it was charged, or nothing. A Pacer itself.

    Its rate is the window's: charged with what calls declare, it would hold them to that, whatever the window has free.
    A call that took more is the window's own business: in here a wrong figure would never end.
    """

    __slots__ = ("_limit", "_make", "_pacer")

    def __init__(self, limit: Limit, make_pacer: PacerFactory) -> None:
        self._limit = limit
        self._make = make_pacer
        self._pacer = paced(limit, make_pacer)

    def ready_at(self, amount: int, now: int) -> int:
        return self._pacer.ready_at(amount, now)

    def take(self, amount: int) -> None:
        self._pacer.take(amount)

    def level(self, now: int) -> float:
        return self._pacer.level(now)

    def fill(self, level: float, now: int) -> None:
        self._pacer.fill(level, now)

    def give_back(self, amount: int, now: int) -> None:
        """A call took so much less than it was charged."""
        level = max(0.0, self._pacer.level(now) - amount)
        self._pacer = paced(self._limit, self._make)
        self._pacer.fill(level, now)


def shape(limit: Limit, jitter: int, factor: float = 1.0) -> tuple[float, float]:
    """(burst, seconds) of the pacer that keeps a bucket limit although calls arrive up to `jitter` ns late.

    Delays bunch calls: those taken over J may arrive at once, so the depth is less by what flows in during J. Where
    that leaves less than one call, calls are spaced so that however they bunch the bucket holds them.
    """
    rate = limit.max * factor / limit.per * 1e9
    # A call taken at t arrives in [t, t + J]. The most that can arrive in any interval of length x is what was taken in
    # x + J: depth + rate * (x + J). So a depth lowered by rate * J keeps the upstream's own.
    flow = rate * jitter / 1e9
    depth = limit.depth - flow
    if depth >= 1:
        return depth, depth / rate
    return 1.0, (1 + (1 - limit.depth + flow) / limit.depth) / rate


def largest(limit: Limit, jitter: int) -> int:
    """The most that one call may take of this limit at once."""
    if limit.kind is Kind.BUCKET:
        return int(shape(limit, jitter)[0])
    return min(limit.max, limit.depth)


class Bucket:
    """A bucket limit: its pacer, made anew when the limit is cut or comes back. A Pacer itself."""

    __slots__ = (
        "_asked",
        "_cut_at",
        "_factor",
        "_jitter",
        "_lows",
        "_make",
        "_pacer",
        "limit",
        "recover_at",
        "since",
    )

    def __init__(self, limit: Limit, jitter: int, make_pacer: PacerFactory) -> None:
        self.limit = limit
        self._jitter = jitter
        self._make = make_pacer
        self._factor = 1.0
        self._cut_at = -1
        self.recover_at = FAR
        self.since = -1  # an heir's: when it took over
        self._asked = 0
        self._lows = Lows() if limit.counts is Counts.COST else None  # others are hardly ever given back
        self._pacer = make_pacer(*shape(limit, jitter))

    def ready_at(self, amount: int, now: int) -> int:
        self._asked = now
        return self._pacer.ready_at(amount, now)

    def take(self, amount: int) -> None:
        if self._lows is not None:
            self._lows.note(self._pacer.level(self._asked), self._asked)
        self._pacer.take(amount)

    def level(self, now: int) -> float:
        return self._pacer.level(now)

    def fill(self, level: float, now: int) -> None:
        self._pacer.fill(level, now)

    def headroom(self, now: int) -> float:
        """The free share of its depth."""
        return 1 - self._pacer.level(now) / shape(self.limit, self._jitter, self._factor)[0]

    def owe(self, more: float, now: int, taken_at: int) -> None:
        """A call taken at `taken_at` took `more` than it was charged, or less.

        Given back is what hasn't leaked away since, or as much as the bucket always held since (lows.py): of the rest,
        others may have used the room. Nothing can be put into a pacer or taken out: it is made anew. A debt is at most
        what flows in an hour: one wrong figure of the upstream's would take the key for ever. Nothing is given back for
        a call from before this bucket's time, since what it started from need not have counted that call.
        """
        now = max(now, self._asked)  # an answer may have come before others took what has leaked away meanwhile
        if more < 0:  # given back
            if taken_at <= self.since:
                return
            more = min(0.0, more + (now - taken_at) * self.limit.max / self.limit.per, self._held(more, now, taken_at))
            if self._lows is not None:
                self._lows.lower(-more)
        if more:
            most = self.limit.depth + self.limit.max / self.limit.per * MOST_DEBT
            self._remake(self._factor, min(most, self._pacer.level(now) + more), now)

    def _held(self, more: float, now: int, taken_at: int) -> float:
        """As much of `more` as the bucket always held since; below 0."""
        if self._lows is None:
            return 0.0
        return -min(-more, self._lows.least(taken_at, self._pacer.level(now)))

    def raise_level(self, amount: float, now: int) -> None:
        """Others took so much of it."""
        self._remake(self._factor, self._pacer.level(now) + amount, now)

    def cut(self, now: int, taken_at: int) -> bool:
        """As Window.cut."""
        self.recover_at = now + self.limit.per
        if self._cut_at >= 0 and (taken_at <= self._cut_at or now < self._cut_at + self.limit.per):
            return False
        self._cut_at = now
        self._remake(self._factor * CUT, self._pacer.level(now), now)
        return True

    @property
    def cut_off(self) -> tuple[int, int]:
        """As Window.cut_off."""
        if self._factor >= 1:
            return 0, 0
        steps = math.ceil((1 - self._factor) * STEP - 1e-9)
        return math.ceil(self.limit.max * (1 - self._factor) - 1e-9), self.recover_at + (steps - 1) * self.limit.per

    def follow_cut(self, amount: int, until: int, now: int) -> None:
        """As Window.follow_cut."""
        steps = -(-max(0, until - now) // self.limit.per)
        factor = 1 - min(amount / self.limit.max, steps / STEP)
        if 0 < factor < self._factor:
            self._cut_at = now
            self.recover_at = until - (math.ceil((1 - factor) * STEP - 1e-9) - 1) * self.limit.per
            self._remake(factor, self._pacer.level(now), now)

    def recover(self, now: int) -> None:
        """A step of a cut comes back if it is due."""
        if now >= self.recover_at:
            steps = 1 + (now - self.recover_at) // self.limit.per
            self._remake(min(1.0, self._factor + steps / STEP), self._pacer.level(now), now)
            self.recover_at = self.recover_at + steps * self.limit.per if self._factor < 1 else FAR

    def _remake(self, factor: float, level: float, now: int) -> None:
        self._factor = factor
        self._pacer = self._make(*shape(self.limit, self._jitter, factor))
        self._pacer.fill(max(0.0, level), now)

    def __repr__(self) -> str:
        return f"<Bucket {self.limit.max} per {self.limit.per / 1e9:g} s, burst {self.limit.depth}, {self._pacer!r}>"
