"""Where budgets are kept: a directory of this host, a server for several, or the memory of this process.

Rule: who names nothing gets the directory that the XDG specification has for state, if a pool calls a real API: a
restart must not spend a key's limit twice. The simulator's keys have nothing to lose.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apiflux_grpc.core.model import Kind
from apiflux_grpc.core.redis_url import parse_redis_url
from apiflux_grpc.core.units import spoken
from apiflux_grpc.settings.findings import written
from apiflux_grpc.settings.types import StateSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.redis_url import RedisUrl
    from apiflux_grpc.settings.findings import Place
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.tables import BudgetTable
    from apiflux_grpc.settings.types import PoolSettings


def state_of(sources: Sources, pools: Sequence[PoolSettings]) -> StateSettings:
    """Where these pools keep their budgets."""
    state = _found(sources, pools)
    if state.life is not None and (state.directory is not None or state.redis is not None):
        _check_lease(sources, state.life, pools)
    return state


def _found(sources: Sources, pools: Sequence[PoolSettings]) -> StateSettings:
    server, budget = sources.file.server, sources.file.budget
    trust = server.cold_start == "trust"
    place = sources.toml_place("server", "state_dir")
    if budget.redis is not None or budget.redis_env is not None:
        if server.state_dir:
            sources.findings.fault(place, "conflicts with `redis`, which keeps the budgets; set one of them")
        name = "redis" if budget.redis is not None else "redis_env"
        at = sources.toml_place("budget", name)
        return StateSettings(None, written(at), trust, budget.lease, _redis(sources, at, budget))
    if server.state_dir is not None:
        directory = sources.path(server.state_dir) if server.state_dir else None
        return StateSettings(directory, written(place) if directory else "", trust, budget.lease)
    directory = _default(sources) if any(pool.base_url for pool in pools) else None
    return StateSettings(directory, "", trust, budget.lease)


def _check_lease(sources: Sources, lease: int, pools: Sequence[PoolSettings]) -> None:
    """What is lent counts as spent until the lease has ended and the window after it."""
    pers = [
        limit.per
        for pool in pools
        for limits in (*(key.limits for key in pool.pool.keys), *(group.limits for group in pool.pool.groups))
        for limit in limits
        if limit.kind is Kind.WINDOW
    ]
    if pers and lease > min(pers) / 2:
        text = (
            f"{spoken(lease)} is more than half of the shortest `per`, {spoken(min(pers))}: what a process held "
            "that is killed counts as spent for so long beyond its window; set it lower, or leave it out"
        )
        sources.findings.warn(sources.toml_place("budget", "lease"), text)


def _redis(sources: Sources, place: Place, budget: BudgetTable) -> RedisUrl | None:
    """The server that a URL names; its text may hold a password, so no fault repeats it."""
    if budget.redis is not None and budget.redis_env is not None:
        sources.findings.fault(sources.toml_place("budget", "redis_env"), "conflicts with `redis`; set one of them")
        return None
    if budget.redis is not None:
        text = budget.redis.get_secret_value()
    else:
        found = sources.variable(budget.redis_env or "")
        if not found:
            sources.findings.fault(place, f"names the variable {budget.redis_env}, which isn't set")
            return None
        text = found
    try:
        return parse_redis_url(text)
    except ValueError as error:
        sources.findings.fault(place, f"{error}" if budget.redis is not None else f"names a URL that {error}")
        return None


def _default(sources: Sources) -> Path | None:
    """The directory for nobody named one; None: this user has none."""
    state, home = Path(sources.variable("XDG_STATE_HOME") or ""), Path(sources.variable("HOME") or "")
    if state.is_absolute():  # the specification says to ignore others
        return state / "apiflux"
    return home / ".local" / "state" / "apiflux" if home.is_absolute() else None
