"""What held calls back, found in the record of a run.

Rule: at every instant at which calls waited, one thing held each key back: the limit that opens last, or the
connections. Of a limit with paths it is also asked what held back the calls that it counts: while these wait for it,
the key goes on with others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.plan.bounds import Bound, bounds_of, burst_name, only, smoothest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.plan.record import Closed, Run, Sends


PAUSES: Final = "pauses before retries"
CLOSE: Final = 50  # spans that are nearer than this part of the makespan are one

Span: TypeAlias = tuple[int, int]  # (from, to) in ns


class Piece(NamedTuple):
    """From `start` to `end` calls waited for `length` of the time because of what is called `name`."""

    name: str
    start: int
    end: int
    length: int


@dataclass(slots=True)
class Total:
    """For how long (ns) something held calls back, and from when to when, spans that are close together as one."""

    length: int = 0
    spans: list[Span] = field(default_factory=list)


class HeldKey(NamedTuple):
    """What held one key back, by its name, and what held back the calls of each limit with paths."""

    whole: dict[str, Total]
    with_paths: dict[str, Total]


class _Waits(Protocol):
    """When calls waited."""

    @property
    def over(self) -> int:
        """When nothing waited any more."""
        ...

    def between(self, start: int, end: int) -> tuple[int, int]:
        """(time that calls waited, the part of it with every connection in use) from start to end."""
        ...

    def full_at(self, at: int) -> bool:
        """Whether calls wait for a connection."""
        ...


class _Waiting:
    """How long calls waited for a key until an instant, and how long of it with every connection in use."""

    def __init__(self, run: Run) -> None:
        self._states = run.states
        self._since = [state.since for state in run.states]
        self._sums = [(0, 0)]
        self.pauses: list[Piece] = []  # when calls only waited for the time of their next attempt
        for state, until in zip(run.states, [*self._since[1:], run.ended], strict=True):
            waited, full_for = self._sums[-1]
            length = until - state.since if state.waits else 0
            self._sums.append((waited + length, full_for + (length if state.full else 0)))
            if state.pauses and until > state.since:
                self.pauses.append(Piece(PAUSES, state.since, until, until - state.since))

    def _until(self, at: int) -> tuple[int, int]:
        place = bisect_right(self._since, at) - 1
        state = self._states[place]
        waited, full_for = self._sums[place]
        length = at - state.since if state.waits else 0
        return waited + length, full_for + (length if state.full else 0)

    def between(self, start: int, end: int) -> tuple[int, int]:
        if end <= start:
            return 0, 0
        before, after = self._until(start), self._until(end)
        return after[0] - before[0], after[1] - before[1]

    @property
    def over(self) -> int:
        return self._since[-1]

    def full_at(self, at: int) -> bool:
        state = self._states[bisect_right(self._since, at) - 1]
        return state.waits and state.full


class _From(NamedTuple):
    """Calls of some path classes wait from the first batch until the last of them is sent, with whatever key."""

    since: int
    over: int

    def between(self, start: int, end: int) -> tuple[int, int]:
        return max(0, min(end, self.over) - max(start, self.since)), 0

    def full_at(self, at: int) -> bool:
        return False


def held_back(pool: Pool, run: Run) -> list[HeldKey]:
    """What held each key back.

    Between two permits of a key it is the full limit that opens last for the call that comes next: a window, its
    group's too, or the calls in flight. If every connection is in use beyond that, it is the pool's connections; if
    nothing is full, a burst or a bucket, else the fullest window.
    """
    waiting = _Waiting(run)
    shared = {label: group.limits for group in pool.groups for label in group.keys}
    connections = f"{pool.max_connections} connections"
    bounds_of_keys = bounds_of(pool, run, classes_of(pool))
    waits_of = {met: _last(run, met) for bounds in bounds_of_keys for bound in bounds if (met := bound.met) is not None}
    held = []
    for place, key in enumerate(pool.keys):
        bounds, sends = bounds_of_keys[place], run.sends[place]
        smooth = smoothest((*key.limits, *shared.get(key.label, ())))
        name = None if smooth is None else burst_name(smooth)
        pieces = chain(_pieces(sends, bounds, name, connections, run.closed[place], waiting), waiting.pauses)
        with_paths = (
            piece
            for bound in bounds
            if bound.met is not None
            for piece in _pieces(only(sends, bound.met), [bound, *bounds], "", connections, (), waits_of[bound.met])
            if piece.name == bound.name
        )
        close = run.ended // CLOSE
        held.append(HeldKey(_totals(pieces, close), _totals(with_paths, close)))
    return held


def _totals(pieces: Iterable[Piece], close: int) -> dict[str, Total]:
    totals: dict[str, Total] = defaultdict(Total)
    for name, start, end, length in pieces:
        total = totals[name]
        total.length += length
        _extend(total.spans, (start, end), close)
    return dict(totals)


def united(spans: Iterable[Span], close: int) -> tuple[Span, ...]:
    """When any of them was, as few spans; those that are at most `close` apart are one."""
    found: list[Span] = []
    for span in sorted(spans):
        _extend(found, span, close)
    return tuple(found)


def _extend(spans: list[Span], span: Span, close: int) -> None:
    """Add one that begins no earlier than the last of them."""
    if spans and span[0] <= spans[-1][1] + close:
        spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
    else:
        spans.append(span)


def _last(run: Run, met: frozenset[int]) -> _From:
    first = min(batch.at for batch in run.batches)
    return _From(first, max((some.taken[-1] for sends in run.sends if (some := only(sends, met))), default=first))


def _pieces(
    sends: Sends,
    bounds: Sequence[Bound],
    smooth: str | None,
    connections: str,
    closed: Iterable[Closed],
    waiting: _Waits,
) -> Iterator[Piece]:
    """`smooth` is what is named if nothing is full; None: the fullest window."""
    spans = deque(_apart(closed))
    for place, (start, end) in enumerate(pairwise(chain((0,), sends.taken, (waiting.over,)))):
        waited, full_for = waiting.between(start, end)
        # No permit lies within a span, so each belongs to one pair.
        while spans and spans[0].since < end:
            span = spans.popleft()
            since, until = max(start, span.since), min(end, span.until)
            shut = waiting.between(since, until)
            if shut[0]:
                yield Piece(span.why, since, until, shut[0])
            waited, full_for = waited - shut[0], full_for - shut[1]
        if not waited:
            continue
        is_last = place == len(sends)
        cost, number = (1, 0) if is_last else (sends.costs[place], sends.classes[place])
        opens, name, fullest = start, smooth, 0.0
        for bound in bounds:
            if bound.met is not None and number not in bound.met:
                continue
            share, until = bound.at(start, cost)
            if until > opens:
                opens, name = until, bound.name
            elif opens == start and smooth is None and bound.is_window and share >= fullest:
                name, fullest = bound.name, share
        if opens > start and not waiting.full_at(opens):
            full_for = min(waited, waiting.between(opens, end)[1])
        if full_for:
            yield Piece(connections, start, end, full_for)
        if name is not None and waited > full_for:
            yield Piece(name, start, end, waited - full_for)


def _apart(closed: Iterable[Closed]) -> Iterable[Closed]:
    """The spans without what they have in common: each begins where the one before it ends, or later."""
    end = 0
    for span in sorted(closed):
        if span.until > end:
            yield span._replace(since=max(end, span.since))
            end = span.until
