"""Which call goes out now, with which key.

Rule: `assign(now)` hands out a permit for as long as a batch has something to assign and a key can pay for it, and
says when to ask again. The batch is the fair queue's to name, the key the keyring's. A call meets its key only here:
nothing waits in a key's own queue. Source of the idea: httpcore's pool, one synchronous method that decides for all who
wait.

If limits have paths, a *turn* is that of a lane, the calls of one batch that meet the same limits (lanes.py): a class
that no key can pay for holds back no other. Elsewhere a turn is a batch's.

A large cost must not starve among small ones: the first call that no key can pay for gets a reservation on the key
where it fits soonest, and others may pass it only if they don't delay it (reservation.py).

Owner: the dispatcher. Not known here: clocks, I/O, randomness, results.

Over 400 lines: who waits and who pays meet here, and what is kept of both changes together.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Again, Batch
from apiflux_grpc.core.breaker import Breaker, State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.classes import classes_of
from apiflux_grpc.core.classqueue import ClassQueue
from apiflux_grpc.core.fairqueue import FairQueue
from apiflux_grpc.core.lanes import Lane
from apiflux_grpc.core.leased import make_keyring
from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.reservation import reserve
from apiflux_grpc.core.resources import Resources
from apiflux_grpc.core.retries import Retries
from apiflux_grpc.core.sizes import sizes
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.keys import GroupState, KeyState
    from apiflux_grpc.core.lanes import Turn
    from apiflux_grpc.core.leased import Leasing
    from apiflux_grpc.core.model import Limit, Pool
    from apiflux_grpc.core.permit import Permit
    from apiflux_grpc.core.reservation import Reservation

MOST_PASSED: Final = 64  # batches in one pass whose next call no key can pay for, until others must wait too
MOST_ASIDE: Final = 256  # calls that one pass sets aside, until others must have their turn
LOOK_AGAIN: Final = SECOND // 10  # of a call that waits for a key that has not rejected it
# An upstream that fails whatever key is used: after so many in a row, tried again after 1 s, doubling up to 30 s.
POOL_BREAKER: Final = (20, SECOND, 30 * SECOND)


class Scheduler:
    """The keys and the waiting batches of one pool. All instants are ns of one monotonic clock."""

    def __init__(self, pool: Pool, make_pacer: PacerFactory | None, now: int = 0, leasing: Leasing | None = None):
        self.pool = pool
        self.classes = classes_of(pool)
        self.keyring = make_keyring(pool, self.classes, make_pacer, now, leasing)
        self.keys = self.keyring.keys
        self.groups = self.keyring.groups
        self.resources = Resources(len(self.keys))
        for key in self.keys:
            key.spent = self.resources.of(key.index)
        self.breaker = Breaker(*POOL_BREAKER)
        self._lanes = ClassQueue(self.classes.count) if self.classes.count > 1 else None
        self.queue: FairQueue = self._lanes or FairQueue()
        self.waiting = 0  # calls without a permit and without a result, retries included
        self.in_flight = 0
        self.assigned = 0  # permits that were ever handed out, and not given back
        self.assigned_by_class = [0] * self.classes.count  # the same, not counted for class 0
        self._now = now
        self.retries = Retries()
        # A call waits that no key could pay for. Only then does time alone bring anything, and a timer is worth it.
        self._starved = False
        self._reserved: dict[int, Reservation] = {}  # by path class, the oldest first
        self.measure()

    def measure(self) -> None:
        """What follows from the limits alone: they are new, or others than before. No place is kept any more."""
        for number in [*self._reserved]:  # they were reckoned with the old limits
            self._unreserve(number)
        self.limits = {limit for budget in self.keyring.budgets() for limit in budget.limits}
        numbers = range(self.classes.count)
        self._sizes = [sizes(self.keys, number) for number in numbers]
        self._sized = any(cost_size for _, cost_size in self._sizes)
        costs = [limit for limit in self.limits if limit.counts is Counts.COST]
        self._by_cost = [any(self.classes.meets(number, limit) for limit in costs) for number in numbers]
        # The most calls in flight at once.
        self.slots = min(self.pool.max_connections, sum(key.most for key in self.keys))

    # -- batches ------------------------------------------------------------------------------

    def add(self, batch: Batch, caller_weight: float = 1.0) -> None:
        """A new batch takes part from now on."""
        self.waiting += batch.waiting
        if self._lanes is not None:
            batch.laned = True
            self._lanes.split(batch, self._marks(batch, 0) if batch.classes is None else batch.classes)
        self.queue.add(batch, caller_weight)

    def met_by(self, batch: Batch) -> list[tuple[int, int]]:
        """(path class, calls of it) of a batch that wasn't added yet, class 0 left out."""
        if self._lanes is None:
            return []
        if batch.classes is None:
            batch.classes = self._marks(batch, 0)
        counts = ((number, batch.classes.count(number)) for number in range(1, self.classes.count))
        return [(number, calls) for number, calls in counts if calls]

    def _marks(self, batch: Batch, first: int) -> bytes:
        """The path class of each call of the batch from this place on."""
        return bytes(self.classes.of(batch.call_at(place).path) for place in range(first, batch.total))

    def grow(self, batch: Batch, calls: int) -> None:
        """So many more calls of a batch that is still being fed."""
        first = batch.total
        batch.total += calls
        self.waiting += calls
        if self._lanes is not None:
            self._lanes.grow(batch, self._marks(batch, first))
        self.queue.wake(batch)

    def drop(self, batch: Batch) -> tuple[list[Again], Iterable[int]]:
        """Nothing more of this batch is to be assigned. Returns the retries that were waiting, and the places of the
        calls that have never been attempted."""
        self.waiting -= batch.waiting
        # The due ones first: they are further on their way.
        again = [*batch.again, *self.retries.drop(batch)]
        batch.again.clear()
        unstarted: Iterable[int] = range(batch.started, batch.total)
        if self._lanes is not None:
            due, unstarted = self._lanes.clear(batch)
            again = [*due, *again]
        batch.started = batch.total  # so that the fair queue sees no work and drops it when it comes up
        self._let_go_of(batch)
        return again, unstarted

    def _let_go_of(self, batch: Batch) -> None:
        """No call of it needs a place any more."""
        for number, reserved in [*self._reserved.items()]:
            if reserved.turn in self.turns(batch):
                self._unreserve(number)

    def turns(self, batch: Batch) -> Sequence[Turn]:
        """What of the batch is queued: itself, or in a pool with path classes its lane of each."""
        return (batch,) if self._lanes is None else self._lanes.lanes(batch)

    def waiting_by_class(self, batch: Batch) -> list[int]:
        """Its calls without a permit and without a result, by path class."""
        return [batch.waiting] if self._lanes is None else [lane.waiting for lane in self._lanes.lanes(batch)]

    def waiting_again(self, batch: Batch) -> list[Again]:
        """Its retries, those that aren't due included."""
        return [*(again for turn in self.turns(batch) for again in turn.again), *self.retries.of(batch)]

    def take_back(self, batch: Batch, wanted: Callable[[Again], bool]) -> list[Again]:
        """Take those of its waiting retries that are wanted; they are not attempted again."""
        taken = self.retries.take(batch, wanted)
        for turn in self.turns(batch):
            due = [*turn.again]
            turn.again.clear()
            turn.again.extend(again for again in due if not wanted(again))
            taken += filter(wanted, due)
            if turn is not batch:
                batch.due -= len(due) - len(turn.again)
        self.waiting -= len(taken)
        if self._lanes is not None:
            for again in taken:
                self._lanes.lanes(batch)[again.path_class].waiting -= 1
        return taken

    def over(self, batch: Batch) -> None:
        """The batch has all its results; it is forgotten."""
        self._let_go_of(batch)  # the call that had a place may have been taken back
        self.queue.remove(batch)

    def retry(self, batch: Batch, again: Again, at: int) -> None:
        """A call is to be attempted again, not before `at`."""
        self.retries.add(batch, again, at)
        self.waiting += 1
        if self._lanes is not None:
            self._lanes.lanes(batch)[again.path_class].waiting += 1

    # -- keys ---------------------------------------------------------------------------------

    def sent(self, permit: Permit, at: int) -> None:
        """The permit's call went out at `at`."""
        self.keyring.sent(permit, at)

    def settle(self, permit: Permit, now: int, answered_at: int | None, actual: int | None = None) -> None:
        """The attempt is over. A call that was never `sent` is given back; `answered_at` None: no answer came.

        `actual`: what it took of limits that count cost, if the answer told.
        """
        self.in_flight -= 1
        permit.batch.in_flight -= 1
        self.keyring.settle(permit, now, answered_at, actual)
        if permit.flight is None:
            # Never sent, so it never arrived: the only slots that come back before their time.
            self.assigned -= 1
            self.assigned_by_class[permit.path_class] -= 1 if permit.path_class else 0
        elif answered_at is not None and actual is not None and actual != permit.cost:
            number = permit.path_class
            if self._sizes[number][1]:
                self.queue.owe(permit.batch, self._size(number, actual) - self._size(number, permit.cost))

    def judged(self, one: KeyState | GroupState, now: int) -> None:
        """Something was said of a key or a group: it may be used again, or not any more."""
        self.keyring.refresh(one, now)

    def usable(self) -> bool:
        """Whether any key may be used, or will be when the time has passed that the upstream asked for."""
        return self.breaker.state is State.CLOSED and any(key.is_open for key in self.keys)

    def change_limits(self, index: int, limits: Sequence[Limit], now: int) -> None:
        """Other limits for one key from now on; what it has spent stays spent. Raises ValueError for paths that no
        limit of the pool had."""
        self.keyring.change_limits(self.keys[index], limits, now)
        self.measure()

    # -- the decision -------------------------------------------------------------------------

    @property
    def head(self) -> Turn | None:
        """Whose call goes next: that with a reservation, else the fair queue's; None: nobody waits."""
        reserved = (one.turn for one in self._reserved.values() if one.turn.has_work)
        return next(reserved, None) or self.queue.head()

    def assign(self, now: int, most: int = FAR) -> tuple[list[Permit], int | None]:
        """Up to `most` permits for now, and when to ask again; see `wake_at`."""
        self.advance(now)
        permits: list[Permit] = []
        head = self.queue.head
        room = self.pool.max_connections - self.in_flight
        self._starved = False  # as far as this pass has seen
        ready = self.breaker.ready_at(now)
        if ready > now:
            self._starved = head() is not None or bool(self._reserved)
            return permits, self.wake_at
        probing = self.breaker.state is not State.CLOSED
        if probing:
            # One call at a time finds out whether the upstream still fails: retries of all spend no budget meanwhile.
            room = min(room, 1)
        # Whoever has a reservation has waited longest: before everybody else.
        if self._reserved:
            room -= self._serve_reserved(now, min(room, most), permits)
        passed: list[tuple[Turn, bool]] = []
        aside = 0
        while room > 0 and (turn := head()) is not None:
            if len(permits) >= most:
                break
            permit = self._pair(turn, now)
            if permit is not None:
                permits.append(permit)
                room -= 1
                continue
            if self._set_aside(turn, now):
                aside += 1
                if aside >= MOST_ASIDE:
                    break
                continue
            # Every key was tried for this call. Another batch's call may cost less.
            self._starved = True
            number = turn.number
            if not self._by_cost[number] or len(passed) >= MOST_PASSED:
                # Every call of its class costs the same, so none of them can be paid for either.
                if self.queue.close(number):
                    continue
                break
            self.queue.park(turn)
            # The first that doesn't fit gets the reservation, which keeps it parked; the others come back below.
            if number in self._reserved:
                passed.append((turn, True))
            elif not self._reserve(turn, now):
                passed.append((turn, False))  # who fits nowhere banks nothing
        for turn, waited in passed:
            self.queue.unpark(turn, waited=waited)
        if permits:
            era = self.breaker.began(now)  # at most one of them is a probe, or all are of one era
            for permit in permits:
                permit.pool_era = era
        if room <= 0:
            self._starved = False  # an end of some call comes first
        full = ((room > 0 and len(permits) >= most) or aside >= MOST_ASIDE) and head() is not None
        self.queue.reopen()
        if self._starved and self._lanes is not None:
            self._starved = self.head is not None  # calls of other classes may have taken the last room for results
        return permits, now if full else self.wake_at

    @property
    def wake_at(self) -> int | None:
        """When time alone brings something to assign; None: never. `add`, `retry`, `sent` and `settle` change it."""
        wake_at = self.retries.next_at()
        ready = self.breaker.ready_at(self._now)
        if ready > self._now:
            # The upstream is left alone until then: what comes back or falls due meanwhile wakes nobody.
            wake_at = ready if self._starved else max(wake_at, ready)
        elif self._starved:
            wake_at = min(wake_at, self.keyring.next_at())
        return None if wake_at >= FAR else wake_at

    def advance(self, now: int) -> None:
        """Let happen what happens by itself until `now`: retries fall due, slots come back, blocks end."""
        self._now = now
        for batch, again in self.retries.due(now):
            turn: Turn = batch
            if self._lanes is not None:
                turn = self._lanes.lanes(batch)[again.path_class]
                batch.due += 1
            turn.again.append(again)
            self.queue.wake(turn)
        self.keyring.advance(now)

    def _pair(self, turn: Turn, now: int) -> Permit | None:
        """The turn's next call with the best key that can pay for it; None: no key can now."""
        # Late binding: the best key is chosen now, when it can pay, and never for a call that must still wait.
        avoid = turn.again[0].avoid if turn.again else 0
        held = self._held(turn) if self._reserved else ()
        batch = turn if isinstance(turn, Batch) else turn.batch
        number, cost = turn.number, 1 if batch.costs is None else turn.next_cost
        spent = self.resources.mask(turn.next_path, now) if self.resources.until > now else 0
        if avoid and turn.again[0].tried:
            spent |= self.keyring.unproven(now)
        seat = self.keyring.find(number, cost, now, avoid | spent, held)
        if seat is None and avoid and avoid != turn.again[0].tried:
            avoid = turn.again[0].avoid = turn.again[0].tried  # better with the same key than not at all
            seat = self.keyring.find(number, cost, now, avoid | spent, held)
        if seat is None:
            return None
        if turn.again:
            again = turn.again.popleft()
            was_aside = again.number == 1 and not again.label
            queue_time = now - batch.came_at(again.place) if was_aside else again.queue_time
            permit = self.keyring.permit(seat.key, batch, again.place, again.number, cost, now, queue_time)
            permit.again = again
            if isinstance(turn, Lane):
                batch.due -= 1
                turn.waiting -= 1
        else:
            place = turn.start()
            permit = self.keyring.permit(seat.key, batch, place, 1, cost, now, now - batch.came_at(place))
        if number:
            permit.path_class = number
            self.assigned_by_class[number] += 1
        if self._reserved:
            for reserved in self._reserved.values():
                if reserved.turn is not turn:
                    reserved.passed(seat, cost)
        batch.in_flight += 1
        self.in_flight += 1
        self.waiting -= 1
        self.assigned += 1
        size = self._size(number, cost) if self._sized else self._sizes[number][0]
        if turn.parked:
            self.queue.charge_parked(batch, size)  # its reservation was served
        else:
            self.queue.charge(size)
        self.keyring.paid(permit, seat, now)
        return permit

    def _set_aside(self, turn: Turn, now: int) -> bool:
        """If some keys have rejected the turn's next call, or nothing is left of them for calls like it: it waits for
        another key, or until something is left, and holds back no other call."""
        again = turn.again[0] if turn.again else None
        tried = 0 if again is None else again.tried
        path = turn.next_path if self.resources.until > now else ""
        if not tried and not (path and self.resources.mask(path, now)):
            return False
        batch = turn if isinstance(turn, Batch) else turn.batch
        cost = 1 if batch.costs is None else turn.next_cost
        seats = [seat for seat in self.keyring.seats_but(tried, turn.number) if seat.takes(cost, now)]
        if not seats:
            if again is None or not tried:
                return False
            again.tried = again.avoid = 0  # their limits have changed since
            return True
        if again is None:
            place = turn.start()
            again = Again(place, 1, now - batch.came_at(place), since=now)
        else:
            turn.again.popleft()
            if turn is not batch:
                batch.due -= 1
        at, index = min(
            (max(seat.fits_at(cost, now), self.resources.ends_at(path, seat.key.index)), seat.key.index)
            for seat in seats
        )
        at = self.resources.in_line(path, index, at)
        # If it fits as far as can be told, what holds it back ends with some call. All such calls wake us together.
        self.retries.add(batch, again, at if now < at < FAR else (now // LOOK_AGAIN + 1) * LOOK_AGAIN)
        return True

    def _size(self, number: int, cost: int) -> float:
        call_size, cost_size = self._sizes[number]
        return max(call_size, cost * cost_size)

    # -- reservations -------------------------------------------------------------------------

    def _held(self, turn: Turn) -> list[Reservation]:
        """The reservations that this turn's call must not delay: those of others that are older than its own."""
        return [*takewhile(lambda one: one.turn is not turn, self._reserved.values())]

    def _reserve(self, turn: Turn, now: int) -> bool:
        """Reserve for the turn's next call, which parks the turn; False: it fits nowhere as things stand."""
        reserved = reserve(turn, [key.seats[turn.number] for key in self.keys], now)
        if reserved is not None:
            self._reserved[turn.number] = reserved
        return reserved is not None

    def _serve_reserved(self, now: int, room: int, permits: list[Permit]) -> int:
        """Pay for the reserved calls that some key can pay for, and see to it that the other reservations still stand.
        Returns how many were paid for."""
        before = len(permits)
        for number, reserved in [*self._reserved.items()]:
            if len(permits) - before >= room:
                break
            turn = reserved.turn
            if not turn.has_work:
                self._unreserve(number)
                continue
            permit = self._pair(turn, now)
            if permit is not None:
                self._unreserve(number)
                permits.append(permit)
                continue
            if self._set_aside(turn, now):
                self._unreserve(number)
                continue
            self._starved = True
            renewed = reserved.renewed(now)  # answers have come since
            if renewed is not None:
                self._reserved[number] = renewed
            else:
                del self._reserved[number]
                if not self._reserve(turn, now):
                    self.queue.unpark(turn, waited=False)
        return len(permits) - before

    def _unreserve(self, number: int) -> None:
        self.queue.unpark(self._reserved.pop(number).turn)

    def __repr__(self) -> str:
        return f"<Scheduler of {self.pool.name}: {self.waiting} waiting, {self.in_flight} in flight>"
