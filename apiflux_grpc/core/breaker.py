"""Whether calls may go: the health of one key, or of a pool's upstream.

Rule: `threshold` failures in a row open it, and for a cool-down nothing goes. Then one call at a time may go as a
probe: its success closes the breaker, its failure opens it again with the cool-down doubled, from `first` up to
`longest`. A success resets both the run and the cool-down. Only calls that began since the last change count: 50
calls in flight when the key is rejected are one rejection, and a late success of an old call proves nothing.

Every change of state begins a new *era*. `began` returns the era in which a call began, its result hands it back,
and a result of another era is ignored. A probe begins an era of its own, so that it alone can end it. A call ends
with exactly one of `succeeded`, `failed` and `abandoned`, a probe too, or no other call could ever go. A failure may
turn out to be the call's own: it is `excused`, and without a whole run that stands the breaker closes.

What a failure is, the owner decides: for a key that it's rejected, for an upstream what is the upstream's fault. Owner:
the scheduler asks and the pump reports, on the engine's loop. Not known here: keys, calls, clocks.

Source of the states: Nygard, "Release It!" (2007), chapter 5.2, "Circuit Breaker".
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.bucket import FAR

if TYPE_CHECKING:
    from apiflux_grpc.core.block import Gate

STALE: Final = 0  # the era of a call that went though none may: its result says nothing


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"  # also when the cool-down is over and no probe has begun
    HALF_OPEN = "half-open"  # a probe is out, or the last one ended without a word on health


class Breaker:
    """Opens after `threshold` failures in a row; cool-downs (ns) double from `first` up to `longest`."""

    __slots__ = (
        "_cool_down",
        "_first",
        "_longest",
        "_run",
        "_state",
        "_threshold",
        "calm",
        "era",
        "gate",
        "probing",
        "since",
        "until",
        "worked_at",
    )

    def __init__(self, threshold: int, first: int, longest: int) -> None:
        if threshold < 1 or not 0 < first <= longest:
            raise ValueError("a breaker needs a threshold of 1 or more, and 0 < first <= longest")
        self._threshold = threshold
        self._first = first
        self._longest = longest
        self._state = State.CLOSED
        self.era = STALE + 1
        self.calm = True  # closed, and worked since the last failure: a success has nothing to say
        self.since = 0  # when calls stopped going as they like
        self.worked_at = -1  # the last success that had something to say
        self._run = 0  # failures without a success since
        self._cool_down = first  # of the next opening
        self.until = 0  # the end of the cool-down
        self.probing = False
        self.gate: Gate | None = None  # None: this process alone finds out

    @property
    def state(self) -> State:
        return self._state

    def ready_at(self, now: int) -> int:
        """`now` or earlier: a call may go. Else a later instant at which one may; FAR: not before the probe ends."""
        if self._state is State.CLOSED:
            return now
        if self.until > now and not self.probing:
            return self.until
        return FAR if self.probing or (self.gate is not None and not self.gate.lets(now)) else self.until

    def began(self, now: int) -> int:
        """A call got its permit. Returns its era, for its result; `is_probe` tells what it is."""
        if self._state is State.CLOSED:
            return self.era
        if self.probing or self.until > now:
            return STALE
        self._state = State.HALF_OPEN
        self.probing = True
        self.era += 1
        return self.era

    def is_probe(self, era: int) -> bool:
        """Whether the call of this era is the probe that is out."""
        return self.probing and era == self.era

    def succeeded(self, now: int, era: int) -> bool:
        """The call shows health. True: this closed the breaker, calls may go again."""
        if era != self.era:
            return False
        self._run = 0
        self.calm = True
        self.worked_at = now
        if self._state is State.CLOSED:
            return False
        self._close()
        return True

    def failed(self, now: int, era: int, *, alone: bool = True) -> bool:
        """The call failed in the way that counts here. True: this opened the breaker, or opened it again; a probe that
        failed elsewhere too, and not here `alone`, doesn't double the cool-down."""
        if era != self.era:
            return False
        self.calm = False
        self._run += 1
        if self._state is State.CLOSED:
            if self._run < self._threshold:
                return False
            self.since = now
        self._state = State.OPEN
        self.probing = False
        self.era += 1
        if alone:
            self.until = now + self._cool_down
            self._double()
        else:
            self.until = now + max(self._first, self._cool_down // 2)
        return True

    def doubted(self) -> None:
        """A call failed in a way that doesn't count: it's of interest whether another succeeds."""
        self.calm = False

    def has_worked_since(self, at: int) -> bool:
        """Whether a call succeeded after one that failed at `at`, or was in doubt then."""
        return self.calm or self.worked_at > at

    def excused(self, failures: int) -> bool:
        """So many failures of the run were of the calls' own making. True: this closed the breaker."""
        self._run = max(0, self._run - failures)
        if self._state is State.CLOSED or self._run >= self._threshold:
            return False
        self._close()
        return True

    def _close(self) -> None:
        self._state = State.CLOSED
        self.probing = False
        self.era += 1
        self._cool_down = self._first

    def _double(self) -> None:
        self._cool_down = min(2 * self._cool_down, self._longest)

    def opened(self, now: int, until: int) -> None:
        """Another process found it open, until then: once for each cool-down, however many find it."""
        if self._state is State.CLOSED:
            self.since = now
            self._run += self._threshold  # what another has found isn't excused here
        if self._state is State.CLOSED or self.until <= now:
            self.until = until
            self._double()
        self.calm, self._state, self.probing = False, State.OPEN, False
        self.era += 1
        self.until = max(self.until, until)

    def closed(self, now: int) -> bool:
        """Another process has closed it. True: it was open here."""
        return self._state is not State.CLOSED and self.succeeded(now, self.era)

    def renew(self) -> None:
        """What is judged is another thing from now on, so nothing that was counted counts, and no call that is out."""
        self._run, self.calm = 0, False
        self._close()

    def abandoned(self, now: int, era: int) -> bool:
        """The call ended without a word on health: cancelled, never sent. True: it was the probe, another may go."""
        if not self.is_probe(era):
            return False
        self.probing = False
        self.era += 1
        return True

    def __repr__(self) -> str:
        probe = ", a probe out" if self.probing else ""
        return f"<Breaker {self._state.value}{probe}: {self._run} of {self._threshold} failures>"
