"""The exact sliding window, as a grouped log.

Rule: in no half-open window (t, t + per] are more than `max` taken, whatever the order of events; when in doubt a
slot comes back later, never earlier. Everything is an integer: in floats `last + per <= now` and `a <= now - per`
round differently, and the same algorithm reads as 1.05 of its limit.

A slot is *taken* without an end. Once the call's instant is known (its arrival, at the latest: budget.py says
which) it joins the newest group of the log, unless that group would then span more than per/128; a group ends
`per` after its *last* instant. That costs at most 0.8 % of the steady rate (nothing when work queues up, for then
instants bunch) and bounds the log at 130 groups, whatever `max` is.

Not known here: keys, calls, clocks.
"""

from __future__ import annotations

from collections import deque
from typing import Final

GROUPS: Final = 128
DRIFT: Final = 10_000  # clocks' rates differ by up to 1 in DRIFT; each window is kept that much longer


class Window:
    """At most `max` in any window of `per` ns."""

    __slots__ = ("_log", "kept", "max", "per", "span", "used")

    def __init__(self, max: int, per: int) -> None:
        self.max = max
        self.per = per
        self.kept = per + per // DRIFT + 1
        self.span = per // GROUPS
        self.used = 0  # taken and not yet come back
        # [end of the group, amount, end of its first member]
        self._log: deque[list[int]] = deque()

    @property
    def free(self) -> int:
        """What may still be taken; below 0 while a corrected cost is paid off."""
        return self.max - self.used

    def record(self, instant: int, amount: int) -> int:
        """Give `amount` of what was taken its end: `instant + per`, or later. Returns when the log next frees some."""
        log = self._log
        end = instant + self.kept
        if log:
            tail = log[-1]
            if end - tail[2] <= self.span:
                tail[1] += amount
                if end > tail[0]:
                    tail[0] = end
                return log[0][0]
        log.append([end, amount, end])
        return log[0][0]

    def expire(self, now: int) -> None:
        """Take back what has ended by `now`."""
        log = self._log
        while log and log[0][0] <= now:
            self.used -= log.popleft()[1]

    @property
    def next_end(self) -> int | None:
        """When the log next frees something; None: nothing is in it."""
        return self._log[0][0] if self._log else None

    def ends(self) -> list[tuple[int, int]]:
        """(end, amount) of every group, oldest first; for forecasts."""
        return [(group[0], group[1]) for group in self._log]

    def __repr__(self) -> str:
        return f"<Window {self.used}/{self.max} per {self.per / 1e9:g} s, {len(self._log)} groups>"
