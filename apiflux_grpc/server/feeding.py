"""A stream's way in: its calls are handed over as they come, as long as there is room for them.

Rule: read no further while too many calls, or too many bytes of them, have no result. gRPC's flow control then holds
the caller back, so memory is bounded on both sides. Whatever goes wrong here must end the stream, or its writer would
wait for results of calls that nobody feeds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from apiflux_grpc.engine.ticket import Ticket
    from apiflux_grpc.server.checking import StreamChecking
    from apiflux_grpc.v1 import apiflux_pb2 as pb

SLICE: Final = 500  # calls handed over without giving the loop a turn


async def feed(
    first: pb.ProcessStreamRequest,
    rest: AsyncIterator[pb.ProcessStreamRequest],
    checking: StreamChecking,
    ticket: Ticket,
    window: Callable[[], int],
    held: int,
) -> None:
    """Hand over the calls of a stream as they come, and read no further while too many have no result.

    gRPC's flow control then holds the caller back. A fault ends the stream, after the results that have come.
    """
    message = first
    try:
        while True:
            for place, calls in enumerate(checking.slices(message, SLICE)):
                if place:
                    await asyncio.sleep(0)
                ticket.feed(*checking.take(calls))
                while (ticket.unfinished >= window() or ticket.held > held) and not ticket.is_over:
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
