"""A place for a call that no key can pay for yet.

Rule: a large cost must not starve among small ones (of a thousand calls six hundred never ran in twenty minutes). The
first call in turn that doesn't fit gets the key where it fits soonest, and others may pass it only if they don't delay
it: out of what each budget that it will pay from can spare until then.

One reservation for each path class, the oldest first: its call minds nobody, and a younger one must not delay an older.
So no two can wait for each other; and a class whose own limit is used up for long doesn't keep the others' large calls
from a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.room import spare_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.keys import GroupState, KeyState, Seat
    from apiflux_grpc.core.lanes import Turn


@dataclass(slots=True)
class Reservation:
    """The next call of `turn` will be paid by the key of `seat` at about `at`.

    `spare` has what others may still take until then, (calls, cost), of each budget that it will pay from.
    """

    turn: Turn
    cost: int
    seat: Seat
    at: int
    spare: dict[KeyState | GroupState, list[int]]

    def lets(self, seat: Seat, cost: int) -> bool:
        """Whether another call may be paid by this seat's key."""
        # Another member of its group may go too, if the group has enough for both.
        return all(left[0] >= 1 and left[1] >= cost for left in self._met(seat))

    def passed(self, seat: Seat, cost: int) -> None:
        """Another call was paid by this seat's key."""
        for left in self._met(seat):
            left[0] -= 1
            left[1] -= cost

    def _met(self, seat: Seat) -> list[list[int]]:
        return [self.spare[owner] for owner in (seat.key, *seat.others) if owner in self.spare]

    def renewed(self, now: int) -> Reservation | None:
        """The same with what is spare now; None: it can't be kept any more, for the call is another or comes later."""
        cost = self.turn.next_cost
        # Answers have come since: what is free is more, and a cost that was corrected may have made it less.
        at = self.seat.fits_at(cost, now)
        if cost != self.cost or at > max(self.at, now):
            return None
        return _reservation(self.turn, cost, self.seat, at, now)


def reserve(turn: Turn, seats: Sequence[Seat], now: int) -> Reservation | None:
    """For the turn's next call: the key where it fits soonest; None: it fits nowhere as things stand."""
    cost = turn.next_cost
    best, best_at = seats[0], FAR
    for seat in seats:
        at = seat.fits_at(cost, now)
        if at < best_at:
            best, best_at = seat, at
    return None if best_at >= FAR else _reservation(turn, cost, best, best_at, now)


def _reservation(turn: Turn, cost: int, seat: Seat, at: int, now: int) -> Reservation:
    owners: tuple[KeyState | GroupState, ...] = (seat.key, *seat.others)
    return Reservation(turn, cost, seat, at, {owner: [*spare_at(owner.budget, at, cost, now)] for owner in owners})
