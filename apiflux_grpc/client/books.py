"""The calls of a batch that have no result yet, over all connections, to one server or to several.

Rules:
- A call is in one place at a time: `ready`, or with the one connection that it was handed to (client/accounts.py), or
  it has its result. It moves in one step, under the one thread or lock that owns the batch: `hand_out` takes it from
  `ready`, `give_back` returns it there, `settle` gives it its result. So no two connections have the same call, and
  none gets two results. Only a call that was given back can run twice; accounts.py says which ones are.
- Results in order wait here for their turn, from whichever connection they come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apiflux_grpc.client.calls import to_message
from apiflux_grpc.client.feed import BYTES_PER_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from apiflux_grpc.client.calls import AnyCall
    from apiflux_grpc.v1 import apiflux_pb2 as pb

WINDOW_BYTES: Final = 64 << 20  # of calls without a result; a single call may be larger


@dataclass(slots=True)
class Item:
    """A call without a result."""

    index: int  # of the whole, over all connections
    call: pb.Call
    size: int  # in bytes, as a message


class Books:
    """What is known of each call that was taken from the producer and has no result yet."""

    def __init__(self, ordered: bool = False) -> None:
        self.ready: deque[Item] = deque()  # may be handed out now, in their order
        self.open = 0  # calls that connections have
        self.stopped = False  # nothing more is handed out
        self.taken = 0  # from the producer
        self.delivered = 0
        self._bytes = 0  # of the open ones
        self._held: dict[int, pb.CallResult] | None = {} if ordered else None
        self._next = 0  # of the next result, if they come in order

    @property
    def waiting(self) -> int:
        """Calls that take room: handed out, or with a result whose turn hasn't come."""
        return self.open + len(self._held or ())

    @property
    def left(self) -> int:
        """Calls that have no result."""
        return len(self.ready) + self.open

    @property
    def is_settled(self) -> bool:
        """Every call taken so far has its result."""
        return not self.ready and not self.open

    def take(self, calls: Iterable[AnyCall]) -> None:
        """More calls of the producer's."""
        for call in calls:
            message = to_message(call)
            self.ready.append(Item(self.taken, message, message.ByteSize()))
            self.taken += 1

    def next(self, most: int) -> list[int]:
        """The indexes of what can go into one message now, `most` at most."""
        some: list[int] = []
        size = 0
        for item in self.ready:
            size += item.size
            alone = not some and not self.open
            if len(some) >= most or (not alone and self._bytes + size > WINDOW_BYTES):
                break
            if some and size > BYTES_PER_MESSAGE:
                break
            some.append(item.index)
        return some

    def hand_out(self, indexes: AbstractSet[int]) -> Sequence[Item]:
        """These calls, which were ready. Whoever has them now gives them back, or gives them their results."""
        items: list[Item] = []
        while self.ready and len(items) < len(indexes) and self.ready[0].index in indexes:
            items.append(self.ready.popleft())
        if len(items) < len(indexes):  # others came back meanwhile, and stand before them
            items += [item for item in self.ready if item.index in indexes]
            self.ready = deque(item for item in self.ready if item.index not in indexes)
        self.open += len(items)
        self._bytes += sum(item.size for item in items)
        return items

    def give_back(self, items: Sequence[Item]) -> None:
        """These were handed out, and may be again."""
        if items:
            self._close(items)
            self.ready = deque(sorted([*items, *self.ready], key=lambda item: item.index))

    def settle(self, items: Sequence[Item], results: list[pb.CallResult]) -> list[pb.CallResult]:
        """These were handed out, and have their results; what is returned can be delivered now."""
        self._close(items)
        if self._held is not None:
            self._held.update((result.index, result) for result in results)
            results = []
            while self._next in self._held:
                results.append(self._held.pop(self._next))
                self._next += 1
        self.delivered += len(results)
        return results

    def rest(self) -> list[pb.CallResult]:
        """Results whose turn never comes, since a call before them has none."""
        held, self._held = self._held or {}, None
        self.delivered += len(held)
        return [held[index] for index in sorted(held)]

    def _close(self, items: Sequence[Item]) -> None:
        self.open -= len(items)
        self._bytes -= sum(item.size for item in items)
