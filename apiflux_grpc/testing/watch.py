"""The engine's side of an upstream: an attempt without an engine, which writes down what it is told."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.batch import Batch
from apiflux_grpc.core.budget import Budget
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.keys import KeyState
from apiflux_grpc.core.model import Key
from apiflux_grpc.core.permit import Permit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.ports import Attempt

if TYPE_CHECKING:
    from apiflux_grpc.core.outcome import Outcome


A_KEY: Final = Key("key-1", "sk-test-0123456789", ())


class Watch(Attempt):
    """An attempt without a pump: `sent_at` and `outcomes` list what it was told, in order.

    Its permit is of `key` and was taken at `taken_at` (None: now). Made on a running loop.
    """

    __slots__ = ("_over", "outcomes", "sent_at")

    def __init__(
        self,
        call: Call | None = None,
        key: Key = A_KEY,
        timeout: int = 10 * SECOND,
        taken_at: int | None = None,
    ) -> None:
        now = time.monotonic_ns() if taken_at is None else taken_at
        state = KeyState(0, key, Budget((), 0, None))
        permit = Permit(state, Batch(1, "test", 1, admitted_at=now), 0, 1, 1, now, 0)
        super().__init__(permit, call or Call(), timeout, Watch._note_sent, Watch._note_done)  # type: ignore[arg-type]
        self.sent_at: list[int] = []
        self.outcomes: list[Outcome] = []
        self._over = asyncio.get_running_loop().create_future()

    async def over(self) -> Outcome:
        """Waits for `done`; the first outcome."""
        await asyncio.shield(self._over)
        return self.outcomes[0]

    def _note_sent(self, at: int) -> None:
        self.sent_at.append(at)

    def _note_done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if not self._over.done():
            self._over.set_result(None)
