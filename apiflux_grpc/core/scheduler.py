"""Which call goes out now, with which key.

Rule: `assign(now)` hands out a permit for as long as a batch has something to assign and a key can pay for it, and
says when to ask again. The batch is the fair queue's; the key is the one with the most headroom (the free share of
its tightest window; ties: more free calls, then fewer in flight). Share and not count, so that a small fast limit
isn't left idle beside a big slow one. A call meets its key only here: nothing waits in a key's own queue.

Keys that can pay stand in a heap, best first; an entry is good while its number is the key's latest, so a change
pushes a new entry and the old one is dropped when it comes up. Everything that happens by itself (a slot comes
back, a pacer has room, a block ends) stands in a second heap by time. Each pick costs O(log keys), each slot group
O(log keys) once. Source of the idea: httpcore's pool, one synchronous method that decides for all who wait.

A call that no key can pay for now keeps its turn: nobody passes it, so that large costs don't starve.

Owner: the pump, on the engine's loop. Not known here: clocks, I/O, randomness, results.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from apiflux_grpc.core.budget import FAR, Budget
from apiflux_grpc.core.fairqueue import FairQueue
from apiflux_grpc.core.model import Again, Counts, Permit

if TYPE_CHECKING:
    from apiflux_grpc.core.budget import PacerFactory
    from apiflux_grpc.core.model import Batch, Key, Pool

_Entry = tuple[float, int, int, int, int, "KeyState"]


class KeyState:
    """A key at work: its budget, and what the scheduler knows of it."""

    __slots__ = (
        "attempts",
        "blocked_until",
        "budget",
        "drawn_429",
        "in_flight",
        "index",
        "key",
        "listed",
        "most",
        "version",
        "wake",
    )

    def __init__(self, index: int, key: Key, budget: Budget) -> None:
        self.index = index
        self.key = key
        self.budget = budget
        self.most = FAR if key.max_in_flight is None else key.max_in_flight
        self.in_flight = 0
        self.attempts = 0
        self.blocked_until = 0
        self.drawn_429 = 0  # in a row
        self.listed = False  # has a good entry in the heap of keys that can pay
        self.version = 0  # the number of that entry
        self.wake = FAR  # the earliest instant in the heap of wake-ups that is meant for it

    def __repr__(self) -> str:
        return f"<KeyState {self.key.label}: {self.in_flight} in flight, {self.budget!r}>"


class Scheduler:
    """The keys and the waiting batches of one pool. All instants are ns of one monotonic clock."""

    def __init__(self, pool: Pool, make_pacer: PacerFactory | None, now: int = 0) -> None:
        self.pool = pool
        self.keys = [
            KeyState(index, key, Budget(key.limits, pool.arrival_jitter, make_pacer))
            for index, key in enumerate(pool.keys)
        ]
        self.queue = FairQueue()
        self.waiting = 0  # calls without a permit and without a result, retries included
        self.in_flight = 0
        self._ready: list[_Entry] = []
        self._wakes: list[tuple[int, int, KeyState]] = []
        self._retries: list[tuple[int, int, Batch, Again]] = []
        self._sequence = 0
        self._starved = False  # a call waits that no key could pay for
        self._call_size, self._cost_size = _sizes(pool)
        for key in self.keys:
            self._list(key)

    # -- batches ------------------------------------------------------------------------------

    def add(self, batch: Batch, caller_weight: float = 1.0) -> None:
        """A new batch takes part from now on."""
        self.waiting += batch.waiting
        self.queue.add(batch, caller_weight)

    def drop(self, batch: Batch) -> list[Again]:
        """Nothing more of this batch is to be assigned. Returns the retries that were waiting.

        Calls from `batch.next_index` on, as it was before, have never been attempted; next_index is left at total.
        """
        self.waiting -= batch.waiting
        again = list(batch.again)
        batch.again.clear()
        if batch.retrying:
            again += [entry[3] for entry in self._retries if entry[2] is batch]
            self._retries = [entry for entry in self._retries if entry[2] is not batch]
            heapify(self._retries)
            batch.retrying = 0
        batch.next_index = batch.total
        return again

    def over(self, batch: Batch) -> None:
        """The batch has all its results; it is forgotten."""
        self.queue.remove(batch)

    def retry(self, batch: Batch, again: Again, at: int) -> None:
        """A call is to be attempted again, not before `at`. It waits in the fair queue, not in a task."""
        self._sequence += 1
        heappush(self._retries, (at, self._sequence, batch, again))
        batch.retrying += 1
        self.waiting += 1

    # -- keys ---------------------------------------------------------------------------------

    def sent(self, permit: Permit, at: int) -> None:
        """The permit's call went out at `at`."""
        key = permit.key
        end = key.budget.sent(permit, at)
        if end < key.wake:
            self._wake(key, end)

    def settle(self, permit: Permit, now: int, answered_at: int | None) -> None:
        """The attempt is over. A call that was never `sent` is given back; `answered_at` None: no answer came."""
        key = permit.key
        key.in_flight -= 1
        self.in_flight -= 1
        permit.batch.in_flight -= 1
        if permit.flight is None:
            key.budget.give_back(permit.cost)
            self._relist(key, now)
            return
        if answered_at is not None:
            end = key.budget.answered(permit, min(answered_at, now))
            if end < key.wake:
                self._wake(key, end)
        if not key.listed:
            self._relist(key, now)

    def block(self, key: KeyState, until: int) -> None:
        """The upstream said that this key must wait. Never shortens a block."""
        if until > key.blocked_until:
            key.blocked_until = until
            self._unlist(key)
            self._wake(key, until)

    # -- the decision -------------------------------------------------------------------------

    def assign(self, now: int, most: int = FAR) -> tuple[list[Permit], int | None]:
        """Up to `most` permits for now, and when to ask again; see `wake_at`."""
        self.advance(now)
        permits: list[Permit] = []
        head = self.queue.head
        room = self.pool.max_connections - self.in_flight
        self._starved = False
        while room > 0 and (batch := head()) is not None:
            if len(permits) >= most:
                return permits, now
            permit = self._pair(batch, now)
            if permit is None:
                self._starved = True
                break
            permits.append(permit)
            room -= 1
        return permits, self.wake_at

    @property
    def wake_at(self) -> int | None:
        """When time alone brings something to assign; None: never. `add`, `retry`, `sent` and `settle` change it."""
        wake_at = self._wakes[0][0] if self._starved and self._wakes else FAR
        if self._retries and self._retries[0][0] < wake_at:
            wake_at = self._retries[0][0]
        return None if wake_at == FAR else wake_at

    def advance(self, now: int) -> None:
        """Let happen what happens by itself until `now`: retries fall due, slots come back, blocks end."""
        retries = self._retries
        while retries and retries[0][0] <= now:
            _, _, owner, again = heappop(retries)
            owner.retrying -= 1
            owner.again.append(again)
            self.queue.wake(owner)
        wakes = self._wakes
        while wakes and wakes[0][0] <= now:
            at, _, key = heappop(wakes)
            if at == key.wake:
                key.wake = FAR
                self._refresh(key, now)

    def _pair(self, batch: Batch, now: int) -> Permit | None:
        """One call of the batch with the best key that can pay for it; None: no key can now."""
        index = batch.again[0].index if batch.again else batch.next_index
        cost = 1 if batch.costs is None else batch.costs[index]
        ready = self._ready
        passed: list[_Entry] = []
        permit: Permit | None = None
        while ready:
            entry = ready[0]
            key = entry[5]
            if entry[4] != key.version:
                heappop(ready)
                continue
            wait = key.budget.try_take(cost, now)
            if not wait:
                permit = self._charge(batch, key, cost, now)
                break
            heappop(ready)
            if wait < key.wake:
                self._wake(key, wait)
            if key.budget.cost_windows and key.budget.rank()[1] > 0:
                passed.append(entry)  # has room, but not for this cost
            else:
                key.listed = False
        for entry in passed:
            heappush(ready, entry)
        return permit

    def _charge(self, batch: Batch, key: KeyState, cost: int, now: int) -> Permit:
        if batch.again:
            again = batch.again.popleft()
            permit = Permit(key, batch, again.index, again.number, cost, now, again.queue_time)
        else:
            permit = Permit(key, batch, batch.next_index, 1, cost, now, now - batch.admitted_at)
            batch.next_index += 1
            batch.room -= 1
        batch.in_flight += 1
        key.in_flight += 1
        key.attempts += 1
        self.in_flight += 1
        self.waiting -= 1
        size = self._call_size
        if self._cost_size:
            size = max(size, cost * self._cost_size)
        self.queue.charge(size)
        if key.in_flight < key.most:
            share, free = key.budget.rank()
            key.version = version = key.version + 1
            heapreplace(self._ready, (-share, -free, key.in_flight, key.index, version, key))
        else:
            heappop(self._ready)
            key.listed = False
        return permit

    # -- the two heaps ------------------------------------------------------------------------

    def _wake(self, key: KeyState, at: int) -> None:
        key.wake = at
        self._sequence += 1
        heappush(self._wakes, (at, self._sequence, key))

    def _refresh(self, key: KeyState, now: int) -> None:
        """Take back what has ended, and put the key where it belongs now."""
        key.budget.advance(now)
        self._relist(key, now)
        change = key.budget.next_change()
        if change < key.wake:
            self._wake(key, max(change, now + 1))

    def _relist(self, key: KeyState, now: int) -> None:
        if key.blocked_until > now:
            self._unlist(key)
            if key.blocked_until < key.wake:
                self._wake(key, key.blocked_until)
        elif key.in_flight < key.most and key.budget.rank()[1] > 0:
            self._list(key)
        else:
            self._unlist(key)

    def _list(self, key: KeyState) -> None:
        key.listed = True
        key.version += 1
        if len(self._ready) > 2 * len(self.keys) + 64:
            self._ready = [entry for entry in self._ready if entry[4] == entry[5].version]
            heapify(self._ready)
        share, free = key.budget.rank()
        heappush(self._ready, (-share, -free, key.in_flight, key.index, key.version, key))

    def _unlist(self, key: KeyState) -> None:
        key.listed = False
        key.version += 1

    def __repr__(self) -> str:
        counts = f"{self.waiting} waiting, {self.in_flight} in flight, {len(self.keys)} keys"
        return f"<Scheduler of {self.pool.name}: {counts}>"


def _sizes(pool: Pool) -> tuple[float, float]:
    """What one call, and one unit of cost, takes of the pool's dominant resource, in seconds of the whole pool.

    The dominant share of Ghodsi et al., "Dominant Resource Fairness" (NSDI 2011): a call's size is the larger of
    the two. 0 where nothing limits that kind.
    """
    rates = []
    for counts in Counts:
        per_second = 0.0
        for key in pool.keys:
            own = [limit.max * 1e9 / limit.per for limit in key.limits if limit.counts is counts]
            if not own:
                per_second = 0.0
                break
            per_second += min(own)
        rates.append(1 / per_second if per_second else 0.0)
    calls, cost = rates
    return calls or (1e-9 if cost else 1.0), cost  # a call of cost 0 takes its turn too
