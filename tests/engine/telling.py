"""Processes that share a limit through a store, and an upstream that tells what is left, and that others use too.

Rule: the upstream counts what arrives, and knows neither processes nor leases. Strangers come at a constant rate and
are always admitted. Nothing is random but what a seed says.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import RetryPolicy
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.testing import FakePacer, loop_clock
from tests.core.upstreams import ietf
from tests.engine.sharing import Api, J, Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apiflux_grpc.core.model import Limit
    from apiflux_grpc.engine.ports import Attempt
    from tests.core.upstreams import Upstream

# A call is tried as often as it takes: what is asked is how often it was refused.
STUBBORN: Final = RetryPolicy(max_attempts=1000)


class TellingApi(Api):
    """One that counts, and tells."""

    def __init__(self, shared: Telling) -> None:
        super().__init__(shared.arrivals, Random(len(shared.processes)), shared.latency)
        self._shared = shared

    def _write(self, attempt: Attempt) -> None:
        if attempt not in self.open:
            return
        if attempt.send_by is not None and loop_clock() > attempt.send_by:
            super()._write(attempt)
            return
        self.send(attempt)
        late = self._luck.uniform(0, min(J / 1e9, self.latency))
        asyncio.get_running_loop().call_later(late, self._count, attempt, self.latency - late)

    def _count(self, attempt: Attempt, back: float) -> None:
        self._arrive(attempt.key.label, attempt.permit.cost)
        shared, now = self._shared, loop_clock()
        ok = shared.counter.arrives(now)
        (shared.admitted if ok else shared.refused).append(now)
        answer = (200 if ok else 429, shared.tells(shared.counter, now) if shared.speaks else {})
        asyncio.get_running_loop().call_later(back, self._end_with, attempt, *answer)

    def _end_with(self, attempt: Attempt, status: int, headers: Mapping[str, str]) -> None:
        if attempt in self.open:
            self._end(attempt, Answer(status, Headers.of(headers), b"", loop_clock()))


class Telling(Shared):
    """Processes on one key, whose limit `counter` keeps. `admitted` and `refused` are our arrivals."""

    make_pacer = FakePacer

    def __init__(
        self,
        limit: Limit,
        counter: Upstream,
        *,
        latency: float = 0.01,
        tells: Callable[[Upstream, int], dict[str, str]] = ietf,
    ) -> None:
        super().__init__(limit, latency=latency)
        self.counter = counter
        self.tells = tells
        self.speaks = True
        self.admitted: list[int] = []
        self.refused: list[int] = []

    def make_api(self) -> TellingApi:
        return TellingApi(self)

    def strangers(self, calls: int, per: int = SECOND) -> asyncio.Task[None]:
        """Others, who send so many in each `per` from now on."""

        async def come() -> None:
            while True:
                self.counter.arrives(loop_clock(), always=True)
                await asyncio.sleep(per / calls / 1e9)

        return asyncio.get_running_loop().create_task(come())

    def between(self, start: int, end: int) -> tuple[int, int]:
        """(admitted, refused) within these instants of the loop's clock (ns)."""
        return (
            sum(start <= at < end for at in self.admitted),
            sum(start <= at < end for at in self.refused),
        )
