"""Calls that are forbidden with every key: their rejections say nothing of the keys.

Rule: a key that works for another call after it rejected one shows that this call is forbidden. No other key is to
blame for having rejected it too: what was counted against that key for this call is taken back, also if its breaker is
open because of it. Else whoever was given forbidden calls alone, by chance, would be left alone for up to ten minutes.

Kept are only rejections that count against some key, since it last worked: a handful for each. What a key that is
really rejected is charged with are calls that others don't reject, and these stay.

Owner: the pool's health. Not known here: breakers, time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Rejected = tuple[int, int]  # a call: the batch's id, its place
MOST: Final = 64  # of one key: one that is rejected for weeks is charged with each probe


class Rejections:
    """Who rejected what, by the keys' places in the pool."""

    __slots__ = ("_charged", "_too")

    def __init__(self) -> None:
        self._charged: dict[int, dict[Rejected, None]] = {}  # what counts against a key
        self._too: dict[int, dict[Rejected, None]] = {}  # what it rejected after another key was charged with it

    def charged(self, key: int, call: Rejected) -> None:
        """The key's rejection of this call counts against it."""
        calls = self._charged.setdefault(key, {})
        calls[call] = None
        if len(calls) > MOST:
            del calls[next(iter(calls))]

    def rejected_too(self, key: int, call: Rejected) -> None:
        """The key rejected a call that others had rejected before; that doesn't count against it."""
        if any(call in calls for calls in self._charged.values()):
            self._too.setdefault(key, {})[call] = None

    def worked(self, key: int) -> Iterator[tuple[int, int]]:
        """The key worked for another call: (key, how many) of the charges that are taken back of others."""
        calls = self._charged.pop(key, {}) | self._too.pop(key, {})
        for other, charges in [*self._charged.items()]:
            if forbidden := charges.keys() & calls:
                for call in forbidden:
                    del charges[call]
                yield other, len(forbidden)

    def __repr__(self) -> str:
        return f"<Rejections of {len(self._charged)} keys>"
