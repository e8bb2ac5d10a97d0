"""Where budgets are kept: a directory of this host, a server for several, or the memory of this process.

Rule: who names nothing gets the directory that the XDG specification has for state, if a pool calls a real API: a
restart must not spend a key's limit twice. The simulator's keys have nothing to lose.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apiflux_grpc.settings.findings import written
from apiflux_grpc.settings.types import StateSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.types import PoolSettings


def state_of(sources: Sources, pools: Sequence[PoolSettings]) -> StateSettings:
    """Where these pools keep their budgets."""
    server, budget = sources.file.server, sources.file.budget
    trust = server.cold_start == "trust"
    if budget.redis is not None:
        sources.findings.fault(sources.toml_place("budget", "redis"), "is not supported by this version; remove it")
    if server.state_dir is not None:
        place = sources.toml_place("server", "state_dir")
        directory = sources.path(server.state_dir) if server.state_dir else None
        return StateSettings(directory, written(place) if directory else "", trust, budget.lease)
    directory = _default(sources) if any(pool.base_url for pool in pools) else None
    return StateSettings(directory, "", trust, budget.lease)


def _default(sources: Sources) -> Path | None:
    """The directory for nobody named one; None: this user has none."""
    state, home = Path(sources.variable("XDG_STATE_HOME") or ""), Path(sources.variable("HOME") or "")
    if state.is_absolute():  # the specification says to ignore others
        return state / "apiflux"
    return home / ".local" / "state" / "apiflux" if home.is_absolute() else None
