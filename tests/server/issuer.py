"""An issuer of tokens, for tests, that knows one caller."""

from __future__ import annotations

import asyncio

from apiflux_grpc.core.callers import Access, Identity
from apiflux_grpc.core.errors import CredentialsInvalid, Forbidden, KeyUnknown


class Issuer:
    """Knows `ann.a.b`, whose token ends at `ends`, once its keys are there; `unknown` are asked for so long. `bob.a.b`
    has no role."""

    def __init__(self, ends: int, *, unknown: int = 0) -> None:
        self._ends = ends
        self._unknown = unknown
        self.renewed = 0

    def identity(self, token: str) -> Identity:
        if token == "bob.a.b":
            raise Forbidden("the token has no role that may use this server")
        if token != "ann.a.b":
            raise CredentialsInvalid()
        if self.renewed < self._unknown:
            raise KeyUnknown()
        return Identity("ann", Access(), self._ends)

    async def renew(self) -> None:
        self.renewed += 1
        await asyncio.sleep(0)
