"""How far a job is and what it waits for: what a bar, or a line now and then, says of it.

Rules:
- When it ends and how fast it goes is what the server says, never a guess from how fast it went: calls go out in
  bursts, and from one burst a minute's wait would look like a second.
- The server's time counts only if it is for all calls that are left. Otherwise none is told.
- While nothing moves, it is told what is waited for.

Instants are seconds of one clock. Not known here: how it is shown (screen.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.client import Overloaded
from apiflux_grpc.core.units import SECOND, counted, spoken
from apiflux_grpc.jobs.words import clock_time, rate, whole_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.client import ApifluxError
    from apiflux_grpc.client.results import Held
    from apiflux_grpc.client.results import Progress as Told

STILL: Final = 2.0  # seconds without a result after which something is told to be waited for
LONG: Final = 1.0  # seconds; a limit that is waited for at least so long is told at once
_SLOWER: Final = frozenset({"LOWER_LIMIT", "OTHERS"})  # these only slow a key down


class Shown(Protocol):
    """What can be shown: `share` is how much of it is done, 0 to 1; None: not known."""

    @property
    def share(self) -> float | None: ...

    def figures(self, now: float) -> str:
        """How far it is, in a few words."""
        ...

    def why(self, now: float) -> list[str]:
        """What it waits for; empty: nothing worth a word."""
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

    def why(self, now: float) -> list[str]:
        return []


class Progress:
    """How the calls of a job stand: `total` of them, None: not known; `done` have their result, in earlier runs too.

    `to_send` is how many calls this run sends, which may be fewer than have no result. `is_ending` says whether it was
    told to end: then only what is in flight is waited for.
    """

    def __init__(
        self,
        total: int | None,
        now: float,
        done: int = 0,
        to_send: int | None = None,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.total = total
        self.done = done
        self._is_ending = is_ending
        self._to_send = to_send
        self._lost_at: float | None = None
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
        if told is None or told.eta is None or self._to_send is None or self._is_failing():
            return None
        if told.total + told.to_come < self._to_send:
            return None  # a server that wasn't told, or doesn't understand, how many are left
        return max(0.0, told.eta - (now - self._told_at))

    def figures(self, now: float) -> str:
        parts = [f"{self.done:,} done" if self.total is None else f"{self.done:,} of {self.total:,}"]
        if self._told is not None and self._lost_at is None and self.done != self.total and not self._is_ending():
            if self._told.rate and not self._is_failing():
                parts.append(rate(self._told.rate))
            if (left := self.left(now)) is not None:
                parts.append(f"{clock_time(left)} left")
        return ", ".join(parts)

    def _is_failing(self) -> bool:
        """The upstream fails: what the server reckons is for the case that its next try succeeds."""
        return self._told is not None and any(held.cause == "UPSTREAM_FAILING" for held in self._told.held_by)

    def connection(self, error: ApifluxError | None, now: float) -> str:
        """The server was lost, or is there again: what is to be said of it."""
        if error is None:
            since, self._lost_at, self._moved_at = self._lost_at, None, now
            return (
                "the server is back"
                if since is None
                else f"the server is back after {spoken(round((now - since) * SECOND))}"
            )
        self._lost_at = now
        if isinstance(error, Overloaded):
            return f"the server takes no more for now ({error}); trying again"
        how = "is shutting down" if error.reason == "DRAINING" else "is gone"
        return f"the server {how}; waiting for it to come back"

    def why(self, now: float) -> list[str]:
        if self._lost_at is not None:
            return [f"waiting for the server, {whole_seconds(now - self._lost_at)} s so far"]
        told = self._told
        if told is None:
            return []
        if self._is_ending():
            return [f"waiting for {counted(told.in_flight, 'answer')}"] if told.in_flight else []
        passed = now - self._told_at
        reasons = [_reason(held, passed) for held in told.held_by]
        is_still = now - self._moved_at >= STILL
        wait = told.waits_for
        if wait is not None and (is_still or (wait.wait is not None and wait.wait - passed >= LONG)):
            reasons.append(f"waiting for {wait.reason}{_in(wait, passed, ', {} s')}")
        elif not reasons and told.in_flight and is_still:
            reasons.append(f"waiting for {counted(told.in_flight, 'answer')}")
        elif is_still and self.total is None and told.done == told.total:
            reasons.append("waiting for the input")  # a pipe whose writer takes its time
        return reasons


def _reason(held: Held, passed: float) -> str:
    """What holds keys back, in the words of the server, with the keys; it was told so many seconds ago."""
    if held.cause == "UPSTREAM_FAILING":
        return held.reason  # with its time
    who = f"{held.key_count} keys" if held.key_count > 1 else held.keys[0] if held.keys else ""
    words = f"{who} {held.reason}" if held.cause == "KEY_REJECTED" else f"{who}: {held.reason}" if who else held.reason
    return words if held.cause in _SLOWER else words + _in(held, passed, "; next try in {} s")


def _in(held: Held, passed: float, words: str) -> str:
    """When it ends; "": nobody knows, or about now."""
    left = -1.0 if held.wait is None else held.wait - passed
    return words.format(whole_seconds(left)) if left > 0 else ""
