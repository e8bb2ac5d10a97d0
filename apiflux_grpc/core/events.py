"""What observers are told of a pool.

Rule: facts, frozen, with keys by their label; never a secret. Lengths of time are ns.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyBlocked:
    """The upstream refused a call for a limit, or said that nothing is left of one: the key waits, or every key of its
    group (`group` has their labels). `paths`: only calls wait whose path begins with one of these."""

    key: str
    wait: int
    status: int
    why: str
    group: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    again: bool = False  # it is no news: no call has succeeded since the last time, or nothing was left lately too


@dataclass(frozen=True, slots=True)
class KeyRejected:
    """The upstream rejects a key: it is left alone for `cool_down`, then tried again."""

    key: str
    cool_down: int
    status: int


@dataclass(frozen=True, slots=True)
class KeyAccepted:
    """A key that was rejected works again."""

    key: str


@dataclass(frozen=True, slots=True)
class KeyPaused:
    """An administrator paused a key; calls that have it go on."""

    key: str


@dataclass(frozen=True, slots=True)
class KeyResumed:
    """And resumed it."""

    key: str


@dataclass(frozen=True, slots=True)
class SecretChanged:
    """A key has another secret, and calls that begin from now on are sent with it."""

    key: str


@dataclass(frozen=True, slots=True)
class LimitCut:
    """A 429 came though every limit was kept: less of this limit is used for a while."""

    key: str
    limit: str


@dataclass(frozen=True, slots=True)
class LimitLower:
    """The upstream says that it allows less than is configured, or another server that shares the key has a lower
    limit, which holds while they say so; told when it begins."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class WaitUnread:
    """The upstream told a key how long to wait, in a way that can't be read; told once for each key."""

    key: str
    what: str


@dataclass(frozen=True, slots=True)
class UpstreamFailing:
    """Calls fail whatever key they use: none is made for `cool_down`, then one is tried."""

    cool_down: int
    why: str


@dataclass(frozen=True, slots=True)
class UpstreamBack:
    """An upstream that was failing answers again."""


@dataclass(frozen=True, slots=True)
class NothingUsable:
    """For longer than the pool's patience no key could be used; so many calls ended for that."""

    calls: int
    why: str


@dataclass(frozen=True, slots=True)
class StoreSilent:
    """The store of the pool's budgets doesn't answer: the leases that live are spent, and then calls wait."""

    why: str


@dataclass(frozen=True, slots=True)
class StoreBack:
    """It answers again; `after`: so long it didn't."""

    after: int


@dataclass(frozen=True, slots=True)
class BudgetsFrozen:
    """The store has lost what was spent of these keys' budgets: it lends nothing of them for `wait`, by when all of
    that has ended. `keys` has the labels of some, `count` is the number of all."""

    keys: tuple[str, ...]
    count: int
    wait: int


@dataclass(frozen=True, slots=True)
class LeasesRefused:
    """The store lends nothing to this process for these keys, as BudgetsFrozen has them."""

    keys: tuple[str, ...]
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class LeasesGranted:
    """It lends again for these keys, which were refused for so long at most."""

    keys: tuple[str, ...]
    count: int
    after: int


@dataclass(frozen=True, slots=True)
class SentLate:
    """So many calls went out after their leases had ended."""

    key: str
    calls: int


Event = (
    KeyBlocked
    | KeyRejected
    | KeyAccepted
    | KeyPaused
    | KeyResumed
    | SecretChanged
    | LimitCut
    | LimitLower
    | WaitUnread
    | UpstreamFailing
    | UpstreamBack
    | NothingUsable
    | StoreSilent
    | StoreBack
    | BudgetsFrozen
    | LeasesRefused
    | LeasesGranted
    | SentLate
)
