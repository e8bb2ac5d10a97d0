"""Why calls wait, in words: the reason, since when, until when.

Rule: whoever tells of it (GetInfo, the progress of a stream, the log, a terminal) has the words from here. They say
what the upstream said or did. That a key's own limits are spent doesn't hold it back: that is what limits are for, and
it is told apart from the others (SPENT, and BACKOFF for a call whose next attempt is due later).

Instants are ns of the clock of whoever drives the core. Not known here: where the reasons are found (holding.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.model import Counts
from apiflux_grpc.core.units import SECOND, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.model import Limit

FROZEN: Final = "the store of budgets has lost what was spent: all of it must have ended first"
_LONGEST_NAME: Final = 64  # it is the upstream's to choose


class Cause(Enum):
    """What kind of reason it is."""

    UPSTREAM_FAILING = "UPSTREAM_FAILING"
    KEY_REJECTED = "KEY_REJECTED"
    LIMITED = "LIMITED"
    NOTHING_LEFT = "NOTHING_LEFT"
    LOWER_LIMIT = "LOWER_LIMIT"
    OTHERS = "OTHERS"
    STORE = "STORE"
    SPENT = "SPENT"
    BACKOFF = "BACKOFF"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class Held:
    """`reason` in words. `until` is when calls may go again, or one of them as a probe; None: when a probe ends.

    Of several keys that are held back for one cause it is the one that is free first; `since` then is when the first
    was held back, `keys` has the labels of some, and `count` is the number of all. 0: the whole pool is held back.
    """

    cause: Cause
    reason: str
    since: int
    until: int | None
    keys: tuple[str, ...] = ()
    count: int = 0


def limited(status: int, told: int | None, where: str) -> str:
    """A refusal for a limit; `told` (ns): so long we were asked to wait, in the field `where`."""
    return f"{status} with no usable wait" if told is None else f"{status} with {where}: {told / SECOND:.12g} s"


def rejected(status: int) -> str:
    """The upstream rejects the key."""
    return f"rejected with {status}"


def failing(why: str, wait: int | None) -> str:
    """The upstream fails whatever key is used; it is tried again in `wait` (ns), None: now."""
    return f"upstream failing: {why}" if wait is None else f"upstream failing: {why}; next try in {_seconds(wait)}"


def others(amount: int, limit: Limit) -> str:
    """Others use so much of this limit."""
    return f"others use {amount} of {_words(limit.max, limit)}"


def others_in_flight(amount: int, most: int) -> str:
    """Other servers that share the key may have so many of the calls that it may have in flight."""
    return f"other servers have {amount} of {most} calls in flight"


def in_flight(most: int) -> str:
    """A bound on calls in flight."""
    return f"{most} calls in flight"


def lower(most: int, limit: Limit) -> str:
    """The upstream allows less than this configured limit."""
    return f"the upstream allows {_words(most, limit)}, below the configured {limit.max}"


def cut(most: int, limit: Limit) -> str:
    """It was refused though this limit was kept, so less of it is used for a while."""
    return f"refused though it kept {_words(limit.max, limit)}: {most} are used for a while"


def nothing_left(name: str) -> str:
    """Of a limit that isn't configured; `name` is that of its headers (`x-ratelimit-requests`), or of its policy."""
    return f"nothing left of {name[:_LONGEST_NAME]}{'remaining' if name.endswith('-') else ''}"


def silent(why: str) -> str:
    """The store of budgets doesn't answer."""
    return f"waiting for leases: the store of budgets doesn't answer ({why})"


def elsewhere(theirs: str, ours: str) -> str:
    """Another server has a lower limit for the same key, which holds for both."""
    return f"another server that shares it has {theirs}, and this one {ours}: the lower holds for both"


def formerly(limit: str) -> str:
    """It had another limit until a moment ago."""
    return f"it was {limit} until its limits were changed: that holds for its length more"


def refused_elsewhere() -> str:
    """The upstream refused another process, which told this one."""
    return "another server that shares it was refused"


def unlent(why: str) -> str:
    """The store of budgets refuses this process."""
    return f"the store of budgets lends nothing here: {why}"


def only_for(paths: Sequence[str], reason: str) -> str:
    """It holds back only calls whose path begins so."""
    return f"{reason}, for {', '.join(paths)} only"


def only_named(name: str) -> str:
    """Of a limit that isn't configured, and that the upstream counts for some calls only, by this name."""
    return f"nothing left of {name[:_LONGEST_NAME]}: only its calls wait"


def spent(limit: Limit, labels: Sequence[str], shared: int) -> str:
    """Nothing is left of this limit for keys with these labels, which have it each, or `shared` times together."""
    what = "" if limit.counts is Counts.CALLS else f" {limit.counts.value}"
    paths = f" for {', '.join(limit.paths)}" if limit.paths else ""
    whose = labels[0] if len(labels) == 1 else f"{len(labels)} keys"
    if shared and len(labels) > 1:
        whose += " together" if shared == 1 else f" in {shared} groups"
    return f"{limit.max}{what}/{format_duration(limit.per)}{paths} of {whose}"


def paused() -> str:
    """Somebody holds it back."""
    return "paused by an administrator"


def backoff(calls: int) -> str:
    """So many calls wait for their next attempt."""
    return "the next attempt of a call" if calls == 1 else f"the next attempt of {calls} calls"


def probed(reason: str) -> str:
    """What held it back is over, or may be: one call finds out."""
    return f"{reason}; one call probes"


def _words(most: int, limit: Limit) -> str:
    per = format_duration(limit.per)
    number = per.rstrip("abcdefghijklmnopqrstuvwxyz")
    what = "" if limit.counts is Counts.CALLS else f" {limit.counts.value}"
    paths = f" for {', '.join(limit.paths)}" if limit.paths else ""
    return f"{most}{what} per {number} {per.removeprefix(number)}{paths}"


def _seconds(ns: int) -> str:
    return f"{-(-ns // SECOND)} s"
