"""The exact sliding window, as a grouped log.

Rule: in no half-open window (t, t + per] are more than `max` taken, whatever the order of events; when in doubt a
slot comes back later, never earlier. Everything is an integer: in floats `last + per <= now` and `a <= now - per`
round differently, and the same algorithm reads as 1.05 of its limit.

A slot is *taken* without an end. Once the call's instant is known (its arrival, at the latest: budget.py says
which) it joins the newest group of the log, unless that group would then span more than per/128; a group ends
`per` after its *last* instant. That costs at most 0.8 % of the steady rate (nothing when work queues up, for then
instants bunch) and bounds the log at 130 groups, whatever `max` is.

`max` may be cut below `nominal` when the upstream refuses though the limit was kept, and comes back in steps.

Not known here: keys, calls, clocks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS: Final = 128
CUT: Final = 0.7  # what is left of `max` after a cut
STEP: Final = 20  # nominal / STEP comes back in each window without another
ALWAYS: Final = -(1 << 62)
DRIFT: Final = 10_000  # clocks' rates differ by up to 1 in DRIFT; each window is kept that much longer


class Window:
    """At most `max` in any window of `per` ns."""

    __slots__ = ("_log", "cut_at", "kept", "max", "nominal", "others", "per", "recover_at", "since", "span", "used")

    def __init__(self, max: int, per: int) -> None:
        self.max = max
        self.nominal = max
        self.cut_at = -1
        self.recover_at = 0
        self.per = per
        self.kept = per + per // DRIFT + 1
        self.span = per // GROUPS
        self.used = 0  # taken and not yet come back, and what others take
        self.others = 0
        self.since = ALWAYS  # an heir's: from when on all that was taken is known to it
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
        # In whole steps since then, however long nobody looked.
        if self.max < self.nominal and now >= self.recover_at:
            steps = 1 + (now - self.recover_at) // self.kept
            self.max = min(self.nominal, self.max + steps * max(1, self.nominal // STEP))
            self.recover_at += steps * self.kept

    def correct(self, entry: list[int], now: int, difference: int) -> None:
        """A call whose slot is in `entry` (or was) took `difference` more than was taken for it, or less."""
        # Its group may have ended: then there is nothing left to lower, and what it took more begins to count now.
        if self.has(entry):
            entry[1] += difference
            self.used += difference
        elif difference > 0:
            self.used += difference
            self.record(now, difference)

    def cut(self, now: int, taken_at: int) -> bool:
        """The upstream refused a call taken at `taken_at`: allow less, once per window; False: it was cut already."""
        self.recover_at = now + self.kept
        # Calls from before the last cut say nothing of it; and one cut per window, or a burst of refusals leaves 1.
        if self.cut_at >= 0 and (taken_at <= self.cut_at or now < self.cut_at + self.per):
            return False
        self.cut_at = now
        self.max = max(1, int(self.max * CUT))
        return True

    @property
    def cut_off(self) -> tuple[int, int]:
        """(what refusals have cut of it, when all of that is back)."""
        return self.nominal - self.max, self.back_at(self.nominal)

    def follow_cut(self, amount: int, until: int, now: int) -> None:
        """Another process cut it, by so much at first; all of that is back by `until`."""
        steps = -(-max(0, until - now) // self.kept)
        less = min(amount, steps * max(1, self.nominal // STEP), self.nominal - 1)
        if less > self.nominal - self.max:
            self.max, self.cut_at = self.nominal - less, now
        if self.max < self.nominal:
            self.recover_at += max(0, until - self.back_at(self.nominal))

    def heir(self, limit_max: int, per: int, now: int, pending: int) -> Window:
        """The window of a changed limit: what this one knows of still counts, and what it can't know is used.

        `pending` is what was taken and has no end yet.
        """
        new = Window(limit_max, per)
        new.since = self.knows_from(now)
        if new.since > now - per:
            # Before that anything may have happened, up to the new limit. An heir that is changed in its turn knows
            # no more than its own ancestor did, however long it is.
            known = sum(amount for _, amount, _ in self._log) + pending
            unknown = max(0, limit_max - known)
            if unknown:
                new.used += unknown
                new.record(new.since, unknown)
        longer = new.kept - self.kept
        for end, amount, first in self._log:
            if end + longer > now:
                new.used += amount
                new._log.append([end + longer, amount, first + longer])
        new.used += pending
        return new

    def knows_from(self, now: int) -> int:
        """From when on everything that was taken is in the log, or has no end yet."""
        return max(self.since, now - self.kept)

    def back_at(self, amount: int) -> int:
        """When `max`, which was cut, is `amount` again, if it isn't cut once more."""
        steps = -(-(amount - self.max) // max(1, self.nominal // STEP))
        return self.recover_at + (steps - 1) * self.kept

    def set_others(self, amount: int) -> None:
        """So much of it is used by others, for all that is known."""
        self.used += amount - self.others
        self.others = amount

    def ends_by(self, at: int) -> int:
        """How much comes back by `at`, if every member of a group did at its own instant."""
        total = 0
        for _, amount, first in self._log:
            if first > at:
                break
            total += amount
        return total

    def entry_of(self, instant: int) -> list[int] | None:
        """The entry that has what was recorded for this instant; None: it has ended."""
        end = instant + self.kept
        return next((entry for entry in reversed(self._log) if entry[2] <= end), None)

    def has(self, entry: list[int]) -> bool:
        """Whether what is in `entry` hasn't ended yet."""
        return bool(self._log) and entry[0] >= self._log[0][0]

    @property
    def newest(self) -> list[int]:
        """The entry that the last `record` went to; for `correct`."""
        return self._log[-1]

    @property
    def next_end(self) -> int | None:
        """When something next comes back by itself; None: nothing will."""
        end = self._log[0][0] if self._log else None
        if self.max < self.nominal and (end is None or self.recover_at < end):
            return self.recover_at
        return end

    def ends(self) -> Iterator[tuple[int, int]]:
        """(end, amount) of every group, oldest first; for forecasts."""
        return ((group[0], group[1]) for group in self._log)

    def __repr__(self) -> str:
        return f"<Window {self.used}/{self.max} per {self.per / 1e9:g} s, {len(self._log)} groups>"
