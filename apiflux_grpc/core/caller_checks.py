"""The checks of a caller who may not send all that its pool takes.

Rule: it narrows what the pool allows and never widens it. Only callers with methods or paths of their own have these
checks, so others pay nothing for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.checks import Checks, Fault, leading_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.callers import Access
    from apiflux_grpc.core.model import Pool


class CallerChecks(Checks):
    """Checks, and the methods and paths of one caller."""

    def __init__(self, pool: Pool, access: Access) -> None:
        super().__init__(pool)
        self._methods = access.methods
        self._paths = access.paths

    def call(
        self,
        id: str,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        query: Sequence[tuple[str, str]],
        timeout: int | None,
        cost: int | None,
    ) -> list[Fault]:
        faults = super().call(id, method, path, headers, query, timeout, cost)
        if self._methods is not None and (method or "GET") not in self._methods:
            faults.append(Fault("method", f"is not allowed to you: use {', '.join(sorted(self._methods))}"))
        if self._paths is not None:
            full = path if path.startswith("/") else f"/{path}"
            if not full.startswith(self._paths):
                faults.append(Fault("path", f"is not allowed to you: your paths start with {', '.join(self._paths)}"))
            elif not faults:  # else the pool's prefixes may have told of it
                faults += leading_out(full)
        return faults


def checks_for(pool: Pool, access: Access) -> Checks:
    """The checks of a caller's calls for this pool."""
    return Checks(pool) if access.methods is None and access.paths is None else CallerChecks(pool, access)


def common_paths(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The beginnings of paths that begin with one of both; an empty list is of all."""
    if not some or not others:
        return tuple(some or others)
    pairs = (sorted((one, other), key=len) for one in some for other in others)
    return tuple(dict.fromkeys(longer for shorter, longer in pairs if longer.startswith(shorter)))
