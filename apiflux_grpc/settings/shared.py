"""Keys of several pools that share one budget, and secrets that should.

Rule: each key has a budget of its own unless it names one, so a secret in two pools may be used up to both its limits:
whoever writes it twice says whether that is meant. Keys that share a budget have the same limits, or the calls of one
wouldn't count for what only the other knows; and they borrow of it on the same terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.core.model import Key
    from apiflux_grpc.settings.findings import Findings, Place
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.types import PoolSettings

    Owned = tuple[PoolSettings, Key, Place]  # a key with its pool and its place


def check_shared(sources: Sources, pools: Sequence[PoolSettings]) -> None:
    """Whether keys of different pools fit together."""
    by_secret: dict[str, Owned] = {}
    by_budget: dict[str, Owned] = {}
    for pool, key, place in _keys(sources, pools):
        one = (pool, key, place)
        if pool.base_url and key.secret:
            _check_secret(sources, by_secret.setdefault(key.secret, one), one)
        if key.budget:
            _check_budget(sources.findings, by_budget.setdefault(key.budget, one), one)


def _keys(sources: Sources, pools: Sequence[PoolSettings]) -> Iterator[Owned]:
    for pool in pools:
        table = sources.file.pools.get(pool.pool.name)
        # A key that couldn't be read is missing among the pool's.
        numbers = [number for number, one in enumerate(table.keys) if one is not None] if table else []
        for index, key in enumerate(pool.pool.keys):
            if table:
                yield pool, key, sources.toml_place("pools", pool.pool.name, "keys", numbers[index])
            else:
                yield pool, key, sources.env_place("API_KEYS")


def _check_secret(sources: Sources, first: Owned, one: Owned) -> None:
    (its_pool, its_key, its_place), (pool, key, place) = first, one
    if pool is its_pool or (key.budget and its_key.budget) or not (key.limits or its_key.limits):
        return
    if its_place[-1] == "API_KEYS":
        text = f"has the secret of {its_key.label} in API_KEYS; put that pool into this file too, with `budget` in both"
    else:
        text = (
            f"has the secret of {its_key.label} in pool {its_pool.pool.name}, and each would be used up to its own "
            "limits; set `budget` in both: to one name to share the limits, to two if the API counts them apart"
        )
    sources.findings.fault(place, text)


def _check_budget(findings: Findings, first: Owned, one: Owned) -> None:
    (its_pool, its_key, its_place), (pool, key, place) = first, one
    here, name = (*place, "budget"), its_pool.pool.name
    limits = [(*where, "limits") for where in (place, place[:-2], its_place, its_place[:-2])]
    if any(map(findings.has_below, limits)):
        return
    if set(key.limits) != set(its_key.limits):
        findings.fault(
            here, f"is shared with {its_key.label} in pool {name}, which has other limits; make them the same"
        )
    mine, theirs = pool.pool.arrival_jitter, its_pool.pool.arrival_jitter
    if mine != theirs:
        text = (
            f"is shared with pool {name}, whose arrival_jitter is {format_duration(theirs)} and not "
            f"{format_duration(mine)}; make them the same"
        )
        findings.fault(here, text, (*place[:-2], "arrival_jitter"), (*its_place[:-2], "arrival_jitter"))
