"""Why calls wait, in words: the reason, since when, until when.

Rule: whoever tells of it (GetInfo, the progress of a stream, the log, a terminal) has the words from here. They say
what the upstream said or did. That a key's own limits are spent is no reason: that is what limits are for, and its
headroom tells it.

Instants are ns of the clock of whoever drives the core. Not known here: where the reasons are found (holding.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from apiflux_grpc.core.units import SECOND


class Cause(Enum):
    """What kind of reason it is."""

    UPSTREAM_FAILING = "UPSTREAM_FAILING"
    KEY_REJECTED = "KEY_REJECTED"
    LIMITED = "LIMITED"
    NOTHING_LEFT = "NOTHING_LEFT"
    LOWER_LIMIT = "LOWER_LIMIT"
    OTHERS = "OTHERS"


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


def probed(reason: str) -> str:
    """What held it back is over, or may be: one call finds out."""
    return f"{reason}; one call probes"


def _seconds(ns: int) -> str:
    return f"{-(-ns // SECOND)} s"
