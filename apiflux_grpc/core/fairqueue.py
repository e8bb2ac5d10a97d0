"""Whose turn it is: start-time fair queueing on two levels, callers by weight, then their batches by weight.

Rule: the flow with the lowest start tag goes next and advances by size / weight; a flow that is new, or comes back
after it had nothing to do, enters at the current virtual time, so nobody banks credit while idle and a small batch
behind a large one gets its share at once. Source: Goyal, Vin, Cheng, "Start-time Fair Queuing" (SIGCOMM 1996).

Virtual time is the lowest start tag of those who wait, not of the one served last: else one-call batches in a row,
each a new flow, would all enter before a large batch's next call. For the same reason a caller who leaves is
remembered until virtual time has reached its tag.

A batch takes part while it has a call that may be assigned: a due retry, or a first attempt and room for its
result. Batches that don't are dropped from the heaps when they reach the top, and come back by `wake`.

Not known here: keys, limits, time.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from apiflux_grpc.core.batch import Batch

if TYPE_CHECKING:
    from apiflux_grpc.core.lanes import Turn


class Caller:
    """A flow of the upper level, and the heap of the lower one."""

    __slots__ = ("batches", "finish", "owed", "queued", "virtual", "weight")

    def __init__(self) -> None:
        self.weight = 1.0
        self.finish = 0.0
        self.owed = 0.0
        self.virtual = 0.0
        self.queued = False
        self.batches: list[tuple[float, int, Batch]] = []


class FairQueue:
    """The waiting batches of one pool, in the order of their turns."""

    __slots__ = ("_callers", "_gone", "_heap", "_open", "_sequence", "_virtual")

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}
        self._open: dict[str, int] = {}  # batches of each caller
        self._gone: list[tuple[float, str]] = []  # (tag, caller) of those who had no batch left
        self._heap: list[tuple[float, int, Caller]] = []
        self._virtual = 0.0
        self._sequence = 0

    def add(self, batch: Batch, caller_weight: float = 1.0) -> None:
        """A new batch. The weight of a caller is that of its latest batch."""
        name = batch.caller
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = Caller()
        caller.weight = caller_weight
        self._open[name] = self._open.get(name, 0) + 1
        self.wake(batch)

    def remove(self, batch: Batch) -> None:
        """A batch that is over; it must have nothing left to assign."""
        name = batch.caller
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
            heappush(self._gone, (self._callers[name].finish, name))
        idle = self.head() is None  # then nobody waits who could be passed, and all may be forgotten
        while self._gone and (idle or self._gone[0][0] <= self._virtual):
            _, name = heappop(self._gone)
            caller = self._callers.get(name)
            if name not in self._open and caller is not None and (idle or caller.finish <= self._virtual):
                self._forget(name)

    def _forget(self, name: str) -> None:
        del self._callers[name]

    def wake(self, turn: Turn, *, waited: bool = False) -> None:
        """A batch has something to assign (again). `waited`: it had all the time, and keeps its tag."""
        if turn.queued or turn.parked:
            return
        assert isinstance(turn, Batch)
        batch = turn
        caller = self._callers[batch.caller]
        self.head()  # virtual time is that of now
        _settled(caller)
        self._sequence += 1
        batch.queued = True
        if not waited:
            batch.finish = max(caller.virtual, batch.finish)
        heappush(caller.batches, (batch.finish, self._sequence, batch))
        if not caller.queued:
            caller.queued = True
            if not waited:
                caller.finish = max(self._virtual, caller.finish)
            heappush(self._heap, (caller.finish, self._sequence, caller))

    def head(self) -> Turn | None:
        """The batch whose turn it is; None: nobody has anything to assign."""
        heap = self._heap
        while heap:
            start, sequence, caller = heap[0]
            if caller.finish > start:  # a parked batch of it was served since
                heapreplace(heap, (caller.finish, sequence, caller))
                continue
            batch = _settled(caller)
            if batch is not None:
                self._virtual = start
                return batch
            heappop(heap)
            caller.queued = False
        return None

    def charge(self, size: float) -> None:
        """The batch that `head` named got one call of this size."""
        start, _, caller = self._heap[0]
        batches = caller.batches
        batch_start, _, batch = batches[0]
        self._sequence = sequence = self._sequence + 1
        both = size, size
        if batch.owed or caller.owed:
            both = with_debts(batch, caller, size)
        batch.finish = finish = batch_start + both[0] / batch.weight
        heapreplace(batches, (finish, sequence, batch))
        caller.finish = finish = start + both[1] / caller.weight
        heapreplace(self._heap, (finish, sequence, caller))

    def charge_parked(self, batch: Batch, size: float) -> None:
        """A batch that is left out of the turns got one call of this size all the same. It and its caller are put where
        they belong when they come up."""
        # At once, and not with its next turn: whose calls all go this way would have no such turn, and pass everybody.
        caller = self._callers[batch.caller]
        both = with_debts(batch, caller, size)
        batch.finish += both[0] / batch.weight
        caller.finish += both[1] / caller.weight

    def owe(self, batch: Batch, size: float) -> None:
        """The batch took `size` more than it was charged, or less: that goes with its next turn, and its caller's."""
        batch.owed += size
        caller = self._callers.get(batch.caller)
        if caller is not None:
            caller.owed += size

    def park(self, turn: Turn) -> None:
        """Leave the batch out of the turns until `unpark`."""
        turn.parked = True

    def unpark(self, turn: Turn, *, waited: bool = True) -> None:
        """Let it take part again with the tag that it had; not `waited`: as one that had nothing to do."""
        if turn.parked:
            turn.parked = False
            self.wake(turn, waited=waited)

    def close(self, number: int) -> bool:
        """No key can pay for calls of this path class. Returns whether others may be asked for still: here none."""
        return False

    def reopen(self) -> None:
        """No calls are left out any more."""

    def __repr__(self) -> str:
        return f"<FairQueue of {len(self._callers)} callers, {sum(self._open.values())} batches>"


def with_debts(batch: Batch, caller: Caller, size: float) -> tuple[float, float]:
    """What a call of this size costs a batch and its caller, with what they owe or are owed."""
    both = max(0.0, size + batch.owed), max(0.0, size + caller.owed)
    batch.owed += size - both[0]
    caller.owed += size - both[1]
    return both


def _settled(caller: Caller) -> Batch | None:
    """The caller's batch whose turn it is, after those that have nothing to assign were dropped."""
    batches = caller.batches
    while batches:
        start, sequence, batch = batches[0]
        if batch.finish > start:  # it was served while it was parked
            heapreplace(batches, (batch.finish, sequence, batch))
        elif (batch.again or (batch.started < batch.reach and batch.started < batch.total)) and not batch.parked:
            caller.virtual = start
            return batch
        else:
            heappop(batches)
            batch.queued = False
    return None
