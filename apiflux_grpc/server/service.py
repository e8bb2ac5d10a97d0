"""FluxService: one short method per RPC.

Rule: a handler's `finally` cancels its ticket, which never waits, so whatever ends an RPC ends its batch. An error of
ours is one of core/errors.py and is simply raised: the interceptor tells the caller, by server/status.py.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final

from apiflux_grpc import __version__
from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import Draining, InvalidRequest
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server import wire
from apiflux_grpc.server.checking import Checking, StreamChecking, check_estimate
from apiflux_grpc.server.feeding import feed
from apiflux_grpc.server.info import put_pool
from apiflux_grpc.server.interceptors import note
from apiflux_grpc.server.receiving import admitted
from apiflux_grpc.server.results import ResultStream
from apiflux_grpc.server.visit import Visits
from apiflux_grpc.server.words import MODES
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc

PROCESS: Final = "/apiflux.v1.FluxService/Process"
# Bytes of a request that is no batch. Anyone may ask for health, and a watcher's request is kept as long as it watches.
LARGEST: Final = 1 << 20
LARGEST_OF_HEALTH: Final = 1 << 10
_HEALTH: Final = "/grpc.health."

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.engine.ticket import Ticket
    from apiflux_grpc.server.defaults import Defaults
    from apiflux_grpc.server.visit import Visit


class FluxService(apiflux_pb2_grpc.FluxServiceServicer):
    """The servicer, over an engine."""

    def __init__(self, engine: Engine, defaults: Defaults) -> None:
        self._engine = engine
        self._defaults = defaults
        self._visits = Visits(engine)

    def expect(self, method: str, size: int) -> None:
        """Raises Refused if a request of so many bytes is to be refused whatever it says. 0: before it came."""
        if method == PROCESS:
            self._engine.expect(1, size)
            return
        most = LARGEST_OF_HEALTH if method.startswith(_HEALTH) else LARGEST
        if size > most:
            raise InvalidRequest([Fault("request", f"has {size} bytes; use at most {most}")])

    async def Process(  # type: ignore[override]  # the stub knows generators only; this form writes by itself
        self, request: pb.ProcessRequest, context: Any
    ) -> None:
        correlation_id = request.correlation_id or uuid.uuid4().hex
        visit = self._visits.of(context)
        note(correlation_id=correlation_id[:128], pool=(request.pool or visit.default_pool)[:64])
        ticket = await self._admit(request, visit, context)
        try:
            await self._stream(ticket, wire.names_of(request), context, correlation_id).run()
        finally:
            ticket.cancel()

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        visit = self._visits.of(context)
        state = await self._engine.look()
        defaults, admission = self._defaults, self._engine.admission
        response = pb.GetInfoResponse(
            mode=MODES[defaults.mode],
            version=__version__,
            default_repeat_count=defaults.repeat_count,
            max_batch_calls=defaults.max_batch_calls,
            max_batch_bytes=defaults.max_batch_bytes,
            max_results_per_message=defaults.batch_size,
            open_batches=admission.batches,
            open_calls=admission.calls,
            default_pool=visit.default_pool,
            worker=defaults.worker,
            workers=defaults.workers,
        )
        offset = wire.wall_offset(self._engine.clock)
        for name, pool in sorted(visit.pools.items()):
            put_pool(response.pools.add(), visit.shown(pool), None if state is None else state.pools[name], offset)
        return response

    async def ProcessStream(  # type: ignore[override]  # as Process
        self, request_iterator: Any, context: Any
    ) -> None:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("open"):
            raise InvalidRequest([Fault("open", "is missing; send it in the first message")])
        correlation_id = first.open.correlation_id or uuid.uuid4().hex
        visit = self._visits.of(context)
        note(correlation_id=correlation_id[:128], pool=(first.open.pool or visit.default_pool)[:64])
        checking = StreamChecking(first.open, visit.pool(first.open.pool), visit.access)
        ticket = self._engine.submit(checking.spec(visit.name), visit.account)
        feeding: asyncio.Task[None] | None = None
        try:
            # The greeting: the stream was taken. A client that waits a moment for it hears a refusal before it writes.
            await context.send_initial_metadata(())
            feeding = asyncio.create_task(
                feed(first, request_iterator, checking, ticket, self._window, self._defaults.held, self._engine.clock)
            )
            await self._stream(ticket, checking.name, context, correlation_id).run()
        finally:
            if feeding is not None:
                feeding.cancel()
            ticket.cancel()

    async def Estimate(self, request: pb.EstimateRequest, context: Any) -> pb.EstimateResponse:
        visit = self._visits.of(context)
        note(pool=(request.pool or visit.default_pool)[:64], calls=request.calls)
        pool = visit.pool(request.pool)
        check_estimate(request, pool)
        told = await self._engine.ask(pool.name, visit.name, request.calls, request.cost_per_call or 1)
        response = pb.EstimateResponse(binding_limit=told.binding)
        if told.makespan is not None:
            response.makespan.FromNanoseconds(told.makespan)
        return response

    async def _admit(self, request: pb.ProcessRequest, visit: Visit, context: Any) -> Ticket:
        """Check the batch and hand it over; raises Refused."""
        engine, defaults = self._engine, self._defaults
        if engine.draining:
            raise Draining()  # before anything is said of the request: it may be fine elsewhere
        pool = visit.pool(request.pool)
        checking = Checking(
            request,
            pool,
            visit.name,
            default_repeat=defaults.repeat_count,
            max_calls=defaults.max_batch_calls,
            max_bytes=defaults.max_batch_bytes,
            access=visit.access,
        )
        engine.expect(checking.calls, checking.size, pool.name)
        for _ in checking.slices():
            await asyncio.sleep(0)
        left = context.time_remaining()
        spec = checking.spec(None if left is None else int(left * SECOND))
        note(calls=len(spec.calls))
        ticket = engine.submit(spec, visit.account)
        admitted()
        return ticket

    def _stream(self, ticket: Ticket, name: Callable[[int], str], context: Any, correlation_id: str) -> ResultStream:
        return ResultStream(ticket, name, context, correlation_id, self._defaults, self._engine.clock)

    def _window(self) -> int:
        """How many calls of one stream may be without a result: fewer when the queue is full."""
        admission = self._engine.admission
        return self._defaults.window if admission.calls < admission.bounds.calls else self._defaults.window // 10
