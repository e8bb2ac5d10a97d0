"""What a key may still spend now, over all its limits.

Rule: all limits of a key are taken together or none is, and a call counts from its permit until `per` after the
last instant at which it can have arrived.

Three instants decide when a slot comes back. *Taken*: the permit, a bare count without an end. *Sent*: the
request's bytes went to the socket. *Settled*: an answer came. A call that was sent arrives at most J
(`arrival_jitter`) later, and an answered one arrived before its answer, so its slot ends at
`min(answered, sent + J) + per`. A call that was sent and never answered ends at `sent + J + per`; one that
certainly wasn't sent is given back at once.

Calls that were sent and not answered yet are kept in *flights*: groups by the instant of sending, one deque for
all windows of the key. A whole flight moves into the logs when its J has passed, so that a hanging call costs
nothing and ends by itself.

Each limit also has a Pacer, which only shapes bursts: the window keeps the promise. Not known here: which library
paces, other keys, who waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.window import GROUPS, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.model import Limit, Permit

FAR: Final = 1 << 62  # no instant: something else has to happen first
PACER_MARGIN: Final = 1.001  # a pacer's rate over its window's, so that the window is what binds


class Pacer(Protocol):
    """Shapes the bursts of one limit of one key. Bound to one event loop."""

    def ready_at(self, amount: int, now: int) -> int:
        """`now` or earlier: there is room. Else a later instant at which it is worth asking again."""

    def take(self, amount: int) -> None:
        """Take `amount`; only right after ready_at said that there is room."""


class PacerFactory(Protocol):
    def __call__(self, burst: float, seconds: float, /) -> Pacer:
        """A pacer that lets `burst` pass at once and refills `burst` in `seconds`."""


def paced(limit: Limit, make_pacer: PacerFactory) -> Pacer:
    """The pacer of a window limit: its burst at its rate, the rate a hair higher so that the window binds."""
    seconds = limit.per / 1e9 * limit.depth / limit.max / PACER_MARGIN
    return make_pacer(limit.depth, seconds)


class Flight:
    """Calls of one key that were sent at about the same time and have no answer yet."""

    __slots__ = ("calls", "cost", "first", "gone", "last")

    def __init__(self, at: int) -> None:
        self.first = self.last = at
        self.calls = 0
        self.cost = 0
        self.gone = False  # its J has passed: its calls are in the logs


_UNCOUNTED: Final = Flight(0)  # where no window counts
_UNCOUNTED.gone = True


class Budget:
    """The limits of one owner: their windows, their pacers and the flights between *sent* and *settled*.

    Two tuples of each, by what they count, because most pools count calls alone and this is the hottest code.
    """

    __slots__ = ("_cost_pacers", "_flights", "_pacers", "_span", "cost_windows", "jitter", "kept", "windows")

    def __init__(self, limits: Sequence[Limit], jitter: int, make_pacer: PacerFactory | None) -> None:
        if any(limit.kind is not Kind.WINDOW for limit in limits):
            raise ValueError("a budget is made of window limits")
        by_calls = [limit for limit in limits if limit.counts is Counts.CALLS]
        by_cost = [limit for limit in limits if limit.counts is Counts.COST]
        self.windows = tuple(Window(limit.max, limit.per) for limit in by_calls)
        self.cost_windows = tuple(Window(limit.max, limit.per) for limit in by_cost)
        self._pacers: tuple[Pacer, ...] = ()
        self._cost_pacers: tuple[Pacer, ...] = ()
        if make_pacer is not None:
            self._pacers = tuple(paced(limit, make_pacer) for limit in by_calls)
            self._cost_pacers = tuple(paced(limit, make_pacer) for limit in by_cost)
        self.jitter = jitter
        self._flights: deque[Flight] = deque()
        everything = (*self.windows, *self.cost_windows)
        self._span = min((window.per for window in everything), default=0) // GROUPS
        # How long after its instant a slot comes back in the shortest window.
        self.kept = min((window.kept for window in everything), default=0)

    def try_take(self, cost: int, now: int) -> int:
        """Take one call of `cost` from every limit, or none; the windows are expired up to `now`.

        Returns 0 when taken, FAR when a window is full (its next_end tells), else the instant at which the pacers
        may have room.
        """
        windows = self.windows
        for window in windows:
            if window.used >= window.max:
                return FAR
        cost_windows = self.cost_windows
        for window in cost_windows:
            if window.used + cost > window.max:
                return FAR
        pacers = self._pacers
        wait = 0
        for pacer in pacers:
            ready = pacer.ready_at(1, now)
            if ready > now and ready > wait:
                wait = ready
        for pacer in self._cost_pacers:
            ready = pacer.ready_at(cost, now)
            if ready > now and ready > wait:
                wait = ready
        if wait:
            return wait
        for window in windows:
            window.used += 1
        for window in cost_windows:
            window.used += cost
        for pacer in pacers:
            pacer.take(1)
        for pacer in self._cost_pacers:
            pacer.take(cost)
        return 0

    def give_back(self, cost: int) -> None:
        """A call that certainly wasn't sent. Pacers keep theirs: that only smooths a little more."""
        for window in self.windows:
            window.used -= 1
        for window in self.cost_windows:
            window.used -= cost

    def sent(self, permit: Permit, at: int) -> int:
        """The call's bytes went out at `at`. Returns when its slot ends if no answer comes."""
        flights = self._flights
        if not self.kept:
            permit.flight = _UNCOUNTED
            return FAR
        if flights and at - flights[-1].first <= self._span:
            flight = flights[-1]
            if at > flight.last:
                flight.last = at
        else:
            flight = Flight(at)
            flights.append(flight)
        flight.calls += 1
        flight.cost += permit.cost
        permit.flight = flight
        return flight.last + self.jitter + self.kept

    def answered(self, permit: Permit, at: int) -> int:
        """An answer came at `at`: the call arrived by then. Returns when some window next frees something."""
        flights = self._flights
        if flights and flights[0].last + self.jitter <= at:
            self._land(at)  # instants join the logs in their order, or slots would come back later than they must
        flight = permit.flight
        if flight is None or flight.gone:
            return FAR
        flight.calls -= 1
        flight.cost -= permit.cost
        first = FAR
        for window in self.windows:
            end = window.record(at, 1)
            if end < first:
                first = end
        for window in self.cost_windows:
            end = window.record(at, permit.cost)
            if end < first:
                first = end
        return first

    def advance(self, now: int) -> None:
        """Move flights whose J has passed into the logs, then take back what has ended."""
        self._land(now)
        for window in self.windows:
            window.expire(now)
        for window in self.cost_windows:
            window.expire(now)

    def _land(self, now: int) -> None:
        flights = self._flights
        while flights and flights[0].last + self.jitter <= now:
            flight = flights.popleft()
            flight.gone = True
            instant = flight.last + self.jitter
            if flight.calls:
                for window in self.windows:
                    window.record(instant, flight.calls)
                for window in self.cost_windows:
                    window.record(instant, flight.cost)

    def next_change(self) -> int:
        """The next instant at which something comes back by itself; FAR: nothing is on its way."""
        first = FAR
        for window in (*self.windows, *self.cost_windows):
            end = window.next_end
            if end is not None and end < first:
                first = end
        for flight in self._flights:
            if flight.calls:
                return min(first, flight.last + self.jitter + self.kept)
        return first

    def rank(self) -> tuple[float, int]:
        """(headroom, free calls): the free share of the tightest window, and what fits into all of them.

        Headroom is 0 to 1, below 0 while a debt is paid off; (1, FAR) without windows.
        """
        share = 1.0
        calls = FAR
        for window in self.windows:
            free = window.max - window.used
            if free < calls:
                calls = free
            part = free / window.max
            if part < share:
                share = part
        for window in self.cost_windows:
            free = window.max - window.used
            if free < calls:
                calls = free
            part = free / window.max
            if part < share:
                share = part
        return share, calls

    @property
    def on_the_way(self) -> list[tuple[int, int]]:
        """(instant of arrival at the latest, calls) of the flights; for forecasts."""
        return [(flight.last + self.jitter, flight.calls) for flight in self._flights if flight.calls]

    def __repr__(self) -> str:
        return f"<Budget {', '.join(map(repr, (*self.windows, *self.cost_windows)))}>"
