"""A batch's way back: its results come out of the ticket and go to the caller, message by message.

Rule: one writer per stream. Nothing but `ResultStream.run` writes to the RPC's context, because two writes at once hang
the client; progress and summary travel in messages of results. A place in the batch's outbox is free again only when
the write of its result has returned, so a slow reader slows its own batch down and no other.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from apiflux_grpc.core.batch import Ending
from apiflux_grpc.core.errors import DeadlineInfeasible, Draining, ReaderStalled
from apiflux_grpc.engine.messages import FLUSH_BYTES
from apiflux_grpc.server import wire
from apiflux_grpc.server.interceptors import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.messages import Results
    from apiflux_grpc.engine.ports import Clock
    from apiflux_grpc.engine.ticket import Ticket
    from apiflux_grpc.server.defaults import Defaults
    from apiflux_grpc.v1 import apiflux_pb2 as pb


class ResultStream:
    """One batch's way back to its caller."""

    def __init__(
        self,
        ticket: Ticket,
        name: Callable[[int], str],
        context: Any,
        correlation_id: str,
        defaults: Defaults,
        clock: Clock,
    ) -> None:
        self._ticket = ticket
        self._name = name
        self._context = context
        self._correlation_id = correlation_id
        self._batch_size = defaults.batch_size
        self._write_timeout = defaults.write_timeout
        self._progress_every = defaults.progress_every
        self._clock = clock  # the engine's
        self._progress_at = 0.0
        self._eta_told = False

    async def run(self) -> None:
        """Write until the batch is over.

        Raises what ended it early: DeadlineInfeasible, ReaderStalled, EngineFailed, or after its summary Draining.
        """
        offset = wire.wall_offset(self._clock)
        while True:
            message = await self._ticket.next(self._batch_size)
            if message.over is not None and message.over.ending is Ending.INFEASIBLE:
                raise DeadlineInfeasible(message.over.eta, self._ticket.deadline or 0)
            for last, results, size in _pieces(message, self._batch_size):
                response = wire.encode(results, self._name, offset)
                self._tell(response, message, last, offset)
                try:
                    async with asyncio.timeout(self._write_timeout):
                        await self._context.write(response)
                except TimeoutError:
                    raise ReaderStalled(self._write_timeout) from None
                self._ticket.credit(len(results), size)  # only now: the reader's pace is the batch's
            if message.over is not None:
                self._ticket.check()  # a stream that can't be fed further is over too, and its fault is the answer
                note(results=self._ticket.received, ending=message.over.ending.value)
                if message.over.ending is Ending.DRAINING:
                    raise Draining()
                return

    def _tell(self, response: pb.ProcessResponse, message: Results, last: bool, offset: int) -> None:
        """Add progress if it is due or has the first ETA, and the summary to the last piece of the last message."""
        now = time.monotonic()
        over = message.over if last else None
        is_news = message.standing.eta is not None and not self._eta_told
        if over is not None or is_news or now - self._progress_at >= self._progress_every:
            self._progress_at = now
            self._eta_told |= is_news
            wire.put_progress(response, message.standing, self._ticket.total, offset)
        if over is not None:
            wire.put_summary(response, over, self._correlation_id)


def _pieces(message: Results, most: int) -> Iterator[tuple[bool, list[Result], int]]:
    """(is it the last, results, bytes): one message's results in pieces of at most `most` and about FLUSH_BYTES."""
    items = message.items
    if len(items) <= most and message.size <= FLUSH_BYTES:
        yield True, items, message.size
        return
    piece: list[Result] = []
    size = 0
    for item in items:
        more = item.size
        if piece and (len(piece) == most or size + more > FLUSH_BYTES):
            yield False, piece, size
            piece, size = [], 0
        piece.append(item)
        size += more
    yield True, piece, size
