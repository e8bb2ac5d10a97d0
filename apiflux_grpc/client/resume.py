"""A stream that outlives its connection: what is known of each call, and the reconnecting around it.

Rules:
- A call that may have run is sent again only if it is idempotent; otherwise its result is the error UNKNOWN with
  `may_have_run`. A call that was handed to the connection counts as one that may have run, unless the server said
  otherwise: it gives every call it took its result when it drains, and takes none when it refuses the stream.
- Every call gets exactly one result. No more than `window` calls are handed over without one, so that is also what
  a lost connection can leave in doubt, and what memory holds.
- `Accounts` decides and does no I/O; `Resuming` talks to the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2

from apiflux_grpc.client.errors import (
    ApifluxError,
    DeadlineInfeasible,
    InvalidRequest,
    Overloaded,
    PoolNotFound,
    Unavailable,
    error_from,
)
from apiflux_grpc.client.feed import BYTES_PER_MESSAGE, CALLS_PER_MESSAGE, close
from apiflux_grpc.client.tally import Tally, error_info
from apiflux_grpc.client.types import is_idempotent, to_message
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from apiflux_grpc.client.feed import AnyCall, CallSource

    BeforeSend = Callable[[Sequence[int]], Awaitable[None]]

WINDOW: Final = 2_000  # calls without a result
WINDOW_BYTES: Final = 64 << 20  # the same in bytes; a single call may be larger
GIVE_UP_AFTER: Final = 60.0  # seconds
_FIRST_WAIT: Final = 0.1  # seconds before a new attempt; doubles up to
_LONGEST_WAIT: Final = 5.0
# Seconds between opening and the first calls, unless the server greets: a refusal is heard before calls are in doubt.
_HEED: Final = 0.05


def unknown_result(index: int, id: str, why: str) -> pb.CallResult:
    """The result of a call that may have run and must not run twice."""
    result = pb.CallResult(index=index, id=id)
    result.completed_at.GetCurrentTime()
    result.error.code = code_pb2.UNKNOWN
    result.error.message = why
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="UNKNOWN", domain="apiflux.v1", metadata={"may_have_run": "true"}))
    result.error.details.append(detail)
    return result


@dataclass(slots=True)
class _Item:
    index: int  # of the whole, over all connections
    call: pb.Call
    size: int


class Accounts:
    """What is known of each call that was taken from the producer and has no result yet."""

    def __init__(self, ordered: bool = False) -> None:
        self.ready: deque[_Item] = deque()  # may be sent now
        self._open: dict[int, _Item] = {}  # handed to this connection, by its own index
        self._bytes = 0  # of the open ones
        self.sent = 0  # on this connection
        self.draining = False  # this connection, so nothing more is sent on it
        self._taken = 0  # from the producer
        self._held: dict[int, pb.CallResult] | None = {} if ordered else None
        self._next = 0  # the index that is due, where they come in order
        self.delivered = 0

    @property
    def waiting(self) -> int:
        """Calls that take room: handed over, or with a result whose turn hasn't come."""
        return len(self._open) + len(self._held or ())

    @property
    def is_settled(self) -> bool:
        """Every call taken so far has its result."""
        return not self.ready and not self._open

    def take(self, calls: Iterable[AnyCall]) -> None:
        """More calls of the producer's."""
        for call in calls:
            message = to_message(call)
            self.ready.append(_Item(self._taken, message, message.ByteSize()))
            self._taken += 1

    def begin(self) -> None:
        """A new connection, on which nothing was sent."""
        self.sent = 0
        self.draining = False

    def next(self, window: int) -> list[int]:
        """The indexes of what can go into one message now."""
        room = 0 if self.draining else min(window - self.waiting, CALLS_PER_MESSAGE)
        some: list[int] = []
        size = 0
        for item in self.ready:
            size += item.size
            alone = not some and not self._open
            if len(some) >= room or (not alone and self._bytes + size > WINDOW_BYTES):
                break
            if some and size > BYTES_PER_MESSAGE:
                break
            some.append(item.index)
        return some

    def hand_over(self, count: int) -> pb.ProcessStreamRequest:
        """The first `count` calls as a message. From now on they may have run."""
        message = pb.ProcessStreamRequest()
        for _ in range(count):
            item = self.ready.popleft()
            self._open[self.sent] = item
            self.sent += 1
            self._bytes += item.size
            message.calls.append(item.call)
        return message

    def results(self, results: Iterable[pb.CallResult]) -> list[pb.CallResult]:
        """Results of this connection as those of the whole; without those of calls that are sent again."""
        found: list[pb.CallResult] = []
        again: list[_Item] = []
        for result in results:
            item = self._open.pop(result.index, None)
            if item is None:
                continue  # never asked for
            self._bytes -= item.size
            if result.HasField("error"):
                info = error_info(result)
                self.draining |= info.reason == "DRAINING"
                if info.reason == "DRAINING" and (info.metadata["may_have_run"] == "false" or is_idempotent(item.call)):
                    again.append(item)
                    continue
                if info.reason == "INVALID_CALL" and result.index != item.index:
                    own, whole = f"calls[{result.index}]", f"calls[{item.index}]"
                    result.error.message = result.error.message.replace(own, whole)
            result.index = item.index
            found.append(result)
        self._send_again(again)
        return self._in_turn(found)

    def lost(self, taken: int | None, why: str) -> list[pb.CallResult]:
        """The connection is gone; `taken` is how many of its calls the server took, None: not known.

        Returns the results of the calls that may have run and must not be sent again.
        """
        again: list[_Item] = []
        unknown: list[pb.CallResult] = []
        for place, item in self._open.items():
            if (taken is not None and place >= taken) or is_idempotent(item.call):
                again.append(item)
            else:
                unknown.append(unknown_result(item.index, item.call.id, why))
        self._open.clear()
        self._bytes = 0
        self._send_again(again)
        return self._in_turn(unknown)

    def _send_again(self, items: list[_Item]) -> None:
        if items:
            self.ready = deque(sorted([*items, *self.ready], key=lambda item: item.index))

    def _in_turn(self, results: list[pb.CallResult]) -> list[pb.CallResult]:
        if self._held is not None:
            self._held.update((result.index, result) for result in results)
            results = []
            while self._next in self._held:
                results.append(self._held.pop(self._next))
                self._next += 1
        self.delivered += len(results)
        return results


class Resuming:
    """The messages of a batch, over as many connections as it takes. Iterate over it once.

    Raises ApifluxError where the first connection fails, where an error is no lost connection, and where nothing
    came for `give_up_after` seconds.
    """

    def __init__(
        self,
        connect: Callable[[float | None], Any],
        header: pb.ProcessStreamOpen,
        source: CallSource,
        *,
        window: int = WINDOW,
        give_up_after: float = GIVE_UP_AFTER,
        timeout: float | None = None,
        before_send: BeforeSend | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self._connect = connect
        self._header = header
        self._source = source
        self._window = window
        self._give_up_after = give_up_after
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._before_send = before_send
        self._accounts = Accounts(header.ordered)
        self._tally = Tally()
        self._rpc: Any = None
        self._feeding: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._ended = False  # the producer has
        self._failure: Exception | None = None  # of the producer
        self._cancelled = asyncio.Event()
        self._cuts = 0
        # of this connection:
        self._summary: pb.Summary | None = None
        self._heard = False
        self._here = 0  # results

    @property
    def unsent(self) -> list[int]:
        """After the end: the indexes of calls without a result that certainly didn't run, or may run again."""
        return [item.index for item in self._accounts.ready]

    def cancel(self) -> None:
        """Stop it."""
        self._cancelled.set()
        close(self._source)
        if self._feeding is not None:
            self._feeding.cancel()
        if self._rpc is not None:
            self._rpc.cancel()

    async def __aiter__(self) -> AsyncIterator[pb.ProcessResponse]:
        accounts = self._accounts
        met = False  # a server was there
        tries = 0
        heard = time.monotonic()
        try:
            while True:
                self._summary, self._heard = None, False
                error: ApifluxError = Unavailable("the stream ended too early", code=grpc.StatusCode.UNAVAILABLE)
                rpc = self._open()
                try:
                    async for message in rpc:
                        heard, tries = time.monotonic(), 0
                        if response := self._translated(message):
                            yield response
                except grpc.aio.AioRpcError as failed:
                    error = error_from(failed)
                except asyncio.CancelledError:
                    if self._failure is not None:
                        raise self._failure from None
                    raise
                else:
                    if self._ended and accounts.is_settled:
                        yield pb.ProcessResponse(summary=self._last_word())
                        return
                finally:
                    await self._hang_up(rpc)
                met = met or self._heard or accounts.sent > 0
                if lost := self._lost(error):
                    yield lost
                if not _resumable(error) or not (met or error.reason):
                    raise error
                self._cuts += 1
                if self._ended and accounts.is_settled:
                    yield pb.ProcessResponse(summary=self._last_word())
                    return
                wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**tries) * random.uniform(0.5, 1.0)
                tries = min(tries + 1, 10)
                wait = max(wait, error.retry_delay or 0.0)
                if time.monotonic() + wait > heard + self._give_up_after:
                    raise error
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._cancelled.wait(), wait)
        finally:
            self.cancel()

    def _open(self) -> Any:
        """A new connection, and the task that feeds it."""
        if self._cancelled.is_set():
            raise asyncio.CancelledError
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        rpc = self._rpc = self._connect(left)
        self._accounts.begin()
        self._feeding = asyncio.create_task(self._feed(rpc))
        return rpc

    async def _hang_up(self, rpc: Any) -> None:
        rpc.cancel()
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.wait({self._feeding})

    async def _feed(self, rpc: Any) -> None:
        """Hand over calls as there is room. What goes wrong with the connection is the reader's to hear."""
        accounts = self._accounts
        try:
            await rpc.write(pb.ProcessStreamRequest(open=self._header))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEED):
                    await rpc.initial_metadata()
            while True:
                self._room.clear()
                if not accounts.ready and not self._ended and accounts.waiting < self._window:
                    calls = await self._source.take(min(CALLS_PER_MESSAGE, self._window - accounts.waiting))
                    if calls is None:
                        self._ended = True
                    else:
                        accounts.take(calls)
                if some := accounts.next(self._window):
                    if self._before_send is not None:
                        await self._before_send(some)
                        if accounts.draining:  # since
                            continue
                    await rpc.write(accounts.hand_over(len(some)))
                elif self._ended and not accounts.ready:
                    await rpc.done_writing()
                    return
                else:
                    await self._room.wait()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        except Exception as error:
            self._failure = error
            rpc.cancel()

    def _translated(self, message: pb.ProcessResponse) -> pb.ProcessResponse | None:
        """A message of this connection as one of the whole; None: nothing is left of it."""
        self._heard = True
        accounts = self._accounts
        before = accounts.delivered - self._here
        results = accounts.results(message.results)
        self._here = accounts.delivered - before
        self._room.set()
        if message.HasField("summary"):
            self._summary = message.summary
        for result in results:
            self._tally.add(result)
        if not results and not message.HasField("progress"):
            return None
        response = pb.ProcessResponse(results=results)
        if message.HasField("progress"):
            response.progress.CopyFrom(message.progress)
            response.progress.done += before
            response.progress.total += before
        return response

    def _lost(self, error: ApifluxError) -> pb.ProcessResponse | None:
        """This connection is gone; what is to be said of its calls."""
        taken: int | None = None
        if self._summary is not None:
            taken = self._summary.total
        elif not self._heard and _is_refusal(error):
            taken = 0
        why = f"the connection to the server was lost ({error}), and this call must not run twice"
        self._here = 0
        results = self._accounts.lost(taken, why)
        for result in results:
            self._tally.add(result)
        return pb.ProcessResponse(results=results) if results else None

    def _last_word(self) -> pb.Summary:
        if self._summary is not None and not self._cuts:
            return self._summary
        return self._tally.summary(self._header.correlation_id)


def _is_refusal(error: ApifluxError) -> bool:
    """The server said this instead of taking the stream."""
    if isinstance(error, InvalidRequest):
        return all(place.startswith("open") for place, _ in error.violations)
    if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return True
    return error.reason != "" and isinstance(error, Overloaded | Unavailable | PoolNotFound)


def _resumable(error: ApifluxError) -> bool:
    if isinstance(error, DeadlineInfeasible):
        return False
    if error.reason == "READER_STALLED" or isinstance(error, Overloaded | Unavailable):
        return True
    return not error.reason and error.code is grpc.StatusCode.CANCELLED  # the server stopped in the middle
