"""What holds a pool's keys back now, read off its keys and its upstream's breaker.

Rule: nothing is changed here. It is looked at about once a second, so a key that nothing holds back costs one look at
whether it is calm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core import held
from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.held import Cause, Held

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.breaker import Breaker
    from apiflux_grpc.core.keys import KeyState

MOST_LABELS: Final = 3  # of the keys that are held back for one cause; all are counted

# (cause, words, since, when calls may go). FAR or past: when a probe ends. Made for each key, so it is a plain tuple.
_Reason = tuple[Cause, str, int, int]


def of_key(key: KeyState, now: int) -> tuple[Held, ...]:
    """What holds this key back."""
    return tuple(_held(reason, now) for reason in _reasons(key, now))


def of_pool(breaker: Breaker, why: str, keys: Iterable[KeyState], now: int) -> tuple[Held, ...]:
    """What holds the pool back: at most one of each cause, what stops all keys first, then what stops most.

    `breaker` is the upstream's, `why` its last failure.
    """
    found: dict[Cause, list[_Reason]] = {}
    labels: dict[Cause, list[str]] = {}
    for key in keys:
        for reason in _reasons(key, now):
            found.setdefault(reason[0], []).append(reason)
            labels.setdefault(reason[0], []).append(key.key.label)
    pool = sorted((_together(those, labels[cause], now) for cause, those in found.items()), key=lambda one: -one.count)
    if breaker.state is not State.CLOSED:
        at = breaker.ready_at(now)
        words = held.failing(why, at - now if now < at < FAR else None)
        pool.insert(0, _held((Cause.UPSTREAM_FAILING, words, breaker.since, at), now))
    return tuple(pool)


def _reasons(key: KeyState, now: int) -> list[_Reason]:
    if key.calm:
        return []
    found: list[_Reason] = []
    if key.breaker.state is not State.CLOSED:
        words = held.rejected(key.rejected_with)
        found.append((Cause.KEY_REJECTED, words, key.breaker.since, key.breaker.ready_at(now)))
    blocks = [one.block for one in key.owners if one.block is not None]
    # After a told wait all its capacity is there again; after a guess a probe has to say so.
    found += [
        (Cause.LIMITED, block.cause, block.since, block.ready_at(now))
        for block in blocks
        if block.until > now or not block.told
    ]
    return found


def _held(reason: _Reason, now: int) -> Held:
    cause, words, since, at = reason
    return Held(cause, words, since, at) if now < at < FAR else Held(cause, held.probed(words), since, None)


def _together(those: Sequence[_Reason], labels: Sequence[str], now: int) -> Held:
    """Of one cause: in the words of the key that is free first."""
    first = _held(min(those, key=lambda reason: reason[3]), now)
    since = min(reason[2] for reason in those)
    return replace(first, since=since, keys=tuple(labels[:MOST_LABELS]), count=len(those))
