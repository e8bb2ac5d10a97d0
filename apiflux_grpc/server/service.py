"""FluxService: one short method per RPC.

Rule: one writer per stream. Results come out of the batch's ticket, and only the handler writes them; its `finally`
cancels the ticket, which never waits. An error of ours is one of core/errors.py and is simply raised: the interceptor
tells the caller, by server/status.py.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc import __version__
from apiflux_grpc.core.batch import Ending
from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import (
    DeadlineInfeasible,
    Draining,
    InvalidRequest,
    ReaderStalled,
)
from apiflux_grpc.core.model import SECOND
from apiflux_grpc.engine.messages import FLUSH_BYTES
from apiflux_grpc.server import wire
from apiflux_grpc.server.checking import Checking, StreamChecking, check_estimate
from apiflux_grpc.server.interceptors import caller_of, note
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from apiflux_grpc.core.outcome import Result
    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.engine.messages import Results
    from apiflux_grpc.engine.ticket import Ticket

PROGRESS_EVERY: Final = 1.0  # seconds
WINDOW: Final = 10_000  # calls of a stream without a result, at most
HELD: Final = 64 << 20  # bytes of such calls, at most and one message more
SLICE: Final = 500  # calls of a stream taken over without giving the loop a turn


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the service tells and applies by itself."""

    mode: str = "test"
    repeat_count: int = 50
    max_batch_calls: int = 50_000
    max_batch_bytes: int = 32 << 20
    batch_size: int = 100  # results per message at most
    write_timeout: float = 300.0  # seconds that a reader may leave a message unread


class FluxService(apiflux_pb2_grpc.FluxServiceServicer):
    """The servicer, over an engine."""

    def __init__(self, engine: Engine, defaults: Defaults) -> None:
        self._engine = engine
        self._defaults = defaults

    async def Process(  # type: ignore[override]  # the stub knows generators only; this form writes by itself
        self, request: pb.ProcessRequest, context: Any
    ) -> None:
        correlation_id = request.correlation_id or uuid.uuid4().hex
        note(correlation_id=correlation_id[:128], pool=(request.pool or "default")[:64])
        ticket = await self._admit(request, context)
        try:
            await _Stream(ticket, wire.names_of(request), context, correlation_id, self._defaults).run()
        finally:
            ticket.cancel()

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        state = await self._engine.look()
        defaults, admission = self._defaults, self._engine.admission
        response = pb.GetInfoResponse(
            mode=defaults.mode,
            version=__version__,
            default_repeat_count=defaults.repeat_count,
            max_batch_calls=defaults.max_batch_calls,
            max_batch_bytes=defaults.max_batch_bytes,
            max_results_per_message=defaults.batch_size,
            open_batches=admission.batches,
            open_calls=admission.calls,
        )
        for name, pool in sorted(self._engine.pools.items()):
            wire.put_pool(response.pools.add(), pool, None if state is None else state.pools[name])
        return response

    async def ProcessStream(  # type: ignore[override]  # as Process
        self, request_iterator: Any, context: Any
    ) -> None:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("open"):
            raise InvalidRequest([Fault("open", "is missing; send it in the first message")])
        correlation_id = first.open.correlation_id or uuid.uuid4().hex
        name = first.open.pool or "default"
        note(correlation_id=correlation_id[:128], pool=name[:64])
        checking = StreamChecking(first.open, self._engine.pool(name))
        ticket = self._engine.submit(checking.spec(caller_of(context.peer())))
        feeding: asyncio.Task[None] | None = None
        try:
            # The greeting: the stream was taken. A client that waits a moment for it hears a refusal before it writes.
            await context.send_initial_metadata(())
            feeding = asyncio.create_task(_feed(first, request_iterator, checking, ticket, self._engine))
            await _Stream(ticket, checking.name, context, correlation_id, self._defaults).run()
        finally:
            if feeding is not None:
                feeding.cancel()
            ticket.cancel()

    async def Estimate(self, request: pb.EstimateRequest, context: Any) -> pb.EstimateResponse:
        name = request.pool or "default"
        note(pool=name[:64], calls=request.calls)
        check_estimate(request, self._engine.pool(name))
        told = await self._engine.ask(name, caller_of(context.peer()), request.calls, request.cost_per_call or 1)
        response = pb.EstimateResponse(binding_limit=told.binding)
        if told.makespan is not None:
            response.makespan.FromNanoseconds(told.makespan)
        return response

    async def _admit(self, request: pb.ProcessRequest, context: Any) -> Ticket:
        """Check the batch and hand it over; raises Refused."""
        engine, defaults = self._engine, self._defaults
        if engine.draining:
            raise Draining(5 * SECOND)  # before anything is said of the request: it may be fine elsewhere
        checking = Checking(
            request,
            engine.pool(request.pool or "default"),
            caller_of(context.peer()),
            default_repeat=defaults.repeat_count,
            max_calls=defaults.max_batch_calls,
            max_bytes=defaults.max_batch_bytes,
        )
        for _ in checking.slices():
            await asyncio.sleep(0)
        left = context.time_remaining()
        spec = checking.spec(None if left is None else int(left * SECOND))
        note(calls=len(spec.calls))
        return engine.submit(spec)


class _Stream:
    """One batch's way back to its caller."""

    def __init__(
        self,
        ticket: Ticket,
        name: Callable[[int], str],
        context: Any,
        correlation_id: str,
        defaults: Defaults,
    ) -> None:
        self._ticket = ticket
        self._name = name
        self._context = context
        self._correlation_id = correlation_id
        self._batch_size = defaults.batch_size
        self._write_timeout = defaults.write_timeout
        self._progress_at = 0.0

    async def run(self) -> None:
        """Write until the batch is over. Raises Draining where it ended because of that."""
        offset = wire.wall_offset()
        while True:
            message = await self._ticket.next(self._batch_size)
            if message.over is not None and message.over.ending is Ending.INFEASIBLE:
                raise DeadlineInfeasible(message.over.eta, self._ticket.deadline or 0)
            for last, results, size in _pieces(message, self._batch_size):
                response = wire.encode(results, self._name, offset)
                self._tell(response, message, last)
                try:
                    async with asyncio.timeout(self._write_timeout):
                        await self._context.write(response)
                except TimeoutError:
                    raise ReaderStalled(self._write_timeout) from None
                self._ticket.credit(len(results), size)
            if message.over is not None:
                self._ticket.check()
                note(results=self._ticket.received, ending=message.over.ending.value)
                if message.over.ending is Ending.DRAINING:
                    raise Draining(5 * SECOND)
                return

    def _tell(self, response: pb.ProcessResponse, message: Results, last: bool) -> None:
        """Progress where it is due, and the summary with the last piece of the last message."""
        now = time.monotonic()
        over = message.over if last else None
        if over is not None or now - self._progress_at >= PROGRESS_EVERY:
            self._progress_at = now
            wire.put_progress(response, message.standing, self._ticket.total)
        if over is not None:
            wire.put_summary(response, over, self._correlation_id)


async def _feed(
    first: pb.ProcessStreamRequest,
    rest: AsyncIterator[pb.ProcessStreamRequest],
    checking: StreamChecking,
    ticket: Ticket,
    engine: Engine,
) -> None:
    """Hand over the calls of a stream as they come, and read no further while too many have no result.

    gRPC's flow control then holds the caller back. A fault ends the stream, after the results that have come.
    """
    message = first
    try:
        while True:
            for start in range(0, len(message.calls), SLICE):
                ticket.feed(*checking.take(message.calls[start : start + SLICE]))
                while (ticket.unfinished >= _window(engine) or ticket.held > HELD) and not ticket.is_over:
                    await ticket.progress()
            if ticket.is_over:
                return
            if message.stop:
                ticket.end_unsent()
                return
            next_message = await anext(rest, None)
            if next_message is None:
                ticket.end()
                return
            message = next_message
            if message.HasField("open"):
                raise InvalidRequest([Fault("open", "came again; send it in the first message alone")])
    except Exception as error:  # whatever it is, the stream's writer must hear of it
        ticket.cancel()
        ticket.fail(error)


def _window(engine: Engine) -> int:
    """How many calls of one stream may be without a result: fewer when the queue is full."""
    return WINDOW if engine.admission.calls < engine.admission.bounds.calls else WINDOW // 10


def _pieces(message: Results, most: int) -> Iterator[tuple[bool, list[Result], int]]:
    """(is it the last, results, bytes): one message's results in pieces of at most `most` and about FLUSH_BYTES."""
    items = message.items
    if len(items) <= most and message.size <= FLUSH_BYTES:
        yield True, items, message.size
        return
    piece: list[Result] = []
    size = 0
    for item in items:
        if piece and (len(piece) == most or size + item.size > FLUSH_BYTES):
            yield False, piece, size
            piece, size = [], 0
        piece.append(item)
        size += item.size
    yield True, piece, size
