"""A stream's way in: its calls are handed over as they come, as long as there is room for them.

Rule: read no further while too many calls, or too many bytes of them, have no result. gRPC's flow control then holds
the caller back, so memory is bounded on both sides. Whatever goes wrong here must end the stream, or its writer would
wait for results of calls that nobody feeds.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.checks import Fault
from apiflux_grpc.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from apiflux_grpc.core.quotas import Account
    from apiflux_grpc.engine.ports import Clock
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
    clock: Clock,
) -> None:
    """Hand over the calls of a stream as they come, and read no further while too many have no result.

    gRPC's flow control then holds the caller back, also while it has used up its quotas. A fault ends the stream, after
    the results that have come.
    """
    message = first
    account = ticket.account
    most = SLICE if account is None else account.slice(SLICE)
    try:
        while True:
            for place, calls in enumerate(checking.slices(message, most)):
                if place:
                    await asyncio.sleep(0)
                if account is None:
                    ticket.feed(*checking.take(calls))
                else:
                    await _room(ticket, account, len(calls), clock)
                    before = ticket.total
                    ticket.feed(*checking.take(calls))
                    account.fed(ticket.total - before, clock())
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


async def _room(ticket: Ticket, account: Account, calls: int, clock: Clock) -> None:
    """Wait until the quotas of its caller have room for so many calls, or the batch is over."""
    while not ticket.is_over and (wait := account.wait(calls, clock())):
        with suppress(TimeoutError):
            await asyncio.wait_for(ticket.progress(), wait / 1e9)
