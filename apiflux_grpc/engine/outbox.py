"""The door out: a bounded channel per batch from the engine to the stream that reads it.

Rule: a slow reader bounds its own batch. Per batch, places = free + in flight + waiting for a retry + kept + lent;
a place is taken when a call is first assigned and comes back by Credit, after the write of its result has
returned. A first attempt is assigned only if a place is free and `held bytes + in flight * expect < the bound`;
the strict `<` lets an empty outbox always start one call. `expect` rises to the largest result and falls by an
eighth towards the mean with each. A retry needs no new room, or ordered batches would deadlock.

What this allows is written to two fields of the batch. First attempts go up to `reach` in number; those of an ordered
batch also have an index below `edge`, since in lanes (core/lanes.py) later calls may pass earlier ones.

Owner: the engine's loop. A list of results is the server's once it was posted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.engine.messages import Standing

if TYPE_CHECKING:
    from apiflux_grpc.core.batch import Batch
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.ports import Attempt

PLACES: Final = 10_000
BYTES: Final = 8 << 20
FIRST_EXPECT: Final = 1024


class Outbox:
    """The results of one batch on their way, and its attempts that are in flight."""

    __slots__ = (
        "attempts",
        "batch",
        "bytes_bound",
        "due",
        "eta_posted",
        "ever_put",
        "expect",
        "held",
        "kept",
        "next_index",
        "ordered",
        "places",
        "posted_at",
        "queued",
        "ready",
        "ready_size",
        "stored",
        "total_size",
    )

    def __init__(self, batch: Batch, *, ordered: bool = False, places: int = PLACES, bytes_bound: int = BYTES) -> None:
        self.batch = batch
        self.ordered = ordered
        self.attempts: set[Attempt] = set()
        self.places = places
        self.bytes_bound = bytes_bound
        self.ever_put = 0  # results that were ever put in, and their bytes
        self.total_size = 0
        self.stored = 0  # results kept, ready or lent, and their bytes
        self.held = 0
        self.expect = FIRST_EXPECT
        self.ready: list[Result] = []
        self.ready_size = 0
        self.kept: dict[int, Result] = {}  # ordered: results whose turn has not come
        self.next_index = 0
        # The flusher's:
        self.posted_at = 0  # 0: nothing yet
        self.eta_posted = False
        self.queued = False
        self.due = 0
        self._make_room()

    def put(self, result: Result) -> bool:
        """The result of one call. True: there was no room for another call, and now there is."""
        size = result.size
        self.stored += 1
        self.held += size
        self.ever_put += 1
        self.total_size += size
        mean = self.total_size / self.ever_put
        self.expect = max(size, int(self.expect - (self.expect - mean) / 8), 1)
        if self.ordered:
            self.kept[result.index] = result
            while (kept := self.kept.pop(self.next_index, None)) is not None:
                self.next_index += 1
                self.ready.append(kept)
                self.ready_size += kept.size
        else:
            self.ready.append(result)
            self.ready_size += size
        return self._make_room()

    def credit(self, results: int, size: int) -> bool:
        """The reader has taken so many. Returns as `put` does."""
        self.stored -= results
        self.held -= size
        return self._make_room()

    def _make_room(self) -> bool:
        batch = self.batch
        by_bytes = -(-(self.bytes_bound - self.held) // self.expect)
        by_places = self.places - self.stored
        reach = batch.done + (by_places if by_places < by_bytes else by_bytes)
        opened = batch.reach <= batch.started < min(reach, batch.total)
        if self.ordered:
            edge = self.next_index + self.places
            if reach <= batch.done:
                # Results that wait for an earlier one may fill all places: the call that they wait for must go, and in
                # a batch of lanes, where others might go first, that call alone.
                reach, edge = batch.done + 1, self.next_index + 1
                opened = batch.reach <= batch.started < min(reach, batch.total)
            opened |= batch.laned and edge > batch.edge
            batch.edge = edge
        batch.reach = reach
        return opened

    def standing(self) -> Standing:
        """How the batch stands."""
        batch = self.batch
        return Standing(
            batch.done + batch.rejected,
            batch.in_flight,
            batch.eta,
            batch.held_by,
            batch.waits_for,
            batch.total + batch.rejected + batch.to_come,
            batch.rate,
        )

    def __repr__(self) -> str:
        return f"<Outbox of {self.batch!r}: {len(self.ready)} ready, {self.stored} stored, {self.held} bytes>"
