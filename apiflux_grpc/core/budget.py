"""What one owner, a key or a group of keys, may still spend now, over all its limits.

Rule: all limits are taken together or none is, and a call counts from its permit until `per` after the last instant
at which it can have arrived.

Three instants decide when a slot comes back. *Taken*: the permit, a bare count without an end. *Sent*: the
request's bytes went to the socket. *Settled*: an answer came. A call that was sent arrives at most J
(`arrival_jitter`) later, and an answered one arrived before its answer, so its slot ends at
`min(answered, sent + J) + per`. A call that was sent and never answered ends at `sent + J + per`; one that
certainly wasn't sent is given back at once.

Calls that were sent and not answered yet are kept in *flights*: groups by the instant of sending, one deque for
all windows of the owner. A whole flight moves into the logs when its J has passed, so that a hanging call costs
nothing and ends by itself.

A limit is a window, whose Pacer only shapes bursts, or a bucket, of which the pacer is all there is. What the
upstream says of itself only ever tightens: a ceiling on what is left until an instant, or a cut of a limit.

Not known here: which library paces, other owners, who waits.

Over 400 lines: the way of a call, and what follows from the same fields for reservations and for a change of limits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar

from apiflux_grpc.core.bucket import FAR, PACER_MARGIN, Bucket, Shaper, largest, paced, shape
from apiflux_grpc.core.flight import UNCOUNTED, Flight
from apiflux_grpc.core.model import Counts, Kind
from apiflux_grpc.core.told import Told
from apiflux_grpc.core.window import GROUPS, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.bucket import Pacer, PacerFactory
    from apiflux_grpc.core.flight import Part
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.told import Mark


class Budget:
    """The limits of one owner: their windows, their pacers and the flights between *sent* and *settled*.

    Two tuples of each, by what they count, because most pools count calls alone and this is the hottest code.
    Raises ValueError for a bucket limit without a pacer.
    """

    __slots__ = (
        "_call_shapers",
        "_cost_pacers",
        "_make_pacer",
        "_pacers",
        "_shapers",
        "_span",
        "buckets",
        "by_cost",
        "cost_windows",
        "flights",
        "jitter",
        "kept",
        "kept_limits",
        "limits",
        "most_cost",
        "told",
        "unarrived",
        "unarrived_cost",
        "windows",
    )

    takes_back: ClassVar = False  # whether much may come back that wasn't sent

    def __init__(self, limits: Sequence[Limit], jitter: int, make_pacer: PacerFactory | None) -> None:
        self.limits = tuple(limits)
        self.jitter = jitter
        self._make_pacer = make_pacer
        self.buckets: list[Bucket] = []
        self._shapers: list[Shaper] = []  # of the cost windows
        self._call_shapers: list[Shaper] = []  # of the others, if they take back
        self.windows = tuple(Window(limit.max, limit.per) for limit in self._of(Counts.CALLS, Kind.WINDOW))
        self.cost_windows = tuple(Window(limit.max, limit.per) for limit in self._of(Counts.COST, Kind.WINDOW))
        self._pacers = self._paced(Counts.CALLS)
        self._cost_pacers = self._paced(Counts.COST)
        self.kept_limits = self._keepers()  # the limits, each with what keeps it
        # Above this a call never fits; and a pacer that is asked for more than its burst raises.
        costs = [largest(limit, jitter) for limit in self.limits if limit.counts is Counts.COST]
        self.most_cost = min(costs, default=1 << 64)
        self.by_cost = bool(costs)
        # Oldest first, each of calls that went out within `_span`: the logs can't be more exact than their groups.
        self.flights: deque[Flight] = deque()
        self.unarrived = 0  # taken, and hasn't arrived for certain: not sent yet, or in a flight
        self.unarrived_cost = 0
        self.told: Told | None = None  # from the first word of the upstream's on its limits on
        everything = (*self.windows, *self.cost_windows)
        self._span = min((window.per for window in everything), default=0) // GROUPS
        # How long after its instant a slot comes back in the shortest window.
        self.kept = min((window.kept for window in everything), default=0)

    def _of(self, counts: Counts, kind: Kind) -> list[Limit]:
        return [limit for limit in self.limits if limit.counts is counts and limit.kind is kind]

    def _paced(self, counts: Counts) -> tuple[Pacer, ...]:
        buckets = self._of(counts, Kind.BUCKET)
        if self._make_pacer is None:
            if buckets:
                raise ValueError("a bucket limit needs a pacer")
            return ()
        made = [Bucket(limit, self.jitter, self._make_pacer) for limit in buckets]
        self.buckets += made
        make, windows = self._make_pacer, self._of(counts, Kind.WINDOW)
        if counts is Counts.CALLS and not self.takes_back:
            return (*(paced(limit, make) for limit in windows), *made)
        shapers = [Shaper(limit, make) for limit in windows]
        if counts is Counts.CALLS:
            self._call_shapers = shapers
        else:
            self._shapers = shapers
        return (*shapers, *made)

    # -- the way of a call --------------------------------------------------------------------

    def fits(self, cost: int, now: int) -> int:
        """0: one call of `cost` may be taken; the windows are expired up to `now`.

        FAR if a window is full (`next_change` tells when to ask again), else the instant at which the pacers or
        the upstream's own word may allow it.
        """
        if cost > self.most_cost:
            return FAR
        # Windows before pacers: a full window is the common case, and only comparing two numbers tells it.
        for window in self.windows:
            if window.used >= window.max:
                return FAR
        for window in self.cost_windows:
            if window.used + cost > window.max:
                return FAR
        wait = 0
        # All are asked, not only the first that says no: the latest of them is when it's worth asking again.
        for pacer in self._pacers:
            ready = pacer.ready_at(1, now)
            if ready > now and ready > wait:
                wait = ready
        for pacer in self._cost_pacers:
            ready = pacer.ready_at(cost, now)
            if ready > now and ready > wait:
                wait = ready
        if self.told is not None:
            wait = max(wait, self.told.wait(cost, now))
        return wait

    def try_take(self, cost: int, now: int) -> int:
        """Take one call of `cost` from every limit, or none; returns what `fits` says."""
        wait = self.fits(cost, now)
        if not wait:
            self.take(cost)
        return wait

    def take(self, cost: int) -> None:
        """Take one call; only right after `fits` said 0."""
        # A bare count: nobody knows yet when the call will arrive, so its slot has no end.
        for window in self.windows:
            window.used += 1
        for window in self.cost_windows:
            window.used += cost
        for pacer in self._pacers:
            pacer.take(1)
        for pacer in self._cost_pacers:
            pacer.take(cost)
        self.unarrived += 1
        self.unarrived_cost += cost

    def give_back(self, cost: int, now: int = 0, taken_at: int | None = None) -> None:
        """A call that certainly wasn't sent. Windows' pacers keep theirs, which only smooths a little more, unless the
        budget `takes_back`.

        Buckets get it back if `taken_at` is told.
        """
        # A window's slot may be used again at once, for nothing arrived. A bucket's may have leaked away meanwhile.
        if taken_at is not None:
            for bucket in self.buckets:
                bucket.owe(-1 if bucket.limit.counts is Counts.CALLS else -cost, now, taken_at)
        self.unarrived -= 1
        self.unarrived_cost -= cost
        for window in self.windows:
            window.used -= 1
        for window in self.cost_windows:
            window.used -= cost
        if self.takes_back:
            for shaper in self._call_shapers:
                shaper.give_back(1, now)
            for shaper in self._shapers:
                shaper.give_back(cost, now)

    def sent(self, part: Part, at: int) -> int:
        """The call's bytes went out at `at`. Returns when its slot ends if no answer comes."""
        flights = self.flights
        if not self.kept:  # buckets alone: their pacers counted it at the permit
            self.unarrived -= 1
            self.unarrived_cost -= part.cost
            part.flight = UNCOUNTED
            return FAR
        if flights and at - flights[-1].first <= self._span:
            flight = flights[-1]
            # All of a flight end as its last member does: later than some must, never earlier.
            if at > flight.last:
                flight.last = at
        else:
            flight = Flight(at)
            flights.append(flight)
        flight.calls += 1
        flight.cost += part.cost
        part.flight = flight
        return flight.last + self.jitter + self.kept

    def answered(self, part: Part, at: int, actual: int | None = None) -> int:
        """An answer came at `at`: the call arrived by then; it took `actual` instead of its cost, if that is told.

        Returns when some window next frees something.
        """
        flights = self.flights
        if flights and flights[0].last + self.jitter <= at:
            self._land(at)  # instants join the logs in their order, or slots would come back later than they must
        # J may have passed before the answer came: then its slot is in the logs already, with an end of its own.
        flight, cost = part.flight, part.cost
        more = 0 if actual is None else actual - cost
        if more:
            for bucket in self.buckets:
                if bucket.limit.counts is Counts.COST:
                    bucket.owe(more, at, part.taken_at)
            if more < 0:
                for shaper in self._shapers:
                    shaper.give_back(-more, at)
        if flight is None or flight.gone:
            if more and flight is not None and flight.windows is self.cost_windows:
                for window, entry in zip(self.cost_windows, flight.landed, strict=False):
                    window.correct(entry, at, more)
            elif more > 0:  # its slots went over to other windows, and nobody knows which are its
                for window in self.cost_windows:
                    window.used += more
                    window.record(at, more)
            return FAR
        # It arrived before its answer, so the slot ends sooner than sent + J says: off the flight, into the logs.
        flight.calls -= 1
        flight.cost -= cost
        self.unarrived -= 1
        self.unarrived_cost -= cost
        first = FAR
        for window in self.windows:
            end = window.record(at, 1)
            if end < first:
                first = end
        for window in self.cost_windows:
            window.used += more
            end = window.record(at, cost + more)
            if end < first:
                first = end
        return first

    # -- what happens by itself ---------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Move flights whose J has passed into the logs, then take back what has ended."""
        self._land(now)
        if self.told is not None:
            self.told.expire(now)
        else:
            for window in self.windows:
                window.expire(now)
            for window in self.cost_windows:
                window.expire(now)
        for bucket in self.buckets:
            bucket.recover(now)

    def _land(self, now: int) -> None:
        flights = self.flights
        while flights and flights[0].last + self.jitter <= now:
            # However late an answer comes now, the calls have arrived by last + J: that is what J promises.
            flight = flights.popleft()
            flight.gone = True
            flight.windows = self.cost_windows
            instant = flight.last + self.jitter
            if flight.calls:
                self.unarrived -= flight.calls
                self.unarrived_cost -= flight.cost
                for window in self.windows:
                    window.record(instant, flight.calls)
                for window in self.cost_windows:
                    window.record(instant, flight.cost)
                    flight.landed.append(window.newest)

    def next_change(self) -> int:
        """The next instant at which something comes back by itself; FAR: nothing is on its way."""
        first = FAR if self.told is None else self.told.next_end()
        for window in (*self.windows, *self.cost_windows):
            end = window.next_end
            if end is not None and end < first:
                first = end
        for bucket in self.buckets:
            first = min(first, bucket.recover_at)
        # An empty flight (all answered) brings nothing; of the others the oldest lands first.
        for flight in self.flights:
            if flight.calls:
                return min(first, flight.last + self.jitter + self.kept)
        return first

    # -- what the upstream says ---------------------------------------------------------------

    def listen(self, now: int) -> Told:
        """What was told of its limits, kept from now on."""
        if self.told is None:
            self.told = Told(self.kept_limits, self.jitter, now)
        return self.told

    def mark(self, cost: int) -> Mark | None:
        """Of the call of this cost that was just taken; None: the upstream tells nothing."""
        if self.told is None:
            return None
        return self.told.mark(cost, self.unarrived, self.unarrived_cost)

    def _keepers(self) -> tuple[tuple[Limit, Window | Bucket], ...]:
        windows = (*self.windows, *self.cost_windows)
        limits = self._of(Counts.CALLS, Kind.WINDOW) + self._of(Counts.COST, Kind.WINDOW)
        return (*zip(limits, windows, strict=True), *((bucket.limit, bucket) for bucket in self.buckets))

    # -- room for more ------------------------------------------------------------------------

    def rank(self, now: int = 0) -> tuple[float, int]:
        """(headroom, free calls): the free share of the tightest window, and what fits into all of them.

        Headroom is 0 to 1, below 0 while a debt is paid off. Where there are only buckets it is theirs at `now`,
        and free calls are FAR; (1, FAR) without limits.
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
        if calls == FAR and self.buckets:
            share = max(0.0, min(bucket.headroom(now) for bucket in self.buckets))
        return share, calls

    @property
    def is_unleased(self) -> bool:
        """It has room of its own, and the store that it is shared through has lent nothing of it."""
        return False

    def share(self, now: int) -> float:
        """The part of it that is ours, 0 to 1, as far as can be told: that store lends others the rest."""
        return 1.0

    @property
    def opens_at(self) -> int:
        """When that store lends of it at all; FAR: nobody knows."""
        return 0

    @property
    def unsent(self) -> tuple[int, int]:
        """(calls, cost) that were taken, and neither sent nor given back."""
        calls = self.unarrived - sum(flight.calls for flight in self.flights)
        return calls, self.unarrived_cost - sum(flight.cost for flight in self.flights)

    @property
    def kinds(self) -> tuple[tuple[Counts, tuple[Window, ...], tuple[Pacer, ...]], ...]:
        """Windows and pacers, by what they count."""
        return (
            (Counts.CALLS, self.windows, self._pacers),
            (Counts.COST, self.cost_windows, self._cost_pacers),
        )

    def changed(self, limits: Sequence[Limit], now: int) -> Budget:
        """The budget after a change of limits: what was spent stays spent, and what can't be known counts as spent."""
        return self.pass_on(Budget(limits, self.jitter, self._make_pacer), now)

    def pass_on(self, new: Budget, now: int) -> Budget:
        """The same with what `new` is. Flights go over to it; this budget must not be used any more."""
        self.advance(now)
        # What is on its way will be told to the new budget: its permits know their flights, not their windows.
        new.unarrived, new.unarrived_cost = self.unarrived, self.unarrived_cost
        new.flights = self.flights
        for bucket in new.buckets:
            bucket.since = now  # it gives nothing back for calls that it never counted
        windows = self._heirs(new, Counts.CALLS, self.windows, self.unarrived, now)
        cost_windows = self._heirs(new, Counts.COST, self.cost_windows, self.unarrived_cost, now)
        new.inherit((windows, cost_windows), self.told, now)
        for counts, pacers, ours in (
            (Counts.CALLS, new._pacers, self._pacers),
            (Counts.COST, new._cost_pacers, self._cost_pacers),
        ):
            known = [(self.shape_of(limit)[1], pacer.level(now)) for limit, pacer in self.shaped(counts, ours)]
            for limit, pacer in new.shaped(counts, pacers):
                if not known:
                    pacer.fill(limit.depth, now)  # nobody knows what was sent before
                    continue
                # A slower one shows at least as much; if all were faster, the fullest must do.
                rate = new.shape_of(limit)[1]
                slower = [level for its_rate, level in known if its_rate <= rate]
                level = min(slower, default=max(level for _, level in known))
                # Behind a window a pacer only shapes bursts: full is enough.
                pacer.fill(min(level, limit.depth) if limit.kind is Kind.WINDOW else level, now)
        return new

    def inherit(self, heirs: tuple[tuple[Window, ...], tuple[Window, ...]], told: Told | None, now: int) -> None:
        """What another's windows knew, by calls and by cost, and what it was told."""
        (self.windows, self.cost_windows), self.told = heirs, told
        self.kept_limits = self._keepers()
        if told is not None:
            told.follow(self.kept_limits, self.jitter, now)

    def shaped(self, counts: Counts, pacers: tuple[Pacer, ...]) -> list[tuple[Limit, Pacer]]:
        """The limits of this kind with their pacers."""
        limits = self._of(counts, Kind.WINDOW) + self._of(counts, Kind.BUCKET)
        return list(zip(limits, pacers, strict=bool(pacers)))

    def shape_of(self, limit: Limit) -> tuple[float, float]:
        """(burst, rate) of a limit's pacer."""
        if limit.kind is Kind.WINDOW:
            return limit.depth, limit.max / limit.per * PACER_MARGIN
        burst, seconds = shape(limit, self.jitter)
        return burst, burst / seconds / 1e9  # per ns

    def _heirs(
        self, new: Budget, counts: Counts, windows: tuple[Window, ...], pending: int, now: int
    ) -> tuple[Window, ...]:
        heirs = []
        for limit in new._of(counts, Kind.WINDOW):
            # The shortest that looks back far enough, else that which looks back farthest; with none, nothing is known.
            enough = [window for window in windows if window.knows_from(now) <= now - limit.per]
            known = min(enough, key=lambda window: window.per, default=None)
            if known is None:
                known = min(windows, key=lambda window: window.knows_from(now), default=None)
            # With none, what is on its way may arrive until now + J.
            instant = now if known is not None else now + self.jitter
            heirs.append((known or Window(limit.max, 0)).heir(limit.max, limit.per, instant, pending))
        return tuple(heirs)

    def __repr__(self) -> str:
        return f"<Budget {', '.join(map(repr, (*self.windows, *self.cost_windows, *self.buckets)))}>"
