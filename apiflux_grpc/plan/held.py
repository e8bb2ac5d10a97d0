"""What held calls back, found in the record of a run.

Rule: at every instant at which calls waited, one thing held each key back: the limit that opens last, or the
connections.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import Kind, Limit, Pool
from apiflux_grpc.core.units import format_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.plan.record import Closed, Run


PAUSES: Final = "pauses before retries"


def limit_name(limit: Limit) -> str:
    """`1000 calls per 60s`, without its kind and burst."""
    return format_limit(limit.max, limit.per, limit.counts.value)


class _Waiting:
    """How long calls waited for a key until an instant, and how long of it with every connection in use."""

    def __init__(self, run: Run) -> None:
        self._states = run.states
        self._since = [state.since for state in run.states]
        self._sums = [(0, 0)]
        self.paused = 0  # how long calls only waited for the time of their next attempt
        for state, until in zip(run.states, [*self._since[1:], run.ended], strict=True):
            waited, full_for = self._sums[-1]
            length = until - state.since if state.waits else 0
            self._sums.append((waited + length, full_for + (length if state.full else 0)))
            self.paused += until - state.since if state.pauses else 0

    def _until(self, at: int) -> tuple[int, int]:
        place = bisect_right(self._since, at) - 1
        state = self._states[place]
        waited, full_for = self._sums[place]
        length = at - state.since if state.waits else 0
        return waited + length, full_for + (length if state.full else 0)

    def between(self, start: int, end: int) -> tuple[int, int]:
        """(time that calls waited, the part of it with every connection in use) from start to end."""
        if end <= start:
            return 0, 0
        before, after = self._until(start), self._until(end)
        return after[0] - before[0], after[1] - before[1]

    @property
    def over(self) -> int:
        """When nothing waited any more."""
        return self._since[-1]

    def full_at(self, at: int) -> bool:
        """Whether calls wait for a connection."""
        state = self._states[bisect_right(self._since, at) - 1]
        return state.waits and state.full


class _Bound:
    """Something of which `most` may be in use at once: taken at some instants, free again at others."""

    __slots__ = ("_frees", "_most", "_taken", "limit", "name")

    def __init__(self, name: str, most: int, taken: Sequence[int], frees: Iterable[int], limit: Limit | None) -> None:
        self.name = name
        self.limit = limit  # None: calls in flight
        self._most = most
        self._taken = taken
        self._frees = sorted(frees)

    def at(self, instant: int) -> tuple[float, int]:
        """(the share in use, when there is room again), right after this instant."""
        freed = bisect_right(self._frees, instant)
        used = bisect_right(self._taken, instant) - freed
        over = used - self._most
        return used / self._most, self._frees[freed + over] if over >= 0 else instant


def _windows(limits: Iterable[Limit], taken: Sequence[int], arrived: Sequence[int], of: str = "") -> list[_Bound]:
    return [
        _Bound(limit_name(limit) + of, limit.max, taken, (at + limit.per for at in arrived), limit)
        for limit in limits
        if limit.kind is Kind.WINDOW
    ]


def held_back(pool: Pool, run: Run) -> list[Counter[str]]:
    """For each key, how long (ns) what held it back while calls waited.

    Between two permits of a key it is the full limit that opens last: a window, its group's too, or the calls in
    flight. If every connection is in use beyond that, it is the pool's connections; if nothing is full, a burst or a
    bucket, else the fullest window.
    """
    waiting = _Waiting(run)
    arrived = [
        [min(answer, take + pool.arrival_jitter) for take, answer in zip(*pair, strict=True)]
        for pair in zip(run.taken, run.answered, strict=True)
    ]
    shared: dict[str, tuple[tuple[Limit, ...], list[_Bound]]] = {}
    for group in pool.groups:
        members = [place for place, key in enumerate(pool.keys) if key.label in group.keys]
        taken = sorted(at for place in members for at in run.taken[place])
        bounds = _windows(group.limits, taken, [at for place in members for at in arrived[place]], " of a group")
        shared |= dict.fromkeys(group.keys, (group.limits, bounds))
    held = []
    for place, key in enumerate(pool.keys):
        limits, bounds = shared.get(key.label, ((), []))
        bounds = [*_windows(key.limits, run.taken[place], arrived[place]), *bounds]
        if key.max_in_flight is not None:
            name = f"{key.max_in_flight} in flight"
            bounds.append(_Bound(name, key.max_in_flight, run.taken[place], run.answered[place], None))
        smooth = _smoothest((*key.limits, *limits))
        connections = f"{pool.max_connections} connections"
        here = _held_back(run.taken[place], bounds, smooth, connections, run.closed[place], waiting)
        if waiting.paused:
            here[PAUSES] = waiting.paused
        held.append(here)
    return held


def _held_back(
    taken: Sequence[int],
    bounds: Sequence[_Bound],
    smooth: str | None,
    connections: str,
    closed: Iterable[Closed],
    waiting: _Waiting,
) -> Counter[str]:
    held: Counter[str] = Counter()
    spans = deque(_apart(closed))
    for start, end in pairwise((0, *taken, waiting.over)):
        waited, full_for = waiting.between(start, end)
        # No permit lies within a span, so each belongs to one pair.
        while spans and spans[0].since < end:
            span = spans.popleft()
            shut = waiting.between(max(start, span.since), min(end, span.until))
            held[span.why] += shut[0]
            waited, full_for = waited - shut[0], full_for - shut[1]
        if not waited:
            continue
        opens, name, fullest = start, smooth, 0.0
        for bound in bounds:
            share, until = bound.at(start)
            if until > opens:
                opens, name = until, bound.name
            elif opens == start and smooth is None and bound.limit is not None and share >= fullest:
                name, fullest = bound.name, share
        if opens > start and not waiting.full_at(opens):
            full_for = min(waited, waiting.between(opens, end)[1])
        if full_for:
            held[connections] += full_for
        if name is not None and waited > full_for:
            held[name] += waited - full_for
    return held


def _apart(closed: Iterable[Closed]) -> Iterable[Closed]:
    """The spans without what they have in common: each begins where the one before it ends, or later."""
    end = 0
    for span in sorted(closed):
        if span.until > end:
            yield span._replace(since=max(end, span.since))
            end = span.until


def _smoothest(limits: Iterable[Limit]) -> str | None:
    """The slowest of the limits that let fewer calls pass at once than a window holds; None: there is none."""
    bursts = [limit for limit in limits if limit.kind is Kind.BUCKET or limit.depth < limit.max]
    if not bursts:
        return None
    slowest = min(bursts, key=lambda limit: limit.max / limit.per)
    return f"bursts of {slowest.depth} at {limit_name(slowest)}"
