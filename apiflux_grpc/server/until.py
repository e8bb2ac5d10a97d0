"""RPCs of callers whose credentials end: so do these, an hour later.

Rule: a stream that was begun with a token that ends isn't cut at once, for a batch may well take longer than a token
lives; but nobody who lost their right may go on for ever. The batch of what ends so is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc

from apiflux_grpc.core.errors import CredentialsExpired
from apiflux_grpc.core.units import SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

AFTER_EXPIRY: Final = 3600 * SECOND


def ending(handler: Any, at: int, wall: Callable[[], int] = time.time_ns) -> Any:
    """The handler, cancelled at that time of the wall clock, with CredentialsExpired as its error."""
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    behavior = next(kind for kind in kinds if kind is not None)
    if inspect.isasyncgenfunction(behavior):

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            with within(at - wall()):
                async for response in behavior(request, context):
                    yield response

        wrapped: Any = generated
    else:

        async def written(request: Any, context: Any) -> Any:
            with within(at - wall()):
                return await behavior(request, context)

        wrapped = written
    if handler.request_streaming:
        streaming, unary = grpc.stream_stream_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    else:
        streaming, unary = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
    make = streaming if handler.response_streaming else unary
    return make(wrapped, handler.request_deserializer, handler.response_serializer)


@contextmanager
def within(left: int) -> Iterator[None]:
    """Raises CredentialsExpired in place of what the cancellation after `left` ns becomes."""
    task = asyncio.current_task()
    assert task is not None
    ended: list[bool] = []

    def end(task: asyncio.Task[Any]) -> None:
        ended.append(True)
        task.cancel()

    timer = asyncio.get_running_loop().call_later(max(0, left) / SECOND, end, task)
    try:
        yield
    except asyncio.CancelledError:
        # Not if its client has cancelled it too: nobody is left to be told.
        if ended and not task.uncancel():
            raise CredentialsExpired() from None
        raise
    finally:
        timer.cancel()
