"""A dispatcher and time, for tests of what becomes of batches, calls and keys: no loop, no network, no reader."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.bucket import FAR
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.dispatcher import Dispatcher
from apiflux_grpc.core.headers import Headers
from apiflux_grpc.core.model import Key, Limit, Pool, RetryPolicy
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome, Result
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import SECOND

WALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
POOL: Final = Pool("pool", (Key("key-0", "secret", (Limit(10, SECOND),)), Key("key-1", "secret", (Limit(10, SECOND),))))


def batch_of(calls: int, *, idempotent: bool = True, policy: RetryPolicy = POOL.retry, id: int = 1) -> Batch:
    return Batch(id, "caller", calls, admitted_at=0, calls=[Call(idempotent=idempotent)] * calls, policy=policy)


class Desk:
    """A dispatcher, and time."""

    def __init__(self, pool: Pool = POOL) -> None:
        self.now = 0
        self.dispatcher = Dispatcher(pool, None)

    def submit(self, batch: Batch) -> list[Result]:
        return self.dispatcher.submit(batch, self.now)

    def assign(self) -> list[Permit]:
        return self.dispatcher.assign(self.now, FAR)[0]

    def end(self, permit: Permit, outcome: Outcome, draw: float = 0.0) -> Result | None:
        if not isinstance(outcome, NotSent):
            self.dispatcher.sent(permit, self.now)
        return self.dispatcher.settle(permit, outcome, self.now, WALL, draw)

    def answer(self, permit: Permit, status: int = 200, **headers: str) -> Result | None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.end(permit, Answer(status, Headers.of(named), b"", self.now))
