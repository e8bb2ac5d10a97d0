"""What the caller of one RPC sees of the engine, and how it hands work over.

Rule: a pool that a caller may not use doesn't exist for it: not by its name, not in a list, not as the default.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc.core.caller_checks import common_paths
from apiflux_grpc.core.callers import Access, narrowed
from apiflux_grpc.core.errors import PoolNotFound
from apiflux_grpc.core.model import default_of
from apiflux_grpc.core.quotas import Account
from apiflux_grpc.server.door import caller_in, identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.engine.engine import Engine

_ALL: Final = Access()


class Visit:
    """One RPC's caller, its access, and the pools that it sees."""

    __slots__ = ("access", "account", "default_pool", "name", "pools")

    def __init__(self, name: str, access: Access, engine: Engine, account: Account | None) -> None:
        self.name = name
        self.access = access
        self.account = account  # None: it has no quotas
        self.pools: Mapping[str, Pool] = engine.pools
        self.default_pool = engine.default_pool
        if access.pools is not None:
            self.pools = narrowed(engine.pools, access)
            self.default_pool = default_of(self.pools)

    def pool(self, name: str) -> Pool:
        """The pool of this name; "": the default one. Raises PoolNotFound."""
        pool = self.pools.get(name or self.default_pool)
        if pool is None:
            raise PoolNotFound(name[:64], list(self.pools))
        return pool

    def shown(self, pool: Pool) -> Pool:
        """As the caller is told of it: with the paths that its own calls may have."""
        if self.access.paths is None:
            return pool
        return replace(pool, allow_paths=common_paths(pool.allow_paths, self.access.paths))


class Visits:
    """Makes a Visit of each RPC; keeps the accounts of callers with quotas, who are as many as are configured."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._accounts: dict[str, Account] = {}

    def of(self, context: Any) -> Visit:
        known = identity()
        if known is None:
            return Visit(caller_in(context), _ALL, self._engine, None)
        return Visit(known.name, known.access, self._engine, self._account(known.name, known.access))

    def _account(self, name: str, access: Access) -> Account | None:
        if not access.has_quotas:
            return None
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name, access)
        return account
