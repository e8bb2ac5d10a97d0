"""Many deadlines, one timer.

Rule: nothing is rung before it is due by `clock` (a loop's timer may fire early; then it is set again), and at most
one tick late. Putting and taking back cost O(1), whatever number waits; most deadlines are taken back.

Lives on one event loop, that of the first `put`.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Wheel(Generic[T]):
    """Items that fall due, in ticks of `tick` ns; `ring` is called with those of one tick together."""

    __slots__ = ("_clock", "_ring", "_slots", "_tick", "_ticks", "_timer", "_timer_slot")

    def __init__(self, tick: int, clock: Callable[[], int], ring: Callable[[list[T]], None]) -> None:
        self._tick = tick
        self._clock = clock
        self._ring = ring
        self._slots: dict[int, dict[T, None]] = {}  # a dict for its order, and to take back in O(1)
        self._ticks: list[int] = []  # a heap of the slots
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def put(self, at: int, item: T) -> int:
        """`item` is due at `at` (ns). Returns the slot for `take_back`."""
        slot = -(-at // self._tick)  # rounded up: late by a part of a tick, and never early
        items = self._slots.get(slot)
        if items is None:
            items = self._slots[slot] = {}
            heappush(self._ticks, slot)
            if self._timer is None or slot < self._timer_slot:
                self._arm()
        items[item] = None
        return slot

    def take_back(self, slot: int, item: T) -> None:
        """`item` isn't due any more."""
        # An empty slot stays until its time: to look for it in the heap would cost more than to ring for nothing.
        items = self._slots.get(slot)
        if items is not None:
            items.pop(item, None)

    def close(self) -> list[T]:
        """Stop the timer; returns what was waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = [item for items in self._slots.values() for item in items]
        self._slots.clear()
        self._ticks.clear()
        return left

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = self._ticks[0]
        # For the earliest slot alone: one timer, however many wait. `_on_timer` sets the next.
        delay = max(0, self._timer_slot * self._tick - self._clock()) / 1e9
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None  # first: what is rung may put new items, which then set it
        now = self._clock()
        due: list[T] = []
        while self._ticks and self._ticks[0] * self._tick <= now:
            due += self._slots.pop(heappop(self._ticks))
        if due:
            self._ring(due)  # together: one pass of the loop, however many fall due at once
        if self._ticks and self._timer is None:
            self._arm()

    def __repr__(self) -> str:
        return f"<Wheel: {sum(map(len, self._slots.values()))} waiting>"
