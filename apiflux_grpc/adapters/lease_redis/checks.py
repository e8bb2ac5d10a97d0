"""Whether a server may hold budgets, by what it says of itself.

Rule: what would lose a budget without a word is refused, before anything is leased; what only makes a failover cost
more is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.redis_url import Kind

OLDEST: Final = (6, 2)  # what the tests run with


def fault_of(info: Mapping[str, Any], kind: Kind) -> str:
    """Why a server that gives this INFO can't hold budgets, and what to do; "": it can."""
    mode = info.get("redis_mode", "standalone")
    if mode == "sentinel":
        return "is a Sentinel: write redis+sentinel://HOST:PORT/NAME"
    if mode == "cluster" and kind != "cluster":
        return "is a Redis Cluster: write redis+cluster://"
    version = str(info.get("redis_version", ""))
    if _numbers(version) < OLDEST:
        return f"is Redis {version}: install {OLDEST[0]}.{OLDEST[1]} or newer"
    if info.get("role") == "slave" and kind == "one":
        return "is a replica, which takes no writes: name the primary, or write redis+sentinel://"
    policy = str(info.get("maxmemory_policy", ""))
    # The volatile policies evict what has a time to live, which no entry has.
    if policy.startswith("allkeys-"):
        return f"evicts budgets when memory runs out ({policy}): set maxmemory-policy to noeviction"
    return ""


def advice_on(info: Mapping[str, Any]) -> str:
    """What to do so that a failover never lets two servers hand out the same budget; "": nothing."""
    if info.get("connected_slaves") and "min_slaves_good_slaves" not in info:
        return (
            "has replicas, and goes on alone when cut off from them: set min-replicas-to-write to 1, and "
            "min-replicas-max-lag to 10 or less"
        )
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
