"""The keys of a pool: which of them can pay for a call now, and what was paid.

Rule: the best key that can pay is the one with the most headroom (the free share of its tightest window; ties: more
free calls, then fewer in flight). Share and not count, so that a small fast limit isn't left idle beside a big slow
one. A call pays from its key's own budget and from every other that it meets (its group's; those of limits with
paths): all are taken together or none is.

For each path class the keys that can pay for its calls stand in a heap, best first (ready.py); everything that happens
by itself (a slot comes back, a pacer has room, a block ends) in one by time (alarms.py). Each pick costs O(log keys),
each slot group O(log keys) once. What other calls spend of a shared budget is seen when a key comes up, not before.

Owner: the scheduler. Not known here: batches, turns, who waits.

Over 400 lines: whatever happens to a key changes where it is listed, and that is kept in one place.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, ClassVar, Final

from apiflux_grpc.core.alarms import Alarms
from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.keys import GroupState, KeyState, Seat, Share
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.ready import Ready
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apiflux_grpc.core.borrowing import Borrowing
    from apiflux_grpc.core.bucket import PacerFactory
    from apiflux_grpc.core.classes import Classes
    from apiflux_grpc.core.model import Group, Limit, Pool
    from apiflux_grpc.core.ready import Entry
    from apiflux_grpc.core.reservation import Reservation

# So long after the cool-down of a rejected key a call that another key has rejected gives way to those that none has:
# as a probe it says little, and a few forbidden calls would be probe after probe until patience ends all calls.
GIVES_WAY: Final = SECOND


class Keyring:
    """The keys and groups of one pool. All instants are ns of one monotonic clock. `permit` is the kind that it wants
    to be paid with."""

    permit: ClassVar[type[Permit]] = Permit

    __slots__ = (
        "_alarms",
        "_beside",
        "_classes",
        "_jitter",
        "_make_pacer",
        "_passed",
        "_ready",
        "_spent_at",
        "groups",
        "keys",
    )

    def __init__(self, pool: Pool, classes: Classes, make_pacer: PacerFactory | None, now: int) -> None:
        self._classes = classes
        self._jitter = pool.arrival_jitter
        self._make_pacer = make_pacer
        self._spent_at = now if pool.begins_spent else None
        self.keys = [KeyState(index, key, self._budget(_of(key.limits, ()))) for index, key in enumerate(pool.keys)]
        self.groups: list[GroupState] = []
        self._beside: list[GroupState] = []  # the budgets beside those of the keys
        for key in self.keys:
            for paths in _scopes(key.key.limits):
                key.scoped[paths] = self._shared(key.key.limits, [key], paths)
        for group in pool.groups:
            self._add_group(group)
        for key in self.keys:
            key.seats = tuple(Seat(key, number) for number in range(classes.count))
            self._seat(key)
        self._ready = [Ready(len(pool.keys)) for _ in range(classes.count)]
        self._alarms: Alarms[KeyState | GroupState] = Alarms()
        self._passed: list[Entry] = []  # those off the heap while a key is looked for
        for key in self.keys:
            self._relist(key, now)
        if pool.begins_spent:
            for key in self.keys:
                self.refresh(key, now)
            for state in self._beside:
                self.refresh(state, now)

    def _budget(self, limits: Sequence[Limit]) -> Budget:
        if self._spent_at is None:
            return Budget(limits, self._jitter, self._make_pacer)
        # To it these limits are new, and so is all that was ever spent of them.
        return Budget((), self._jitter, self._make_pacer).changed(limits, self._spent_at)

    def _shared(self, limits: Sequence[Limit], members: Sequence[KeyState], paths: tuple[str, ...] = ()) -> GroupState:
        """The budget beside those of its members that is of the limits with these paths."""
        state = GroupState(self._budget(_of(limits, paths)), members, paths)
        self._beside.append(state)
        return state

    def _add_group(self, group: Group) -> None:
        members = [key for key in self.keys if key.key.label in group.keys]
        state = self._shared(group.limits, members)
        self.groups.append(state)
        scoped = {paths: self._shared(group.limits, members, paths) for paths in _scopes(group.limits)}
        for key in members:
            key.group, key.group_scoped = state, scoped

    def _seat(self, key: KeyState) -> None:
        """Name the budgets that calls of each class pay from with this key."""
        for seat in key.seats:
            met = self._classes.scopes(seat.number)
            others = [] if key.group is None else [key.group]
            others += [state for paths, state in key.scoped.items() if paths in met]
            others += [state for paths, state in key.group_scoped.items() if paths in met]
            seat.others = tuple(others)
            seat.shifts = bool(others) or len(key.seats) > 1

    def budgets(self) -> Iterator[Budget]:
        """All of them."""
        for key in self.keys:
            yield key.budget
        for state in self._beside:
            yield state.budget

    def seats_but(self, mask: int, number: int) -> Iterator[Seat]:
        """Those of a path class of all keys but those of `mask`, and those that are paused."""
        return (key.seats[number] for key in self.keys if not mask >> key.index & 1 and key.paused_at is None)

    def others_at(self, mask: int, number: int, now: int) -> int:
        """When some other key than those of `mask` may be used for calls of a path class, `now` at the earliest; FAR:
        there is none."""
        ready = (seat.usable_at(now) for seat in self.seats_but(mask, number))
        return min((at if at < FAR else now + 1 for at in ready), default=FAR)  # a probe may open it in a moment

    def unproven(self, now: int) -> int:
        """A bit for each rejected key that isn't for calls now that another key has rejected."""
        keys = (key for key in self.keys if key.breaker.state is not State.CLOSED)
        return sum(1 << key.index for key in keys if now < key.breaker.until + GIVES_WAY)

    @property
    def guessed_at(self) -> int | None:
        """Of the keys of which nobody knows until when a limit holds: when that was last refused which was longest ago;
        None: there is none."""
        owners = (one for key in self.keys if key.breaker.state is State.CLOSED for one in key.owners)
        return min((one.guessed_at for one in owners if one.guessed_at is not None), default=None)

    @property
    def borrowing(self) -> Borrowing | None:
        """What it borrows from a store; None: its budgets are its own."""
        return None

    # -- paying -------------------------------------------------------------------------------

    def find(self, number: int, cost: int, now: int, avoid: int, held: Sequence[Reservation]) -> Seat | None:
        """The best key for a call of this class and cost, the call taken from its own budget; None: none can pay.

        `avoid` has a bit for each key that is left out, `held` what others must leave room for. `paid` must follow.
        """
        ready = self._ready[number]
        heap = ready.heap
        passed = self._passed
        while heap:
            entry = heap[0]
            seat = entry[5]
            if entry[4] != seat.version:
                heappop(heap)  # the key has a newer entry, or is no longer listed
                continue
            key = seat.key
            if (avoid and avoid >> key.index & 1) or (held and not all(one.lets(seat, cost) for one in held)):
                passed.append(heappop(heap))
                continue
            if seat.shifts:
                share = seat.rank(now)[0]
                if -share > entry[0] + 1e-9:  # others have spent of it since
                    heappop(heap)
                    ready.list(seat, now)
                    continue
                if self._another_waits(seat, cost, now, entry):
                    continue
            budget = key.budget
            wait = budget.fits(cost, now)
            if not wait:
                budget.take(cost)
                return seat
            # It can't pay this cost now: off the heap until `wait`, or it would be asked again for every call.
            heappop(heap)
            if wait < key.wake:
                self._alarms.set(key, wait)
            if budget.by_cost and budget.rank(now)[1] > 0:
                passed.append(entry)  # has room, but not for this cost
            else:
                seat.listed = False
        self._put_back(heap)
        return None

    def _another_waits(self, seat: Seat, cost: int, now: int, entry: Entry) -> bool:
        """Whether a shared budget can't pay for this: its keys are listed again when something of it comes back."""
        for other in seat.others:
            wait = other.budget.fits(cost, now)
            if wait:
                heappop(self._ready[seat.number].heap)
                wait = min(wait, other.budget.next_change())
                if wait < other.wake:
                    self._alarms.set(other, max(wait, now + 1))
                if other.budget.by_cost and other.budget.rank(now)[1] > 0:
                    self._passed.append(entry)
                else:
                    seat.listed = False
                return True
        return False

    def paid(self, permit: Permit, seat: Seat, now: int) -> None:
        """The seat that `find` named has paid for this permit."""
        key, cost = seat.key, permit.cost
        if key.budget.told is not None:
            permit.mark = key.budget.mark(cost)
        if seat.others:
            for other in seat.others:
                other.budget.take(cost)
            permit.shares = tuple(Share(other, cost, now) for other in seat.others)
            for share in permit.shares:
                share.mark = share.owner.budget.mark(cost)
        key.in_flight += 1
        key.cost_in_flight += cost
        key.attempts += 1
        # `calm` is a closed breaker without a failure: then asking it is not worth a call.
        breaker, probing = key.breaker, False
        if breaker.calm:
            permit.key_era = breaker.era
        else:
            permit.key_era = breaker.began(now)
            probing = breaker.is_probe(permit.key_era)
        if key.block is not None:
            key.block.began(permit)
            probing |= key.block.probing
        ready = self._ready[seat.number]
        # A key that is being probed is off the heaps until its probe has ended.
        if key.in_flight < key.most and not probing:
            ready.relist_top(seat, now)
        else:
            ready.unlist_top(seat)
            self._unlist(key)
        if self._passed:
            self._put_back(ready.heap)
        if seat.others:
            for other in seat.others:
                if other.block is not None:
                    other.block.began(permit)
                    self._relist_members(other, now)

    def _put_back(self, heap: list[Entry]) -> None:
        for entry in self._passed:  # still good: nothing was taken of these keys
            heappush(heap, entry)
        self._passed.clear()

    # -- what becomes of a permit ---------------------------------------------------------------

    def sent(self, permit: Permit, at: int) -> None:
        """The permit's call went out at `at`."""
        key = permit.key
        end = key.budget.sent(permit, at)
        if end < key.wake:
            self._alarms.set(key, end)
        for share in permit.shares:
            end = share.owner.budget.sent(share, at)
            if end < share.owner.wake:
                self._alarms.set(share.owner, end)

    def settle(self, permit: Permit, now: int, answered_at: int | None, actual: int | None) -> None:
        """The attempt is over; see Scheduler.settle."""
        key = permit.key
        key.in_flight -= 1
        key.cost_in_flight -= permit.cost
        if permit.mark is not None:
            key.over(permit, answered=answered_at is not None)
        for share in permit.shares:
            if share.mark is not None and share.owner.over(share, answered=answered_at is not None):
                self._relist_members(share.owner, now)
        if permit.flight is None:
            key.budget.give_back(permit.cost, now, permit.taken_at)
            for share in permit.shares:
                share.owner.budget.give_back(permit.cost, now, permit.taken_at)
                self._relist_members(share.owner, now)
            self._relist(key, now)
            return
        if answered_at is not None:
            # An adapter's clock may be read after ours: an instant to come would put the log out of order.
            at = answered_at if answered_at < now else now
            end = key.budget.answered(permit, at, actual)
            if end < key.wake:
                self._alarms.set(key, end)
            for share in permit.shares:
                owner = share.owner
                end = owner.budget.answered(share, at, actual)
                if end < owner.wake:
                    self._alarms.set(owner, end)
                if actual is not None and actual < permit.cost:
                    self._relist_members(owner, now)
        # A listed key keeps its entry, though it has one call less in flight now: that is only a tie-break.
        for seat in key.seats:
            if not seat.listed:
                self._relist(key, now)
                break

    # -- what changes a key -------------------------------------------------------------------

    def change_limits(self, key: KeyState, limits: Sequence[Limit], now: int) -> None:
        """Other limits from now on; what was spent stays spent. Raises ValueError for paths that no limit had."""
        asked = self._known(limits)
        for paths in [paths for paths in asked if paths not in key.scoped]:
            key.scoped[paths] = self._shared((), [key], paths)
        self._change((key, *key.scoped.values()), limits, now)

    def change_group_limits(self, group: GroupState, limits: Sequence[Limit], now: int) -> None:
        """The same for the limits that some keys share."""
        asked = self._known(limits)
        members = group.members
        scoped = members[0].group_scoped
        for paths in [paths for paths in asked if paths not in scoped]:
            scoped[paths] = self._shared((), members, paths)
        for key in members:
            key.group_scoped = scoped
        self._change((group, *scoped.values()), limits, now)

    def change_max_in_flight(self, key: KeyState, most: int | None, now: int) -> None:
        """Another bound on its calls in flight, None: none; those that are go on."""
        key.key = replace(key.key, max_in_flight=most)
        key.most = FAR if most is None else most
        self.refresh(key, now)

    def _known(self, limits: Sequence[Limit]) -> list[tuple[str, ...]]:
        asked = _scopes(limits)
        known = {paths for number in range(self._classes.count) for paths in self._classes.scopes(number)}
        if unknown := [paths for paths in asked if paths not in known]:
            raise ValueError(f"no limit of the pool has these paths, so its calls aren't told apart by them: {unknown}")
        return asked

    def _change(self, owners: Sequence[KeyState | GroupState], limits: Sequence[Limit], now: int) -> None:
        for owner in owners:
            paths = owner.paths if isinstance(owner, GroupState) else ()
            owner.budget = self._changed(owner, _of(limits, paths), now)
        for key in {
            key: None for owner in owners for key in ([owner] if isinstance(owner, KeyState) else owner.members)
        }:
            self._seat(key)
        for owner in reversed(owners):
            self.refresh(owner, now)

    def _changed(self, owner: KeyState | GroupState, limits: Sequence[Limit], now: int) -> Budget:
        """Its budget with these limits."""
        return owner.budget.changed(limits, now)

    def pause(self, key: KeyState, now: int) -> None:
        """No call gets it until it is resumed; those that have it go on."""
        key.paused_at = now
        self._relist(key, now)

    def resume(self, key: KeyState, now: int) -> None:
        """Calls may get it again."""
        key.paused_at = None
        self.refresh(key, now)

    def rotate(self, key: KeyState, secret: str, now: int) -> None:
        """Another secret from the next permit on; calls that have a permit go with the old one. Nothing that the
        upstream says of that is held against the new one."""
        key.key = replace(key.key, secret=secret)
        key.breaker.renew()
        key.secret_era = key.breaker.era
        if key.shared is not None:
            key.shared.accepted(now)
        self.refresh(key, now)

    # -- what happens by itself -----------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Let slots come back and blocks end until `now`."""
        for one in self._alarms.ring(now):
            self.refresh(one, now)

    def next_at(self) -> int:
        """When something happens by itself; FAR: never."""
        return self._alarms.next_at()

    def refresh(self, one: KeyState | GroupState, now: int) -> None:
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
        for seat in key.seats:
            usable_at = seat.usable_at(now)
            if usable_at > now:
                self._ready[seat.number].unlist(seat)
                if usable_at < key.wake:
                    self._alarms.set(key, usable_at)
            elif key.in_flight < key.most and seat.rank(now)[1] > 0:
                self._ready[seat.number].list(seat, now)
            else:
                self._ready[seat.number].unlist(seat)

    def _unlist(self, key: KeyState) -> None:
        for seat in key.seats:
            self._ready[seat.number].unlist(seat)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self.keys)} keys>"


def _of(limits: Iterable[Limit], paths: tuple[str, ...]) -> tuple[Limit, ...]:
    return tuple(limit for limit in limits if limit.paths == paths)


def _scopes(limits: Iterable[Limit]) -> list[tuple[str, ...]]:
    """The different `paths` of these limits."""
    return [*dict.fromkeys(limit.paths for limit in limits if limit.paths)]
