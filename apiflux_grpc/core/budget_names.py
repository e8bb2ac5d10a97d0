"""What budgets are called in a store.

Rule: whoever shares a budget derives the same name of it from a configuration, and nothing else: two names of one key
would be two budgets, each spent whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apiflux_grpc.core.model import Key, Limit, Pool


def name_of_key(pool: Pool, key: Key) -> str:
    """That of a key's own limits."""
    return quote(key.budget, "") if key.budget else f"{quote(pool.name, '')}/{quote(key.label, '')}"


def name_of_group(pool: Pool, labels: Iterable[str]) -> str:
    """That of the limits which these keys share."""
    # By one of its keys, which is in no other group: another server's group may have a key more.
    return f"{quote(pool.name, '')}/{quote(min(labels), '')}/group"


def with_paths(name: str, paths: Sequence[str]) -> str:
    """That of the limits of the same owner for calls with these paths."""
    return f"{name}?{'+'.join(quote(path) for path in paths)}"


def names_of(pool: Pool, label: str) -> dict[str, str]:
    """All budgets that the calls of this key are paid from, and whose each is, in words."""
    (key,) = (key for key in pool.keys if key.label == label)
    found = _names(name_of_key(pool, key), key.limits, f"key {label}")
    for group in pool.groups:
        if label in group.keys:
            found |= _names(name_of_group(pool, group.keys), group.limits, f"group {' + '.join(group.keys)}")
    return found


def _names(name: str, limits: Iterable[Limit], whose: str) -> dict[str, str]:
    return {
        with_paths(name, limit.paths) if limit.paths else name: " for ".join(
            filter(None, (whose, ", ".join(limit.paths)))
        )
        for limit in limits
    }
