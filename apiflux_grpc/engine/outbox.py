"""The door out: a bounded channel per batch from the engine to the stream that reads it.

Rule: a slow reader bounds its own batch. Per batch, places = free + in flight + waiting for a retry + kept + lent;
a place is taken when a call is first assigned and comes back by Credit, after the write of its result has
returned. A first attempt is assigned only if a place is free and `held bytes + in flight * expect < the bound`;
the strict `<` lets an empty outbox always start one call. `expect` rises to the largest result and falls by an
eighth towards the mean with each. A retry needs no new room, or ordered batches would deadlock.

Owner: the engine's loop. A list of results is the server's once it was posted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch, Tally
from apiflux_grpc.engine.messages import Ending, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.call import Call
    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.messages import BatchSpec
    from apiflux_grpc.engine.ports import Attempt

PLACES: Final = 10_000
BYTES: Final = 8 << 20
FIRST_EXPECT: Final = 1024


class Outbox:
    """One open batch on the engine's side: its results on their way, and its attempts."""

    __slots__ = (
        "attempts",
        "batch",
        "bytes_bound",
        "closed",
        "cost",
        "due",
        "ending",
        "eta",
        "expect",
        "fed",
        "held",
        "kept",
        "late",
        "next_index",
        "places",
        "posted_at",
        "queued",
        "ready",
        "ready_size",
        "rejected",
        "spec",
        "stored",
        "tally",
        "total_size",
    )

    def __init__(self, id: int, spec: BatchSpec, now: int, *, places: int = PLACES, bytes_bound: int = BYTES) -> None:
        self.spec = spec
        self.batch = Batch(
            id,
            spec.caller,
            len(spec.calls),
            admitted_at=now,
            weight=spec.weight,
            costs=spec.costs,
        )
        # Of one call, on average; for estimates.
        self.cost = 1.0 if spec.costs is None else sum(spec.costs) / max(1, len(spec.costs))
        self.closed = not spec.fed
        self.rejected = 0  # calls that got their result without taking part
        self.fed: Fed | None = None
        if spec.fed:
            self.fed = Fed()
            self.batch.costs = self.fed.costs
            self.batch.since = self.fed.since
        self.tally = Tally(self.batch.total)
        self.attempts: set[Attempt] = set()
        self.ending: Ending | None = None  # set when it was cancelled or drained: nothing more is assigned
        self.places = places
        self.bytes_bound = bytes_bound
        self.late = 0  # attempts that were too late to be sent
        self.stored = 0  # results kept, ready or lent
        self.held = 0  # their bytes
        self.total_size = 0
        self.expect = FIRST_EXPECT
        self.ready: list[Result] = []
        self.ready_size = 0
        self.kept: dict[int, Result] = {}  # ordered: results whose turn has not come
        self.next_index = 0
        self.posted_at = 0  # 0: nothing yet
        self.queued = False
        self.due = 0
        self.eta: int | None = None
        self._make_room()

    @property
    def finished(self) -> bool:
        """Every call has its result, or the batch was cancelled and nothing is in flight any more."""
        if self.ending is Ending.CANCELLED:
            return not self.attempts
        if self.ending is Ending.INFEASIBLE:
            return True
        return self.closed and self.batch.done == self.batch.total

    def call(self, place: int) -> Call:
        """The call at a place of the batch, when its turn has come."""
        return self.spec.calls[place] if self.fed is None else self.fed.calls[place]

    def feed(self, calls: Sequence[tuple[int, Call, int]], now: int) -> None:
        """More calls; their places go on from the batch's total."""
        assert self.fed is not None
        for place, (index, call, cost) in enumerate(calls, self.batch.total):
            self.fed.calls[place] = call
            self.fed.costs[place] = cost
            self.fed.indexes[place] = index
            self.fed.since[place] = now
            self.cost += (cost - self.cost) / (place + 1)

    def put(self, result: Result) -> None:
        """The result of one call; `result.index` is its place in the batch."""
        if self.fed is not None:
            place = result.index
            del self.fed.calls[place], self.fed.costs[place], self.fed.since[place]
            result = result._replace(index=self.fed.indexes.pop(place))
        self.batch.done += 1
        self._store(result)

    def reject(self, result: Result) -> None:
        """The result of a call that never took part; `result.index` is its index."""
        self.rejected += 1
        self._store(result)

    def _store(self, result: Result) -> None:
        size = result.size
        self.stored += 1
        self.held += size
        self.total_size += size
        mean = self.total_size / (self.batch.done + self.rejected)
        self.expect = max(size, int(self.expect - (self.expect - mean) / 8), 1)
        if self.spec.ordered:
            self.kept[result.index] = result
            while (kept := self.kept.pop(self.next_index, None)) is not None:
                self.next_index += 1
                self.ready.append(kept)
                self.ready_size += kept.size
        else:
            self.ready.append(result)
            self.ready_size += size
        self._make_room()

    def credit(self, results: int, size: int) -> None:
        """The reader has taken so many."""
        self.stored -= results
        self.held -= size
        self._make_room()

    def _make_room(self) -> None:
        batch = self.batch
        started = batch.next_index - batch.done  # in flight, or waiting for a retry
        by_bytes = -(-(self.bytes_bound - self.held) // self.expect) - started
        by_places = self.places - started - self.stored
        batch.room = by_places if by_places < by_bytes else by_bytes

    def standing(self) -> Standing:
        return Standing(self.batch.done + self.rejected, self.batch.in_flight, self.eta)

    def __repr__(self) -> str:
        return f"<Outbox of {self.batch!r}: {len(self.ready)} ready, {self.stored} stored, {self.held} bytes>"


class Fed:
    """The calls of a batch that is fed, by their place; each only until it has its result."""

    __slots__ = ("calls", "costs", "indexes", "since")

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.costs: dict[int, int] = {}
        self.since: dict[int, int] = {}  # when it came
        self.indexes: dict[int, int] = {}  # what the caller knows a place as
