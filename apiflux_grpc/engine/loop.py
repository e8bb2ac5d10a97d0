"""The engine's life on its own loop: make the batches, handle messages until it is stopped, say Down.

Rule: whatever ends the engine, the server hears Down, or its streams would wait for ever. So a fault says it before
the clean-up, which may take long, and the outermost `finally` says it again; a second Down changes nothing.

Owner: the engine's loop.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from apiflux_grpc.engine.batches import Batches
from apiflux_grpc.engine.mailbox import Mailbox
from apiflux_grpc.engine.messages import Down, Up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apiflux_grpc.engine.batches import PoolParts
    from apiflux_grpc.engine.messages import Outbound
    from apiflux_grpc.engine.ports import Clock, Observer


class EngineLoop:
    """What runs in the engine's thread, or on the server's loop, together with it."""

    def __init__(
        self,
        parts: Sequence[PoolParts],
        post: Callable[[Outbound], None],
        observer: Observer,
        clock: Clock,
        batch_size: int,
    ) -> None:
        self._parts = parts
        self._post = post
        self._observer = observer
        self._clock = clock
        self._batch_size = batch_size

    def run(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        """The body of a thread: a loop of its own."""
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(self._live())
        except BaseException as caught:
            error = caught
        finally:
            self._say_down(error)

    async def serve(self) -> None:
        """The same on the running loop, for tests and virtual time."""
        error: BaseException | None = None
        try:
            await self._live()
        except Exception as caught:
            error = caught
        finally:
            self._say_down(error)

    async def _live(self) -> None:
        batches: Batches | None = None
        try:
            batches = Batches(self._parts, self._post, self._observer, self._clock, self._batch_size)
            self._post(Up(Mailbox(asyncio.get_running_loop(), batches.handle)))
            await batches.stopped.wait()
        except Exception as error:
            self._say_down(error)
        finally:
            if batches is not None:
                await batches.close()

    def _say_down(self, error: BaseException | None) -> None:
        error_id = None if error is None else uuid.uuid4().hex[:12]
        self._post(Down(error_id))  # first, or an observer that fails leaves every stream hanging
        if error is not None and error_id is not None:
            self._observer.crashed(error, error_id)
