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

    from apiflux_grpc.core.block import Block
    from apiflux_grpc.core.breaker import Breaker
    from apiflux_grpc.core.keys import KeyState

MOST_LABELS: Final = 3  # of the keys that are held back for one cause; all are counted


def of_key(key: KeyState, now: int) -> tuple[Held, ...]:
    """What holds this key back."""
    if key.calm:
        return ()
    found: list[Held] = []
    if key.breaker.state is not State.CLOSED:
        found.append(_held(Cause.KEY_REJECTED, held.rejected(key.rejected_with), key.breaker, now))
    blocks = [one.block for one in key.owners if one.block is not None]
    # After a told wait all its capacity is there again; after a guess a probe has to say so.
    found += [_held(Cause.LIMITED, block.cause, block, now) for block in blocks if block.until > now or not block.told]
    return tuple(found)


def of_pool(breaker: Breaker, why: str, keys: Iterable[KeyState], now: int) -> tuple[Held, ...]:
    """What holds the pool back: at most one of each cause, what stops all keys first, then what stops most.

    `breaker` is the upstream's, `why` its last failure.
    """
    found: dict[Cause, list[tuple[str, Held]]] = {}
    for key in keys:
        for one in of_key(key, now):
            found.setdefault(one.cause, []).append((key.key.label, one))
    pool = sorted((_together(those) for those in found.values()), key=lambda one: -one.count)
    if breaker.state is not State.CLOSED:
        at = breaker.ready_at(now)
        words = held.failing(why, at - now if now < at < FAR else None)
        pool.insert(0, _held(Cause.UPSTREAM_FAILING, words, breaker, now))
    return tuple(pool)


def _held(cause: Cause, reason: str, by: Breaker | Block, now: int) -> Held:
    at = by.ready_at(now)
    if now < at < FAR:
        return Held(cause, reason, by.since, at)
    return Held(cause, held.probed(reason), by.since, None)


def _together(those: Sequence[tuple[str, Held]]) -> Held:
    """Of one cause: in the words of the key that is free first."""
    first = min((one for _, one in those), key=lambda one: -1 if one.until is None else one.until)
    since = min(one.since for _, one in those)
    return replace(first, since=since, keys=tuple(label for label, _ in those[:MOST_LABELS]), count=len(those))
