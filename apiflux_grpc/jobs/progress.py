"""How far a job is and what it waits for: what a bar, or a line now and then, says of it.

Rules:
- When it ends and how fast it goes is what the server says, never a guess from how fast it went: calls go out in
  bursts, and from one burst a minute's wait would look like a second.
- The server's time counts only if it is for all calls that are left. Otherwise none is told.
- A wait that goes on without calls that end is told with its reason.

Instants are seconds of one clock. Not known here: how it is shown (screen.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.jobs.words import clock_time, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.client.results import Held
    from apiflux_grpc.client.results import Progress as Told

STILL: Final = 2.0  # seconds without a result after which calls in flight are told to be what is waited for
_SLOWER: Final = frozenset({"LOWER_LIMIT", "OTHERS"})  # these only slow a key down


class Shown(Protocol):
    """What can be shown: `share` is how much of it is done, 0 to 1; None: not known."""

    @property
    def share(self) -> float | None: ...

    def figures(self, now: float) -> str:
        """How far it is, in a few words."""
        ...

    def why(self, now: float) -> str:
        """What it waits for; "": nothing worth a word."""
        ...


class Reading:
    """A file that is read before anything is sent; `share` says how much of it was, None: nobody knows."""

    def __init__(self, what: str, share: Callable[[], float] | None = None) -> None:
        self._what = what
        self._share = share

    @property
    def share(self) -> float | None:
        return None if self._share is None else self._share()

    def figures(self, now: float) -> str:
        share = self.share
        return f"{self._what} ..." if share is None else f"{self._what} ... {share:.0%}"

    def why(self, now: float) -> str:
        return ""


class Progress:
    """How the calls of a job stand: `total` of them, None: not known; `done` have their result, in earlier runs too."""

    def __init__(self, total: int | None, now: float, done: int = 0) -> None:
        self.total = total
        self.done = done
        self._moved_at = now
        self._told: Told | None = None
        self._told_at = now

    def heard(self, done: int, told: Told | None, now: float) -> None:
        """So many calls have their result by now; and what the server last said."""
        if done != self.done:
            self.done, self._moved_at = done, now
        if told is not self._told:
            self._told, self._told_at = told, now

    @property
    def share(self) -> float | None:
        return None if self.total is None else min(1.0, self.done / max(1, self.total))

    def left(self, now: float) -> float | None:
        """Seconds until the last result; None: not known."""
        told = self._told
        if told is None or told.eta is None or self.total is None:
            return None
        if self.done + told.total - told.done < self.total:
            return None  # it isn't for calls that the server doesn't know of
        return max(0.0, told.eta - (now - self._told_at))

    def figures(self, now: float) -> str:
        parts = [f"{self.done:,} done" if self.total is None else f"{self.done:,} of {self.total:,}"]
        if (left := self.left(now)) is not None and self.done != self.total:
            parts.append(f"{clock_time(left)} left")
        return ", ".join(parts)

    def why(self, now: float) -> str:
        told = self._told
        if told is None:
            return ""
        reasons = [_reason(held) for held in told.held_by]
        if not reasons and told.in_flight and now - self._moved_at >= STILL:
            reasons.append(f"waiting for {counted(told.in_flight, 'answer')}")
        return "; ".join(reasons)


def _reason(held: Held) -> str:
    if held.key_count == 0 or held.cause in _SLOWER:
        return str(held)
    who = f"{held.key_count} keys" if held.key_count > 1 else held.keys[0]
    return f"{who} {held.reason}" if held.cause == "KEY_REJECTED" else f"{who}: {held.reason}"
