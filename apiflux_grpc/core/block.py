"""How long a key, or a group of keys, is left alone after an upstream refused a call for a limit.

Rule: a wait that was told is kept to its end, and then the whole capacity is there again. Without a told wait the end
is a guess: a second, doubling with each refusal, and at its end one call goes alone, as a probe. Its success ends the
block, and another refusal begins the next one. (The whole capacity back after each guess cost every waiting call
a refusal each time.) If others explain the refusal, what they leave is known (others.py): then a second is enough, and
no probe, which may take as long as a call can.

Calls that were on their way when the block began were refused for the same reason: they neither double nor extend it,
unless they tell a later end. Nor does their success end it.

Owner: the scheduler, on the engine's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.flight import Part

FIRST_GUESS: Final = SECOND
LONGEST_GUESS: Final = 60 * SECOND


class Gate(Protocol):
    """Who says whether a probe may go, if processes share the limit."""

    def lets(self, now: int) -> bool:
        """Whether this process may send it."""


class Sharing(Gate, Protocol):
    """Who tells other processes that share the limits."""

    def blocked(self, now: int) -> None:
        """A call was refused, and the owner is blocked."""

    def passed(self, now: int) -> None:
        """A call has ended its block."""

    def rejected(self, status: int, until: int, now: int) -> None:
        """The key is rejected with this status, and left alone until then."""

    def accepted(self, now: int) -> None:
        """The key works again."""


class Block:
    """From `since` until `until` (ns) because of `cause`, in words; `told`: the upstream said until when."""

    __slots__ = ("_gate", "_known", "_probe", "cause", "guesses", "renewed", "since", "told", "until")

    def __init__(self, now: int, gate: Gate | None = None) -> None:
        self._gate = gate
        self.since = now  # the first refusal without a success since
        self.until = now
        self.told = False
        self.cause = ""
        self.renewed = now  # the last refusal that wasn't on its way with an earlier one
        self.guesses = 0  # in a row
        self._known = False  # what is left after it, without being told until when
        self._probe: Part | None = None

    def ready_at(self, now: int) -> int:
        """`now` or earlier: calls may go. Else a later instant at which one may; FAR: not before the probe ends."""
        if self.until > now or not self.ends_by_probe:
            return self.until
        waits = self._probe is not None or (self._gate is not None and not self._gate.lets(now))
        return FAR if waits else self.until

    @property
    def probing(self) -> bool:
        """A probe is out: nothing else may go."""
        return self._probe is not None and self.ends_by_probe

    @property
    def ends_by_probe(self) -> bool:
        """At its end one call finds out whether all may go."""
        return not self.told and not self._known

    @property
    def is_guess_repeated(self) -> bool:
        """A probe was refused."""
        return not self.told and self.guesses > 1

    def is_old(self, taken_at: int) -> bool:
        """Whether a call taken at `taken_at` was on its way when the last refusal came."""
        return taken_at <= self.renewed

    def extend(self, now: int, until: int, cause: str) -> None:
        """Somebody was told to wait until `until`: a later end holds, an earlier one says nothing new."""
        if until > self.until:
            # A call that was on its way now, its time being over, can't end it by a success either.
            self.renewed, self.until, self.told, self.cause = now, until, True, cause

    def renew(self, now: int, until: int | None, cause: str, longest: int, *, known: bool) -> None:
        """Refused once more, or for the first time; `until` None: without being told until when. `known`: others
        explain it."""
        self.renewed, self._probe = now, None
        if self.told and self.until > now:  # what was told is kept to its end
            if until is not None:
                self.extend(now, until, cause)
            return
        self.told, self.cause, self._known = until is not None, cause, known
        if until is None and known:
            until, self.guesses = now + FIRST_GUESS, 0
        elif until is None:
            until = now + min(FIRST_GUESS << min(self.guesses, 40), longest)
            self.guesses += 1
        self.until = until

    def guessed(self, now: int, until: int, guesses: int, cause: str) -> None:
        """Another process was refused, its guess in a row is the end of so many: what is on its way here is none."""
        self.guesses = max(self.guesses, guesses)
        if self.told and self.until > now:
            return
        self.told = self._known = False
        self.renewed, self._probe, self.cause = now, None, cause
        self.until = max(self.until, until)

    def began(self, permit: Part) -> None:
        """A call got its permit though there is a block: its time is over."""
        if self.ends_by_probe:
            self._probe = permit

    def ended(self, permit: Part) -> bool:
        """The call of the permit ended without a word on the limit. True: it was the probe, another may go."""
        if permit is not self._probe:
            return False
        self._probe = None
        return True

    def __repr__(self) -> str:
        how = "told" if self.told else "a guess"
        return f"<Block until {self.until / SECOND:g} s, {how}: {self.cause}>"


class Owner:
    """Who has limits: a key, or a group of keys."""

    __slots__ = ("_passed_at", "block", "budget", "shared", "wake")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.shared: Sharing | None = None  # None: the limits are this process's own
        self.block: Block | None = None  # None also once a call has succeeded after it
        self._passed_at = -1  # the permit of the call whose success ended the last block
        self.wake = FAR  # the earliest instant in the heap of wake-ups that is meant for it

    @property
    def longest_guess(self) -> int:
        """How long (ns) it is left alone at most without being told."""
        longest = max((limit.per for limit in self.budget.limits), default=LONGEST_GUESS)
        return min(max(FIRST_GUESS, longest), LONGEST_GUESS)

    def refused(self, taken_at: int, now: int, wait: int | None, cause: str, *, known: bool = False) -> bool:
        """A call taken at `taken_at` was refused; `wait` (ns): so long we were told to wait; `known`: what others take
        explains it. True: a new block."""
        until = None if wait is None else now + wait
        block = self.block
        if block is None:
            if until is None and taken_at < self._passed_at:
                return False  # later ones were let pass meanwhile
            block = self.block = Block(now, self.shared)
        elif block.is_old(taken_at):
            if until is not None:
                block.extend(now, until, cause)
                if self.shared is not None:
                    self.shared.blocked(now)
            return False
        block.renew(now, until, cause, self.longest_guess, known=known)
        if self.shared is not None:
            self.shared.blocked(now)
        return True

    def worked(self, permit: Part, now: int) -> bool:
        """The limits let the permit's call pass. True: this ended the block."""
        if self.block is None or self.block.is_old(permit.taken_at):
            return False
        self.block, self._passed_at = None, permit.taken_at
        if self.shared is not None:
            self.shared.passed(now)
        return True

    def passed(self, now: int) -> None:
        """The limits let a call of another process pass: what was told is kept all the same."""
        if self.block is not None and not (self.block.told and self.block.until > now):
            self.block, self._passed_at = None, now  # what is on its way is from before

    def over(self, part: Part, *, answered: bool) -> bool:
        """A call has ended. True: by what the upstream told, another had to wait for it."""
        told = self.budget.told
        return told is not None and part.mark is not None and told.ended(part.mark, answered=answered)

    def is_changed(self, change: int, now: int) -> bool:
        """Whether others, who take so much more of its limits now, or less, change when it can be used."""
        had_none = change < 0 and self.budget.rank(now)[1] <= -change
        return had_none or (self.budget.told is not None and self.budget.told.next_end() < self.wake)

    @property
    def guessed_at(self) -> int | None:
        """When it was last refused, if nobody knows until when; None: it is open, or the upstream said so."""
        return None if self.block is None or self.block.told else self.block.renewed

    @property
    def open_or_told(self) -> bool:
        """Calls may go, or the upstream said when they may."""
        return self.block is None or self.block.told
