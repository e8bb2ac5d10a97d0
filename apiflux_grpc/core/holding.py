"""What holds a pool's keys back now, read off its keys and its upstream's breaker.

Rule: nothing is changed here. It is looked at about once a second, and objects are made only for what is told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core import held
from apiflux_grpc.core.breaker import State
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.held import Cause, Held
from apiflux_grpc.core.model import Counts, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.block import Block
    from apiflux_grpc.core.breaker import Breaker
    from apiflux_grpc.core.budget import Budget
    from apiflux_grpc.core.keys import GroupState, KeyState

MOST_LABELS: Final = 3  # of the keys that are held back for one cause; all are counted

# (cause, words, since, when calls may go). FAR or past: when a probe ends. Made for each key, so it is a plain tuple.
_Reason = tuple[Cause, str, int, int]
# What ends by itself and nobody knows when, or when somebody says so: no call finds out.
_NO_PROBE: Final = (Cause.LOWER_LIMIT, Cause.OTHERS, Cause.PAUSED)


def of_key(key: KeyState, now: int) -> tuple[Held, ...]:
    """What holds this key back."""
    return tuple(_held(reason, now) for reason in _reasons(key, now))


def of_pool(breaker: Breaker, why: str, keys: Iterable[KeyState], now: int) -> tuple[Held, ...]:
    """What holds the pool back: at most one of each cause, what stops all keys first, then what stops most.

    `breaker` is the upstream's, `why` its last failure.
    """
    found: dict[Cause, list[_Reason]] = {}
    labels: dict[Cause, dict[str, None]] = {}
    for key in keys:
        for reason in _reasons(key, now):
            found.setdefault(reason[0], []).append(reason)
            labels.setdefault(reason[0], {})[key.key.label] = None  # once, though several of its limits may say so
    pool = sorted(
        (_together(those, list(labels[cause]), now) for cause, those in found.items()), key=lambda one: -one.count
    )
    if breaker.state is not State.CLOSED:
        at = breaker.ready_at(now)
        words = held.failing(why, at - now if now < at < FAR else None)
        pool.insert(0, _held((Cause.UPSTREAM_FAILING, words, breaker.since, at), now))
    return tuple(pool)


def _reasons(key: KeyState, now: int) -> list[_Reason]:
    if key.paused_at is not None:
        return [(Cause.PAUSED, held.paused(), key.paused_at, FAR)]
    found = [] if key.calm else _blocks(key, now)
    for owner in key.owners:
        if not found:  # a refusal both blocks and cuts: while it does the one, the other is no news
            found += _cuts(owner.budget)
        if (told := owner.budget.told) is not None:
            found += [
                (Cause.NOTHING_LEFT, held.nothing_left(name), since, until)
                for name, since, until in told.nothing_left(now)
            ]
            found += _taken(owner)
    found += [
        (Cause.NOTHING_LEFT, held.only_named(name), spent.since, spent.until)
        for name, spent in key.spent.items()
        if spent.until > now
    ]
    for one in key.path_owners:
        blocked = [] if one.block is None else _blocked(one.block, now)
        found += [(cause, held.only_for(one.paths, words), since, at) for cause, words, since, at in blocked]
        found += [*([] if blocked else _cuts(one.budget)), *_taken(one)]
    return found


def _taken(owner: KeyState | GroupState) -> list[_Reason]:
    found: list[_Reason] = []
    for limit, amount, since, lower in () if owner.budget.told is None else owner.budget.told.taken():
        if lower is not None:
            found.append((Cause.LOWER_LIMIT, held.lower(lower, limit), since, FAR))
            amount -= limit.max - lower
        if amount > 0:
            found.append((Cause.OTHERS, held.others(amount, limit), since, FAR))
    return found


def _blocks(key: KeyState, now: int) -> list[_Reason]:
    found: list[_Reason] = []
    if key.breaker.state is not State.CLOSED:
        words = held.rejected(key.rejected_with)
        found.append((Cause.KEY_REJECTED, words, key.breaker.since, key.breaker.ready_at(now)))
    for one in key.owners:
        if one.block is not None:
            found += _blocked(one.block, now)
    return found


def _blocked(block: Block, now: int) -> list[_Reason]:
    # After a told wait all the capacity is there again; after a guess a probe has to say so.
    if block.until <= now and not block.ends_by_probe:
        return []
    return [(Cause.LIMITED, block.cause, block.since, block.ready_at(now))]


def _cuts(budget: Budget) -> list[_Reason]:
    found: list[_Reason] = []
    for window in (*budget.windows, *budget.cost_windows) if budget.cost_windows else budget.windows:
        if window.max < window.nominal:
            counts = Counts.CALLS if window in budget.windows else Counts.COST
            limits = [limit for limit in budget.limits if limit.counts is counts and limit.kind is Kind.WINDOW]
            limit = next(limit for limit in limits if (limit.max, limit.per) == (window.nominal, window.per))
            back_at = window.back_at(window.nominal)
            found.append((Cause.LOWER_LIMIT, held.cut(window.max, limit), window.cut_at, back_at))
    return found


def _held(reason: _Reason, now: int) -> Held:
    cause, words, since, at = reason
    if now < at < FAR:
        return Held(cause, words, since, at)
    return Held(cause, words if cause in _NO_PROBE else held.probed(words), since, None)


def _together(those: Sequence[_Reason], labels: Sequence[str], now: int) -> Held:
    """Of one cause: in the words of the key that is free first."""
    first = _held(min(those, key=lambda reason: reason[3]), now)
    since = min(reason[2] for reason in those)
    return replace(first, since=since, keys=tuple(labels[:MOST_LABELS]), count=len(labels))
