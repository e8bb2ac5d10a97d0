"""Whose turn it is in a pool whose limits have paths: fair queueing of lanes (lanes.py), some of them closed.

Rule: as in fairqueue.py, and a class that no key can pay for holds back nobody but its own calls. A batch has one tag
and so has its caller, whatever the class of the calls that they get, so shares are of the whole pool. The lanes of each
class stand in heaps of their own; whoever is served by one of them is found out of place in the others, and is put
where it belongs when it comes up there.

What waits for a closed class keeps its tag and banks nothing by it: its next turn begins at virtual time.

Not known here: why a class is closed.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.fairqueue import Caller, FairQueue, with_debts
from apiflux_grpc.core.lanes import Lane, Marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.batch import Again
    from apiflux_grpc.core.lanes import Turn


class _Line:
    """A caller's lanes of one class."""

    __slots__ = ("caller", "lanes", "queued")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.lanes: list[tuple[float, int, Lane]] = []
        self.queued = False


class _Class:
    """The callers who wait for one class."""

    __slots__ = ("closed", "heap", "lines")

    def __init__(self) -> None:
        self.closed = False
        self.heap: list[tuple[float, int, _Line]] = []
        self.lines: dict[str, _Line] = {}


class ClassQueue(FairQueue):
    """The waiting lanes of one pool, in the order of their turns."""

    __slots__ = ("_classes", "_lanes", "_next")

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._classes = [_Class() for _ in range(classes)]
        self._lanes: dict[int, tuple[Lane, ...]] = {}  # by the id of their batch
        self._next: tuple[_Line, Lane] | None = None  # whose turn it is

    # -- batches and their lanes --------------------------------------------------------------

    def split(self, batch: Batch, marks: bytes) -> None:
        """Queue this batch, which will be added, by the class of each of its calls."""
        its_marks = Marks(marks)
        self._lanes[batch.id] = tuple(Lane(batch, number, its_marks) for number in range(len(self._classes)))

    def lanes(self, batch: Batch) -> tuple[Lane, ...]:
        """The lanes of a batch, by class."""
        return self._lanes.get(batch.id, ())

    def waiting(self, numbers: Sequence[int]) -> int:
        """Calls of these classes without a permit and without a result."""
        return sum(lanes[number].waiting for lanes in self._lanes.values() for number in numbers)

    def grow(self, batch: Batch, marks: bytes) -> None:
        """More calls of a batch that is fed."""
        lanes = self._lanes[batch.id]
        row = lanes[0].marks
        first = row.end
        row.forget(min(first, *(lane.next for lane in lanes)))
        row.append(marks)
        for lane in lanes:
            lane.grown(first)

    def clear(self, batch: Batch) -> tuple[list[Again], list[int]]:
        """Nothing more of this batch is to be assigned. Returns the retries that were due, and the places of the calls
        that were never attempted."""
        lanes = self.lanes(batch)
        due = [again for lane in lanes for again in lane.again]
        unstarted = sorted(place for lane in lanes for place in lane.drop())
        batch.due = 0
        return due, unstarted

    def remove(self, batch: Batch) -> None:
        """A batch that is over; it must have nothing left to assign."""
        super().remove(batch)
        self._lanes.pop(batch.id, None)

    def _forget(self, name: str) -> None:
        super()._forget(name)
        for one in self._classes:
            one.lines.pop(name, None)

    # -- turns --------------------------------------------------------------------------------

    def close(self, number: int) -> bool:
        """Leave out all calls of this class until `reopen`. Returns whether others may be asked for still."""
        self._classes[number].closed = True
        return True

    def reopen(self) -> None:
        """No class is left out any more."""
        for one in self._classes:
            one.closed = False

    def wake(self, turn: Turn, *, waited: bool = False) -> None:
        """A lane has something to assign (again); of a batch all that have. `waited`: as in FairQueue."""
        if isinstance(turn, Batch):
            for lane in self.lanes(turn):
                if lane.has_work:
                    self.wake(lane)
            return
        if turn.queued or turn.parked:
            return
        batch, caller, one = turn.batch, self._callers[turn.batch.caller], self._classes[turn.number]
        line = one.lines.get(batch.caller)
        if line is None:
            line = one.lines[batch.caller] = _Line(caller)
        self.head()  # virtual time is that of now
        self._sequence += 1
        turn.queued = True
        if not waited:
            batch.finish = max(caller.virtual, batch.finish)
        heappush(line.lanes, (batch.finish, self._sequence, turn))
        if not line.queued:
            line.queued = True
            if not waited:
                caller.finish = max(self._virtual, caller.finish)
            heappush(one.heap, (caller.finish, self._sequence, line))

    def head(self) -> Lane | None:
        """The lane whose turn it is; None: nobody has anything to assign in a class that is open."""
        best: tuple[float, float, int, int] | None = None
        self._next = None
        for one in self._classes:
            if one.closed or (line := _first(one)) is None:
                continue
            tag, _, lane = line.lanes[0]
            # Of the lanes of one batch the one with a due retry, else with the earliest call.
            rank = (line.caller.finish, tag, lane.batch.id, -1 if lane.again else lane.next)
            if best is None or rank < best:
                best, self._next = rank, (line, lane)
        if self._next is None or best is None:
            return None
        line, lane = self._next
        self._virtual = max(self._virtual, best[0])
        line.caller.virtual = max(line.caller.virtual, best[1])
        return lane

    def charge(self, size: float) -> None:
        """The lane that `head` named got one call of this size."""
        assert self._next is not None
        line, lane = self._next
        caller, batch = line.caller, lane.batch
        # While its class was closed virtual time went on.
        both = with_debts(batch, caller, size)
        batch.finish = max(caller.virtual, batch.finish) + both[0] / batch.weight
        caller.finish = max(self._virtual, caller.finish) + both[1] / caller.weight


def _first(one: _Class) -> _Line | None:
    """The caller of this class whose turn it is, with its lane whose turn it is on top."""
    heap = one.heap
    while heap:
        tag, sequence, line = heap[0]
        if line.caller.finish > tag:  # it got calls of other classes since
            heapreplace(heap, (line.caller.finish, sequence, line))
        elif _settled(line):
            return line
        else:
            heappop(heap)
            line.queued = False
    return None


def _settled(line: _Line) -> bool:
    """Whether a lane of this caller has something to assign: then the one whose turn it is stands on top."""
    lanes = line.lanes
    while lanes:
        tag, sequence, lane = lanes[0]
        if lane.batch.finish > tag:
            heapreplace(lanes, (lane.batch.finish, sequence, lane))
        elif lane.has_work and not lane.parked:
            return True
        else:
            heappop(lanes)
            lane.queued = False
    return False
