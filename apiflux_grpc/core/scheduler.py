"""Which call goes out now, with which key.

Rule: `assign(now)` hands out a permit for as long as a batch has something to assign and a key can pay for it, and
says when to ask again. The batch is the fair queue's; the key is the one with the most headroom (the free share of
its tightest window; ties: more free calls, then fewer in flight). Share and not count, so that a small fast limit
isn't left idle beside a big slow one. A call meets its key only here: nothing waits in a key's own queue.

Keys that can pay stand in a heap, best first (ready.py); everything that happens by itself (a slot comes back, a pacer
has room, a block ends) in a second one by time (alarms.py). Each pick costs O(log keys), each slot group O(log keys)
once. Keys of a group share a second budget: a permit is paid from both. Source of the idea: httpcore's pool, one
synchronous method that decides for all who wait.

A large cost must not starve among small ones: the first call that no key can pay for gets a reservation on the key
where it fits soonest, and others may pass it only if they don't delay it (reservation.py).

Over 400 lines: one decision, whose invariants every method here keeps; half of it could not be read without the rest.

Owner: the dispatcher. Not known here: clocks, I/O, randomness, results.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.alarms import Alarms
from apiflux_grpc.core.breaker import Breaker, State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.fairqueue import FairQueue
from apiflux_grpc.core.keys import GroupState, KeyState, Share, sizes
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.ready import Ready
from apiflux_grpc.core.reservation import reserve
from apiflux_grpc.core.retries import Retries
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.batch import Again, Batch
    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.model import Group, Limit, Pool
    from apiflux_grpc.core.ready import Entry
    from apiflux_grpc.core.reservation import Reservation

MOST_PASSED: Final = 64  # batches in one pass whose next call no key can pay for, until others must wait too
# An upstream that fails whatever key is used: after so many in a row, tried again after 1 s, doubling up to 30 s.
POOL_BREAKER: Final = (20, SECOND, 30 * SECOND)


class Scheduler:
    """The keys and the waiting batches of one pool. All instants are ns of one monotonic clock."""

    def __init__(self, pool: Pool, make_pacer: PacerFactory | None, now: int = 0) -> None:
        self.pool = pool
        self.keys = [
            KeyState(index, key, Budget(key.limits, pool.arrival_jitter, make_pacer))
            for index, key in enumerate(pool.keys)
        ]
        self.groups = [self._group(group, make_pacer) for group in pool.groups]
        self.breaker = Breaker(*POOL_BREAKER)
        self.queue = FairQueue()
        self.waiting = 0  # calls without a permit and without a result, retries included
        self.in_flight = 0
        self.assigned = 0  # permits that were ever handed out, and not given back
        self._now = now
        self._ready = Ready(len(pool.keys))
        self._alarms: Alarms[KeyState | GroupState] = Alarms()
        self._retries = Retries()
        # A call waits that no key could pay for. Only then does time alone bring anything, and a timer is worth it.
        self._starved = False
        self._reserved: Reservation | None = None
        self._measure()
        for key in self.keys:
            self._ready.list(key, now)

    def _group(self, group: Group, make_pacer: PacerFactory | None) -> GroupState:
        state = GroupState(Budget(group.limits, self.pool.arrival_jitter, make_pacer))
        state.members = [key for key in self.keys if key.key.label in group.keys]
        for key in state.members:
            key.group = state
        return state

    def _measure(self) -> None:
        """What follows from the limits alone."""
        self._call_size, self._cost_size = sizes(self.keys, self.groups)
        budgets = [*(key.budget for key in self.keys), *(group.budget for group in self.groups)]
        self.limits = {limit for budget in budgets for limit in budget.limits}
        self._by_cost = any(limit.counts is Counts.COST for limit in self.limits)
        # The most calls in flight at once.
        self.slots = min(self.pool.max_connections, sum(key.most for key in self.keys))

    # -- batches ------------------------------------------------------------------------------

    def add(self, batch: Batch, caller_weight: float = 1.0) -> None:
        """A new batch takes part from now on."""
        self.waiting += batch.waiting
        self.queue.add(batch, caller_weight)

    def grow(self, batch: Batch, calls: int) -> None:
        """So many more calls of a batch that is still being fed."""
        batch.total += calls
        self.waiting += calls
        self.queue.wake(batch)

    def drop(self, batch: Batch) -> list[Again]:
        """Nothing more of this batch is to be assigned. Returns the retries that were waiting.

        Calls from `batch.next_place` on, as it was before, have never been attempted; next_place is left at total.
        """
        self.waiting -= batch.waiting
        # The due ones first: they are further on their way.
        again = [*batch.again, *self._retries.drop(batch)]
        batch.again.clear()
        batch.next_place = batch.total  # so that the fair queue sees no work and drops it when it comes up
        if self._reserved is not None and self._reserved.batch is batch:
            self._unreserve()
        return again

    def over(self, batch: Batch) -> None:
        """The batch has all its results; it is forgotten."""
        self.queue.remove(batch)

    def retry(self, batch: Batch, again: Again, at: int) -> None:
        """A call is to be attempted again, not before `at`."""
        self._retries.add(batch, again, at)
        self.waiting += 1

    # -- keys ---------------------------------------------------------------------------------

    def sent(self, permit: Permit, at: int) -> None:
        """The permit's call went out at `at`."""
        key = permit.key
        end = key.budget.sent(permit, at)
        if end < key.wake:
            self._alarms.set(key, end)
        if permit.share is not None and key.group is not None:
            end = key.group.budget.sent(permit.share, at)
            if end < key.group.wake:
                self._alarms.set(key.group, end)

    def settle(self, permit: Permit, now: int, answered_at: int | None, actual: int | None = None) -> None:
        """The attempt is over. A call that was never `sent` is given back; `answered_at` None: no answer came.

        `actual`: what it took of limits that count cost, if the answer told.
        """
        key = permit.key
        key.in_flight -= 1
        key.cost_in_flight -= permit.cost
        self.in_flight -= 1
        permit.batch.in_flight -= 1
        group = key.group
        if permit.flight is None:
            # Never sent, so it never arrived: the only slots that come back before their time.
            self.assigned -= 1
            key.budget.give_back(permit.cost, now, permit.taken_at)
            if permit.share is not None and group is not None:
                group.budget.give_back(permit.cost, now, permit.taken_at)
                self._relist_members(group, now)
            self._relist(key, now)
            return
        if answered_at is not None:
            # An adapter's clock may be read after ours: an instant to come would put the log out of order.
            at = min(answered_at, now)
            end = key.budget.answered(permit, at, actual)
            if end < key.wake:
                self._alarms.set(key, end)
            if permit.share is not None and group is not None:
                end = group.budget.answered(permit.share, at, actual)
                if end < group.wake:
                    self._alarms.set(group, end)
                if actual is not None and actual < permit.cost:
                    self._relist_members(group, now)
            if actual is not None and actual != permit.cost and self._cost_size:
                self.queue.owe(permit.batch, self._size(actual) - self._size(permit.cost))
        # A listed key keeps its entry, though it has one call less in flight now: that is only a tie-break.
        if not key.listed:
            self._relist(key, now)

    def judged(self, one: KeyState | GroupState, now: int) -> None:
        """Something was said of a key or a group: it may be used again, or not any more."""
        self._refresh(one, now)

    def usable(self) -> bool:
        """Whether any key may be used, or will be when the time has passed that the upstream asked for."""
        return self.breaker.state is State.CLOSED and any(key.is_open for key in self.keys)

    def change_limits(self, index: int, limits: Sequence[Limit], now: int) -> None:
        """Other limits for one key from now on; what it has spent stays spent."""
        key = self.keys[index]
        key.budget = key.budget.changed(limits, now)
        self._measure()
        self._unreserve()  # it was reckoned with the old limits
        self._refresh(key, now)

    # -- the decision -------------------------------------------------------------------------

    @property
    def head(self) -> Batch | None:
        """The batch whose call goes next: that with the reservation, else the fair queue's; None: nobody waits."""
        if self._reserved is not None and self._reserved.batch.has_work:
            return self._reserved.batch
        return self.queue.head()

    def assign(self, now: int, most: int = FAR) -> tuple[list[Permit], int | None]:
        """Up to `most` permits for now, and when to ask again; see `wake_at`."""
        self.advance(now)
        permits: list[Permit] = []
        head = self.queue.head
        room = self.pool.max_connections - self.in_flight
        self._starved = False  # as far as this pass has seen
        ready = self.breaker.ready_at(now)
        if ready > now:
            self._starved = head() is not None or self._reserved is not None
            return permits, self.wake_at
        probing = self.breaker.state is not State.CLOSED
        if probing:
            # One call at a time finds out whether the upstream still fails: retries of all spend no budget meanwhile.
            room = min(room, 1)
        # Whoever has the reservation has waited longest: before everybody else.
        if self._reserved is not None and room > 0:
            permit = self._serve_reserved(now)
            if permit is not None:
                permits.append(permit)
                room -= 1
        passed: list[Batch] = []
        while room > 0 and (batch := head()) is not None:
            if len(permits) >= most:
                break
            permit = self._pair(batch, now)
            if permit is not None:
                permits.append(permit)
                room -= 1
                continue
            # Every key was tried for this call. Another batch's call may cost less.
            self._starved = True
            if not self._by_cost or len(passed) >= MOST_PASSED:
                break  # every call costs the same, so nobody else can be paid for either
            self.queue.park(batch)
            # The first that doesn't fit gets the reservation, which keeps it parked; the others come back below.
            if self._reserved is not None or not self._reserve(batch, now):
                passed.append(batch)
        for batch in passed:
            self.queue.unpark(batch)
        if permits:
            era = self.breaker.began(now)  # at most one of them is a probe, or all are of one era
            for permit in permits:
                permit.pool_era = era
        if room <= 0:
            self._starved = False  # an end of some call comes first
        if room > 0 and len(permits) >= most and head() is not None:
            return permits, now
        return permits, self.wake_at

    @property
    def wake_at(self) -> int | None:
        """When time alone brings something to assign; None: never. `add`, `retry`, `sent` and `settle` change it."""
        wake_at = self._retries.next_at()
        ready = self.breaker.ready_at(self._now)
        if ready > self._now:
            # The upstream is left alone until then: what comes back or falls due meanwhile wakes nobody.
            wake_at = ready if self._starved else max(wake_at, ready)
        elif self._starved:
            wake_at = min(wake_at, self._alarms.next_at())
        return None if wake_at >= FAR else wake_at

    def advance(self, now: int) -> None:
        """Let happen what happens by itself until `now`: retries fall due, slots come back, blocks end."""
        self._now = now
        for batch, again in self._retries.due(now):
            batch.again.append(again)
            self.queue.wake(batch)
        for one in self._alarms.ring(now):
            self._refresh(one, now)

    def _pair(self, batch: Batch, now: int) -> Permit | None:
        """One call of the batch with the best key that can pay for it; None: no key can now."""
        # Late binding: the best key is chosen now, when it can pay, and never for a call that must still wait.
        avoid = batch.again[0].avoid if batch.again else 0
        cost = batch.next_cost
        ready = self._ready.heap
        reserved = self._reserved
        passed: list[Entry] = []
        permit: Permit | None = None
        while ready:
            entry = ready[0]
            key = entry[5]
            if entry[4] != key.version:
                heappop(ready)  # the key has a newer entry, or is no longer listed
                continue
            if (avoid and avoid >> key.index & 1) or (
                reserved is not None and reserved.batch is not batch and not reserved.lets(key, cost)
            ):
                passed.append(heappop(ready))
                continue
            if key.group is not None:
                share = key.rank(now)[0]
                if -share > entry[0] + 1e-9:  # its group has spent since
                    heappop(ready)
                    self._ready.list(key, now)
                    continue
                wait = key.group.budget.fits(cost, now)
                if wait:
                    heappop(ready)
                    self._group_waits(key, key.group, wait, cost, passed, entry)
                    continue
            wait = key.budget.try_take(cost, now)
            if not wait:
                if reserved is not None and reserved.batch is not batch:
                    reserved.passed(key, cost)
                permit = self._charge(batch, key, cost, now)
                break
            # It can't pay this cost now: off the heap until `wait`, or it would be asked again for every call.
            heappop(ready)
            if wait < key.wake:
                self._alarms.set(key, wait)
            if key.budget.by_cost and key.budget.rank(now)[1] > 0:
                passed.append(entry)  # has room, but not for this cost
            else:
                key.listed = False
        for entry in passed:  # still good: nothing was taken of these keys
            heappush(ready, entry)
        if permit is None and avoid:
            batch.again[0].avoid = 0  # better with the same key than not at all
            return self._pair(batch, now)
        return permit

    def _group_waits(
        self, key: KeyState, group: GroupState, wait: int, cost: int, passed: list[Entry], entry: Entry
    ) -> None:
        """The group can't pay for this: its keys are listed again when something of it comes back."""
        wait = min(wait, group.budget.next_change())
        if wait < group.wake:
            self._alarms.set(group, max(wait, self._now + 1))
        if group.budget.by_cost and group.budget.rank(self._now)[1] > 0:
            passed.append(entry)
        else:
            key.listed = False

    def _charge(self, batch: Batch, key: KeyState, cost: int, now: int) -> Permit:
        if batch.again:
            again = batch.again.popleft()
            permit = Permit(key, batch, again.place, again.number, cost, now, again.queue_time)
        else:
            place = batch.next_place
            permit = Permit(key, batch, place, 1, cost, now, now - batch.came_at(place))
            batch.next_place = place + 1
        if key.group is not None:
            key.group.budget.take(cost)
            permit.share = Share(cost, now)
        batch.in_flight += 1
        key.in_flight += 1
        key.cost_in_flight += cost
        key.attempts += 1
        self.in_flight += 1
        self.waiting -= 1
        self.assigned += 1
        size = self._size(cost) if self._cost_size else self._call_size
        if batch.parked:
            self.queue.owe(batch, size)  # it wasn't at the head when its reservation was served
        else:
            self.queue.charge(size)
        # `calm` is a closed breaker without a failure: then asking it is not worth a call.
        breaker = key.breaker
        permit.key_era = breaker.era if breaker.calm else breaker.began(now)
        probing = not breaker.calm and breaker.is_probe(permit.key_era)
        if key.block is not None:
            key.block.began(permit)
            probing |= key.block.probing
        # A key that is being probed is off the heap until its probe has ended.
        if key.in_flight < key.most and not probing:
            self._ready.relist_top(key, now)
        else:
            self._ready.unlist_top(key)
        if key.group is not None and key.group.block is not None:
            key.group.block.began(permit)
            self._relist_members(key.group, now)
        return permit

    def _size(self, cost: int) -> float:
        return max(self._call_size, cost * self._cost_size)

    # -- the reservation ----------------------------------------------------------------------

    def _reserve(self, batch: Batch, now: int) -> bool:
        """Reserve for the batch's next call, which parks the batch; False: it fits nowhere as things stand."""
        self._reserved = reserve(batch, self.keys, now)
        return self._reserved is not None

    def _serve_reserved(self, now: int) -> Permit | None:
        """Pay for the reserved call if any key can; else see to it that the reservation still stands."""
        reserved = self._reserved
        assert reserved is not None
        batch = reserved.batch
        if not batch.has_work:
            self._unreserve()
            return None
        permit = self._pair(batch, now)
        if permit is not None:
            self._unreserve()
            return permit
        self._starved = True
        self._reserved = reserved.renewed(now)  # answers have come since
        if self._reserved is None and not self._reserve(batch, now):
            self.queue.unpark(batch)
        return None

    def _unreserve(self) -> None:
        if self._reserved is not None:
            reserved, self._reserved = self._reserved, None
            self.queue.unpark(reserved.batch)

    # -- the two heaps ------------------------------------------------------------------------

    def _refresh(self, one: KeyState | GroupState, now: int) -> None:
        """Take back what has ended, and put the key, or the group's keys, where they belong now."""
        one.budget.advance(now)
        if isinstance(one, GroupState):
            self._relist_members(one, now)
        else:
            self._relist(one, now)
        change = one.budget.next_change()
        # Never at or before now: a pacer's floats may say so for ever, and the loop would spin.
        if change < one.wake:
            self._alarms.set(one, max(change, now + 1))

    def _relist_members(self, group: GroupState, now: int) -> None:
        for key in group.members:
            self._relist(key, now)

    def _relist(self, key: KeyState, now: int) -> None:
        usable_at = key.usable_at(now)
        if usable_at > now:
            self._ready.unlist(key)
            if usable_at < key.wake:
                self._alarms.set(key, usable_at)
        elif key.in_flight < key.most and key.rank(now)[1] > 0:
            self._ready.list(key, now)
        else:
            self._ready.unlist(key)

    def __repr__(self) -> str:
        counts = f"{self.waiting} waiting, {self.in_flight} in flight, {len(self.keys)} keys"
        return f"<Scheduler of {self.pool.name}: {counts}>"
