"""Broken variants of what an administrator does to keys."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

CORE: Final = "apiflux_grpc/core/"
SERVER: Final = "apiflux_grpc/server/"
OF_PAUSES: Final = ("tests/core/test_paused_keys.py",)
OF_ADMINISTRATION: Final = ("tests/server/test_administration.py",)

ADMINISTRATION: Final = (
    Variant(
        "keys: calls end if all keys are paused",
        CORE + "keys.py",
        "if self.paused_at is not None:\n            return True",
        "if self.paused_at is not None:\n            return False",
        OF_PAUSES,
    ),
    Variant(
        "keys: a call waits for a paused key though it may end",
        CORE + "keyring.py",
        "if not mask >> key.index & 1 and key.paused_at is None)",
        "if not mask >> key.index & 1)",
        OF_PAUSES,
    ),
    Variant(
        "keys: a new secret has the faults of the old one",
        CORE + "keyring.py",
        "        key.breaker.renew()\n",
        "",
        OF_PAUSES,
    ),
    Variant(
        "keys: what was sent with the old secret isn't sent again",
        CORE + "keyring.py",
        "key.secret_era = key.breaker.era",
        "key.secret_era = 0",
        OF_PAUSES,
    ),
    Variant(
        "keys: what another server has said is taken back",
        SERVER + "paused.py",
        "now = self.read() | {*places} if paused else self.read() - {*places}",
        "now = frozenset(places) if paused else self.read() - {*places}",
        OF_ADMINISTRATION,
    ),
    Variant(
        "keys: a secret counts while it's being written",
        SERVER + "administration.py",
        "return self.seen != self.tried and self.seen == before",
        "return self.seen != self.tried",
        OF_ADMINISTRATION,
    ),
    Variant(
        "keys: a pool that somebody doesn't see is theirs to pause",
        SERVER + "administration.py",
        "narrowed(self._engine.pools, access)",
        "narrowed(self._engine.pools, EVERYTHING)",
        OF_ADMINISTRATION,
    ),
)
