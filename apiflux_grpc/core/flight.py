"""Calls that were sent and have no answer yet.

Rule: calls of one owner that went out at about the same instant are one flight, so that a hanging call costs nothing
and ends by itself: when its J has passed, the whole flight moves into the logs of the windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from apiflux_grpc.core.told import Mark
    from apiflux_grpc.core.window import Window


class Part(Protocol):
    """One call's part in one budget: a permit, or what it takes of its key's group."""

    cost: int
    taken_at: int
    flight: Flight | None
    mark: Mark | None


class Flight:
    """Calls of one owner that were sent at about the same time and have no answer yet."""

    __slots__ = ("calls", "cost", "first", "gone", "landed", "last", "windows")

    def __init__(self, at: int) -> None:
        self.first = self.last = at
        self.calls = 0
        self.cost = 0
        self.gone = False  # its J has passed: its calls are in the logs
        self.landed: list[list[int]] = []  # where, for each of the cost windows
        self.windows: tuple[Window, ...] = ()  # of the budget as it was then


UNCOUNTED: Final = Flight(0)  # of an owner without windows
UNCOUNTED.gone = True
