"""How the store of a pool's budgets stands to it: whether it answers, what it refuses, what it has forgotten.

Rule: every change that an operator should hear of is told once, with all keys that it is about; what holds calls back
now is read off here. Nothing is decided by it: a pool whose store is silent spends the leases that live, and then its
calls wait.

Not known here: when the store is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from apiflux_grpc.core import held
from apiflux_grpc.core.events import (
    BudgetsFrozen,
    LeasesGranted,
    LeasesRefused,
    LimitLower,
    SentLate,
    StoreBack,
    StoreSilent,
)
from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.lease.terms import PROBATION
from apiflux_grpc.core.lease.words import CALLS
from apiflux_grpc.core.units import SECOND, format_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.events import Event
    from apiflux_grpc.core.lease.ledger import Ledger
    from apiflux_grpc.core.lease.words import Lower

SILENCE: Final = 30 * SECOND  # after so long without an answer the pool isn't healthy
MOST_LABELS: Final = 3  # of the keys that something is told of; all are counted


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """`silent_for` (ns): so long it hasn't answered, for the reason `why`; None: it answers. `sent_late`: calls that
    went out after their lease had ended. `refused`: it lends nothing to any of the pool's keys."""

    silent_for: int | None
    why: str
    sent_late: int
    refused: bool

    @property
    def is_healthy(self) -> bool:
        """It answers, or did so lately, and lends."""
        return not self.refused and (self.silent_for is None or self.silent_for < SILENCE)


class Owner(Protocol):
    """Who has what a store lends: keys with these labels."""

    @property
    def labels(self) -> tuple[str, ...]: ...


class Standing(Protocol):
    """How the store stands to one owner: why it refuses, and until when what it lends is frozen."""

    refusal: str
    opens_at: int


class StoreHealth:
    """The store as one pool sees it."""

    __slots__ = (
        "_events",
        "_frozen",
        "_late",
        "_lent",
        "_lower",
        "_new",
        "_refused",
        "keys",
        "sent_late",
        "silent_since",
        "why",
    )

    def __init__(self) -> None:
        self.silent_since: int | None = None  # None: it answers
        self.why = ""
        self.sent_late = 0
        self.keys = 0  # how many the pool has
        self._frozen: dict[Owner, tuple[int, int]] = {}  # since when, until when
        self._refused: dict[Owner, tuple[int, str]] = {}  # since when, why
        self._lower: dict[Owner, tuple[int, list[str]]] = {}  # since when, others' limits in words
        self._new: list[Owner] = []  # those that were frozen or refused since events were taken
        self._lent: dict[Owner, int] = {}  # that aren't refused any more, and for how long they were
        self._late: dict[str, int] = {}  # calls that were sent late since then, by the label of their key
        self._events: list[Event] = []

    @property
    def is_silent(self) -> bool:
        """It doesn't answer."""
        return self.silent_since is not None

    # -- what happens -------------------------------------------------------------------------

    def silent(self, now: int, why: str) -> None:
        """It didn't answer."""
        if self.silent_since is None:
            self.silent_since = now
            self._events.append(StoreSilent(why))
        self.why = why

    def answered(self, now: int) -> None:
        """It answered."""
        if self.silent_since is not None:
            self._events.append(StoreBack(now - self.silent_since))
            self.silent_since, self.why = None, ""

    def heard(self, owner: Owner, ledger: Standing, lower: list[str], now: int) -> None:
        """It answered to this owner's ledger. `lower`: others' limits that hold here, in words."""
        if ledger.refusal != self._refused.get(owner, (0, ""))[1]:
            if ledger.refusal:
                self._refused[owner] = (now, ledger.refusal)
                self._new.append(owner)
            else:
                since, _ = self._refused.pop(owner)
                self._lent[owner] = now - since
        if lower != self._lower.get(owner, (0, []))[1]:
            if lower:
                self._lower[owner] = (now, lower)
                self._events += [LimitLower(owner.labels[0], words) for words in lower]
            else:
                del self._lower[owner]
        # Whoever is new at a store waits a moment: that is no news.
        if ledger.opens_at - now > PROBATION and owner not in self._frozen:
            self._new.append(owner)
        if ledger.opens_at > now and (owner in self._frozen or owner in self._new):
            self._frozen[owner] = (self._frozen.get(owner, (now, 0))[0], ledger.opens_at)
        else:
            self._frozen.pop(owner, None)

    def forget(self, owner: Owner) -> None:
        """It has no part in the store any more."""
        for those in (self._frozen, self._refused, self._lower, self._lent):
            those.pop(owner, None)

    def tell(self, event: Event) -> None:
        """What others said through it is news here."""
        self._events.append(event)

    def late(self, label: str) -> None:
        """A call went out after its lease had ended, as a process may send it that was stopped right before."""
        self.sent_late += 1
        self._late[label] = self._late.get(label, 0) + 1

    # -- what is told -------------------------------------------------------------------------

    def take_events(self) -> Sequence[Event]:
        """What happened since this was last asked."""
        new, self._new = dict.fromkeys(self._new), []
        events, self._events = self._events, []
        if self._lent:
            events.append(LeasesGranted(*_labels(self._lent), max(self._lent.values())))
            self._lent = {}
        late, self._late = self._late, {}
        events += [SentLate(label, calls) for label, calls in late.items()]
        if frozen := [owner for owner in new if owner in self._frozen]:
            wait = max(until - since for since, until in map(self._frozen.__getitem__, frozen))
            events.append(BudgetsFrozen(*_labels(frozen), wait))
        reasons = dict.fromkeys(self._refused[owner][1] for owner in new if owner in self._refused)
        for why in reasons:
            those = [owner for owner in new if self._refused.get(owner, (0, ""))[1] == why]
            events.append(LeasesRefused(*_labels(those), why))
        return events

    def holds(self, now: int) -> tuple[Held, ...]:
        """What of it holds the pool's calls back now."""
        if self.silent_since is not None:
            return (Held(Cause.STORE, held.silent(self.why), self.silent_since, None),)
        found = []
        if self._frozen:
            since = min(since for since, _ in self._frozen.values())
            until = min(until for _, until in self._frozen.values())
            found.append(Held(Cause.STORE, held.FROZEN, since, max(until, now), *_labels(self._frozen)))
        if self._refused:
            since, why = min(self._refused.values())
            found.append(Held(Cause.STORE, held.unlent(why), since, None, *_labels(self._refused)))
        return tuple(found)

    def holds_of(self, owners: Iterable[Owner], now: int) -> tuple[Held, ...]:
        """What of it holds back the key that pays from these owners' budgets."""
        found = []
        for owner in owners:
            if owner in self._frozen:
                since, until = self._frozen[owner]
                found.append(Held(Cause.STORE, held.FROZEN, since, max(until, now)))
            if owner in self._refused:
                since, why = self._refused[owner]
                found.append(Held(Cause.STORE, held.unlent(why), since, None))
            if owner in self._lower:
                since, lower = self._lower[owner]
                found += [Held(Cause.LOWER_LIMIT, words, since, None) for words in lower]
        return tuple(found)

    def snapshot(self, now: int) -> StoreSnapshot:
        """As it is now."""
        silent_for = None if self.silent_since is None else now - self.silent_since
        refused = bool(self._refused) and len({label for owner in self._refused for label in owner.labels}) == self.keys
        return StoreSnapshot(silent_for, self.why, self.sent_late, refused)

    def __repr__(self) -> str:
        return f"<StoreHealth: {'silent' if self.is_silent else 'answers'}>"


def in_words(lower: Lower, ledger: Ledger) -> str:
    """A limit of another server that holds here, and ours that is like it."""
    what = "calls" if lower.cap.counts == CALLS else "cost"
    ours = next((cap for cap in ledger.caps if cap.like == lower.cap.like), None)
    theirs = format_limit(lower.cap.max, lower.cap.per, what)
    if ledger.was(lower.whose):
        return held.formerly(theirs)
    return held.elsewhere(
        theirs,
        "none" if ours is None else format_limit(ours.max, ours.per, what),
    )


def _labels(owners: Iterable[Owner]) -> tuple[tuple[str, ...], int]:
    labels = dict.fromkeys(label for owner in owners for label in owner.labels)
    return tuple(labels)[:MOST_LABELS], len(labels)
