"""How long work will take, in closed form from the budgets.

Rule: an estimate is arithmetic over what the budgets hold now, never a simulation, and costs the same for one call
and for a million. A slot that is free now, or comes back at e, can be used again every `per + min(latency, J)`
after that; a bucket flows. Keys with the same limits are summed into one supply, so the cost follows the number of
different limits and not of keys; keys that share limits are bound by those together.

Not known here: who asks, and why.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.bucket import FAR, shape
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.core.window import Window

MOST_ENDS: Final = 64  # groups of one supply are merged down to so many, each to its latest end
MOST_IN_ALL: Final = 2048  # and to fewer of each, if there are many supplies and a coarse answer will do
_HORIZON: Final = 1 << 60
_MANY: Final = float(FAR)


@dataclass(slots=True)
class _Slots:
    """One window of one supply: what is free, and what comes back when."""

    period: int
    free: int
    ends: list[tuple[int, int]]
    counts: Counts


@dataclass(slots=True)
class _Flow:
    """One bucket of one supply: what is there, and how much flows in (per ns)."""

    room: float
    rate: float
    counts: Counts
    debts: list[float]  # of owners who have less than nothing
    rate_each: float  # at which one of them pays

    def by(self, length: int) -> float:
        """What there is within `length` ns."""
        paid = sum(max(0.0, length * self.rate_each - debt) for debt in self.debts)
        return self.room + length * self.rate + paid


@dataclass(slots=True)
class _Supply:
    """Some keys with the same limits, or the keys of a group within the group's own limits."""

    start: int
    windows: list[_Slots]  # the shortest first
    flows: list[_Flow]
    members: list[_Supply] = field(default_factory=list)

    def by(self, at: int, cost: float) -> float:
        """Permits until `at` for calls of `cost`; _MANY if nothing limits them."""
        if at < self.start:
            return 0.0
        total = _MANY if not self.members else min(_MANY, sum(member.by(at, cost) for member in self.members))
        for flow in self.flows:
            each = 1.0 if flow.counts is Counts.CALLS else cost
            if each:
                total = min(total, flow.by(at - self.start) / each)
        return min(total, _permits(self.windows, at, self.start, cost))

    def rate(self, cost: float) -> float:
        """Permits per ns in the long run; _MANY if nothing limits them."""
        total = _MANY if not self.members else min(_MANY, sum(member.rate(cost) for member in self.members))
        for flow in self.flows:
            each = 1.0 if flow.counts is Counts.CALLS else cost
            if each:
                total = min(total, (flow.rate + len(flow.debts) * flow.rate_each) / each)
        for window in self.windows:
            each = 1.0 if window.counts is Counts.CALLS else cost
            if each:
                slots = window.free + sum(amount for _, amount in window.ends)
                total = min(total, slots / each / window.period)
        return total


def _permits(windows: Sequence[_Slots], at: int, start: int, cost: float) -> float:
    """Permits that these windows, the shortest first, allow from `start` until `at`.

    What is free in a longer window goes out no faster than the shorter ones let it, and comes back as it went.
    """
    if not windows:
        return _MANY
    *shorter, window = windows
    each = 1.0 if window.counts is Counts.CALLS else cost
    if not each:
        return _permits(shorter, at, start, cost)
    period = window.period
    total = 0.0
    if window.free > 0:
        rounds, rest = divmod(at - start, period)
        free = window.free / each
        total = free * rounds + min(free, _permits(shorter, start + rest, start, cost))
    for end, amount in window.ends:
        if end > at:
            break
        total += amount / each * (1 + (at - max(end, start)) // period)
    return min(total, _permits(shorter, at, start, cost))


class Forecast:
    """What the keys of a pool can do from `now` on, given what is on its way and how long a call takes (ns).

    `slots` is the most calls in flight at once over all keys. `upstream_at` is when calls may go at all; FAR: not
    before a probe ends, and nobody knows how. `coarse` is for many questions about many keys: what comes back is told
    in fewer groups, each at its latest, so that instants come out later and never earlier. `at_best` is for a bound
    that no turn of events can beat: whatever a probe finds out, it finds out now, and good news. A limit
    with paths counts if they are among `met`: then it is a forecast for calls that meet these.
    """

    def __init__(
        self,
        keys: Sequence[KeyState],
        now: int,
        latency: int,
        slots: int,
        groups: Sequence[GroupState] = (),
        *,
        upstream_at: int = 0,
        coarse: bool = False,
        at_best: bool = False,
        met: frozenset[tuple[str, ...]] = frozenset(),
    ) -> None:
        self.now = now
        self.latency = latency
        self.slots = slots
        self.owners = len(keys) + len(groups)
        self._upstream_at = upstream_at
        self._coarse = coarse
        self._at_best = at_best
        self._met = met
        self._keys = keys
        self._groups = groups
        self._supplies = self._of([key for key in keys if key.group is None])
        for group in groups:
            own = _supply([group.budget], now, now, latency, at_best=at_best)
            own.members = self._of(group.members)
            scoped = group.members[0].group_scoped if group.members else {}
            for state in self._scoped(scoped):
                own = self._within([state.budget], self._opens(state, now), own)
            self._supplies.append(own)

    def _scoped(self, scoped: Mapping[tuple[str, ...], GroupState]) -> list[GroupState]:
        """Those of these budgets that the calls meet."""
        return [state for paths, state in scoped.items() if paths in self._met]

    def _within(self, budgets: list[Budget], start: int, supply: _Supply) -> _Supply:
        """What these budgets let through of a supply."""
        outer = _supply(budgets, start, self.now, self.latency, at_best=self._at_best)
        outer.members = [supply]
        return outer

    def _of(self, keys: Sequence[KeyState]) -> list[_Supply]:
        alike: dict[tuple[object, object, int], list[KeyState]] = {}
        for key in keys:
            start = self._start(key)
            if start < FAR:
                own = tuple(state.budget.limits for state in self._scoped(key.scoped)) if self._met else ()
                alike.setdefault((key.budget.limits, own, start), []).append(key)
        most = max(2, min(MOST_ENDS, MOST_IN_ALL // max(1, len(alike)))) if self._coarse else MOST_ENDS
        supplies = []
        for (_, _, start), those in alike.items():
            budgets = [key.budget for key in those]
            supply = _supply(budgets, start, self.now, self.latency, most, at_best=self._at_best)
            for states in zip(*(self._scoped(key.scoped) for key in those), strict=True):
                supply = self._within([state.budget for state in states], start, supply)
            supplies.append(supply)
        return supplies

    def _start(self, key: KeyState) -> int:
        """When the key can pay for anything at all; FAR: nobody knows."""
        if key.breaker.state is not State.CLOSED and not self._at_best:
            return FAR  # it is tried now and then; that the upstream will take it again is a hope
        at = max(self._certain(key.usable_at(self.now)), self._certain(self._upstream_at))
        at = max(at, *(self._certain(owner.budget.opens_at) for owner in key.owners))
        for state in self._scoped(key.scoped) if self._met else ():
            at = self._opens(state, at)
        return max(self.now, at)

    def _opens(self, state: GroupState, at: int) -> int:
        """When these limits let anything pass; `at` at the earliest."""
        at = max(at, self._certain(state.budget.opens_at))
        return at if state.block is None else max(at, self._certain(state.block.ready_at(self.now)))

    def _certain(self, at: int) -> int:
        """An instant, or at best now if only a probe can tell."""
        return self.now if self._at_best and at >= FAR else at

    def permits_by(self, at: int, cost: float = 1.0) -> float:
        """How many calls of `cost` can have got their permit until `at`."""
        return min(_MANY, sum(supply.by(at, cost) for supply in self._supplies))

    def rate(self, cost: float = 1.0) -> float | None:
        """Calls of `cost` per second in the long run; None: nothing limits them."""
        per_ns = sum(supply.rate(cost) for supply in self._supplies)
        if per_ns >= _MANY:
            return None
        if self.latency:
            per_ns = min(per_ns, self.slots / self.latency)
        return per_ns * SECOND

    def time_for(self, calls: int, cost: float = 1.0) -> int | None:
        """How long (ns) until the last of `calls` has its result; None: no key will ever have room."""
        return 0 if calls <= 0 else self.with_latency(self.permits_for(calls, cost), calls, self.latency)

    def with_latency(self, permits: int | None, calls: int, latency: int) -> int | None:
        """`permits_for` of these calls, and the time that the calls themselves take at this latency (ns)."""
        if permits is None:
            return None
        by_slots = (calls - 1) // max(1, self.slots) * latency
        return max(permits, by_slots) + latency

    def permits_for(self, calls: int, cost: float = 1.0) -> int | None:
        """How long (ns) until the last of `calls` has its permit, by the limits alone; None: never."""
        at = Curve(self, cost).reaches(calls)
        return None if at is None else at - self.now

    def binding(self, calls: int, cost: float = 1.0) -> str:
        """What makes `calls` take as long as they do, in words; "": nothing but the calls themselves."""
        permits = self.permits_for(calls, cost)
        by_slots = (calls - 1) // max(1, self.slots) * self.latency
        if permits is not None and by_slots > permits:
            return f"at most {self.slots} calls at once"
        if permits is not None and permits <= 1_000_000:
            return ""
        slowest: tuple[float, str] = (0.0, "no usable key")
        owners = [(key.budget, "") for key in self._keys] + [(group.budget, " of a group") for group in self._groups]
        together: dict[tuple[Limit, str], float] = {}
        for budget, what in owners:
            for limit in budget.limits:
                together[limit, what] = together.get((limit, what), 0.0) + limit.max / limit.per
        for (limit, what), rate in together.items():
            each = 1.0 if limit.counts is Counts.CALLS else cost
            slowest = max(slowest, (calls * each / rate, f"{limit}{what}"))
        return slowest[1]


class Curve:
    """Permits over time for calls of one cost, searched together by all who ask.

    What one search evaluates the next ones find again, so that a thousand of them, one for each waiting batch, cost
    little more than one: what is evaluated is bounded by the instants that are told apart, which are a millisecond, or
    1 in `share` of the time from now.
    """

    __slots__ = ("_at", "_cost", "_forecast", "_permits", "_share")

    def __init__(self, forecast: Forecast, cost: float, share: int = 0) -> None:
        self._forecast = forecast
        self._cost = cost
        self._share = share  # 0: to a millisecond; else also to 1 in `share` of the time from now
        self._at = [forecast.now]
        self._permits = [forecast.permits_by(forecast.now, cost)]

    def reaches(self, permits: int) -> int | None:
        """When so many can have been got (ns); None: never."""
        wanted = permits - 1e-6  # of floats
        if not self._stretch(wanted):
            return None
        place = bisect_left(self._permits, wanted)
        if not place:
            return self._at[0]  # there is room for them now
        low, high = self._at[place - 1], self._at[place]
        while high - low > self._apart(high):
            middle = (low + high) // 2
            found = self._forecast.permits_by(middle, self._cost)
            self._at.insert(place, middle)
            self._permits.insert(place, found)
            if found < wanted:
                low, place = middle, place + 1
            else:
                high = middle
        return high

    def _stretch(self, wanted: float) -> bool:
        """Go on until the curve has reached so many; False: it never does."""
        start = self._at[0]
        while self._permits[-1] < wanted:
            # Doubling: a day is as few steps as a minute and a half more.
            step = max(self._at[-1] - start, self._forecast.latency, MILLISECOND)
            if step > _HORIZON:
                return False
            at = self._at[-1] + step
            self._at.append(at)
            self._permits.append(self._forecast.permits_by(at, self._cost))
        return True

    def _apart(self, at: int) -> int:
        return max(MILLISECOND, (at - self._at[0]) // self._share) if self._share else MILLISECOND


def _supply(
    budgets: list[Budget], start: int, now: int, latency: int, most_ends: int = MOST_ENDS, *, at_best: bool
) -> _Supply:
    """The supply of owners with the same limits."""
    first = budgets[0]
    columns = [(Counts.CALLS, row) for row in zip(*(budget.windows for budget in budgets), strict=True)]
    columns += [(Counts.COST, row) for row in zip(*(budget.cost_windows for budget in budgets), strict=True)]
    shares = [1.0 if at_best else budget.share(now) for budget in budgets]
    windows = [_merge(row, shares, counts, now, latency, first.jitter, most_ends, at_best) for counts, row in columns]
    windows.sort(key=lambda window: window.period)
    flows = []
    for place, bucket in enumerate(first.buckets):
        burst, seconds = shape(bucket.limit, first.jitter)
        rooms = [burst - budget.buckets[place].level(now) for budget in budgets]
        debts = [-room for room in rooms if room < 0]
        rate = burst / seconds / SECOND
        room = sum(room for room in rooms if room > 0)
        flows.append(_Flow(room, (len(rooms) - len(debts)) * rate, bucket.limit.counts, debts, rate))
    return _Supply(start, windows, flows)


def _merge(
    row: Sequence[Window],
    shares: Sequence[float],
    counts: Counts,
    now: int,
    latency: int,
    jitter: int,
    most_ends: int,
    at_best: bool,
) -> _Slots:
    """The same window of several owners as one, each with its share. At best others take nothing any more, and no cut
    is left."""
    period = row[0].kept + min(latency, jitter)
    ends, room = [], 0
    for window, share in zip(row, shares, strict=True):
        own = [*window.ends()]
        free = window.nominal - window.used + window.others if at_best else window.free
        room += max(0, free - int((1 - share) * window.max))
        # What is taken and has no end yet: sent, or about to be. It ends a period from now at the latest.
        pending = window.used - window.others - sum(amount for _, amount in own)
        if pending > 0:
            own.append((now + jitter + window.kept, pending))
        debt = max(0, -free)
        for end, amount in own:
            paid = min(debt, amount)
            debt -= paid
            if amount > paid:
                ends.append((end, amount - paid))
    ends.sort()
    if len(ends) > most_ends:
        size = -(-len(ends) // most_ends)
        chunks = [ends[place : place + size] for place in range(0, len(ends), size)]
        ends = [(chunk[-1][0], sum(amount for _, amount in chunk)) for chunk in chunks]
    return _Slots(period, room, ends, counts)
