"""A place for a call that no key can pay for yet.

Rule: a large cost must not starve among small ones (of a thousand calls six hundred never ran in twenty minutes). The
first call in turn that doesn't fit gets the key where it fits soonest, and others may pass it only if they don't delay
it: out of `spare`, what that key, and its group, can give until then and still have room for it.

One reservation per pool: a second one could only make both wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiflux_grpc.core.bucket import FAR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.batch import Batch
    from apiflux_grpc.core.keys import KeyState


@dataclass(slots=True)
class Reservation:
    """The next call of `batch` will be paid by `key` at about `at`.

    `spare` and `group_spare` are (calls, cost) that others may still take of the key, and of its group, until then.
    """

    batch: Batch
    cost: int
    key: KeyState
    at: int
    spare: list[int]
    group_spare: list[int]

    def lets(self, key: KeyState, cost: int) -> bool:
        """Whether another call may be paid by this key."""
        if key is self.key and (self.spare[0] < 1 or self.spare[1] < cost):
            return False
        # Another member of the group may go too, if the group has enough for both.
        group = self.key.group
        return group is None or key.group is not group or (self.group_spare[0] >= 1 and self.group_spare[1] >= cost)

    def passed(self, key: KeyState, cost: int) -> None:
        """Another call was paid by this key."""
        if key is self.key:
            self.spare[0] -= 1
            self.spare[1] -= cost
        if key.group is not None and key.group is self.key.group:
            self.group_spare[0] -= 1
            self.group_spare[1] -= cost

    def renewed(self, now: int) -> Reservation | None:
        """The same with what is spare now; None: it can't be kept any more, for the call is another or comes later."""
        cost = self.batch.next_cost
        # Answers have come since: what is free is more, and a cost that was corrected may have made it less.
        at = self.key.fits_at(cost, now)
        if cost != self.cost or at > max(self.at, now):
            return None
        return _reservation(self.batch, cost, self.key, at, now)


def reserve(batch: Batch, keys: Sequence[KeyState], now: int) -> Reservation | None:
    """For the batch's next call: the key where it fits soonest; None: it fits nowhere as things stand."""
    cost = batch.next_cost
    best, best_at = keys[0], FAR
    for key in keys:
        at = key.fits_at(cost, now)
        if at < best_at:
            best, best_at = key, at
    return None if best_at >= FAR else _reservation(batch, cost, best, best_at, now)


def _reservation(batch: Batch, cost: int, key: KeyState, at: int, now: int) -> Reservation:
    spare = key.budget.spare_at(at, cost, now)
    group_spare = (FAR, FAR) if key.group is None else key.group.budget.spare_at(at, cost, now)
    return Reservation(batch, cost, key, at, list(spare), list(group_spare))
