"""The right to make one call with one key now.

Rule: a permit names the one key and the one call that it pays for: a call can't go out uncounted, and a key can't be
forgotten on its way upstream. Made by the scheduler alone, charged before it is handed out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiflux_grpc.core.batch import Again, Batch
    from apiflux_grpc.core.flight import Flight
    from apiflux_grpc.core.keys import GroupState, KeyState, Share
    from apiflux_grpc.core.told import Mark


class Permit:
    """One call, one key, one instant (ns)."""

    __slots__ = (
        "again",
        "batch",
        "cost",
        "flight",
        "key",
        "key_era",
        "mark",
        "number",
        "path_class",
        "place",
        "pool_era",
        "queue_time",
        "sent_at",
        "shares",
        "taken_at",
    )

    def __init__(
        self, key: KeyState, batch: Batch, place: int, number: int, cost: int, taken_at: int, queue_time: int
    ) -> None:
        self.key = key
        self.batch = batch
        self.place = place
        self.number = number  # 1 for the first attempt
        self.again: Again | None = None  # what the call waited as; None: it is its first attempt
        self.cost = cost
        self.taken_at = taken_at
        self.queue_time = queue_time
        self.flight: Flight | None = None  # set when it was sent
        self.sent_at = -1  # -1: not yet
        self.key_era = 0  # of the key's breaker, and of the pool's
        self.pool_era = 0
        self.mark: Mark | None = None  # its place among the calls of its key, once the upstream has told of a limit
        self.path_class = 0
        self.shares: tuple[Share, ...] = ()  # what it takes of budgets beside its key's own

    @property
    def owners(self) -> list[KeyState | GroupState]:
        """Whose limits the call meets: its key's, its group's, those with its path."""
        return [self.key, *(share.owner for share in self.shares)]

    @property
    def calm(self) -> bool:
        """Nothing holds its key back from such calls, and nothing went wrong: a success has nothing to say."""
        return self.key.calm and all(share.owner.block is None for share in self.shares)

    @property
    def send_within(self) -> int | None:
        """How long (ns) after `taken_at` the call may still be written; None: as long as its timeout.

        A bucket's pacer counts from the permit, so the wait for a connection is a part of the arrival margin.
        """
        budget = self.key.budget
        paced = budget.buckets or (self.shares and any(share.owner.budget.buckets for share in self.shares))
        return budget.jitter // 2 if paced else None

    def __repr__(self) -> str:
        return f"<Permit {self.key.key.label} call {self.place} attempt {self.number} of {self.batch!r}>"
