"""The asynchronous client.

Rule: whoever stops reading stops the work. A stream that is closed, cancelled, or simply dropped after a `break`
cancels its RPC; grpc alone would not tell the server. Nothing is sent again by itself, unless `resume` is asked for:
a broken stream is an exception, and what came before it is good.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.calls import process_request, repeat_request, stream_open
from apiflux_grpc.client.channel import check_timeout
from apiflux_grpc.client.errors import ApifluxError, error_from, never_ready
from apiflux_grpc.client.feed import source_of
from apiflux_grpc.client.hook import check_hook
from apiflux_grpc.client.info import Estimate, Info, together
from apiflux_grpc.client.received import Received
from apiflux_grpc.client.results import Progress, Result
from apiflux_grpc.client.resume import resumption_of
from apiflux_grpc.client.resuming import Resuming
from apiflux_grpc.client.same_pool import part_of
from apiflux_grpc.client.servers import Reach, Servers, of_all
from apiflux_grpc.client.several import Several
from apiflux_grpc.client.spreading import Spreading
from apiflux_grpc.client.streaming import Streaming
from apiflux_grpc.client.token import TokenFile, Tokens
from apiflux_grpc.client.whole import GIVE_UP_AFTER, WINDOW
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
    from types import TracebackType

    from apiflux_grpc.client.calls import AnyCall, Call, Retry
    from apiflux_grpc.client.feed import CallSource
    from apiflux_grpc.client.hook import OnProgress
    from apiflux_grpc.client.resuming import BeforeSend
    from apiflux_grpc.client.servers import Server
    from apiflux_grpc.client.several import OnTarget
    from apiflux_grpc.client.tls import TlsOptions
    from apiflux_grpc.client.whole import OnConnection
    from apiflux_grpc.v1 import apiflux_pb2_grpc

    Responses = grpc.aio.UnaryStreamCall[Any, pb.ProcessResponse] | Streaming | Resuming | Spreading


class Stream(Received):
    """The results of one batch, as they complete: `async for result in stream`.

    `summary` is set after the last result, `progress` about once a second. Leaving the loop, the `async with`
    block, or dropping the object cancels the batch.
    """

    def __init__(self, call: Responses, on_progress: OnProgress | None = None) -> None:
        super().__init__(call, on_progress)
        self._messages = _read(call)  # must not hold `self`, or dropping the stream would not end it

    def __aiter__(self) -> AsyncIterator[Result]:
        return self

    async def __anext__(self) -> Result:
        """The next result. Raises ApifluxError if the request fails as a whole."""
        while not self._results:
            message = await anext(self._messages, None)
            if message is None:
                raise StopAsyncIteration
            await self._told(message)
        return self._results.pop()

    async def messages(self) -> AsyncIterator[tuple[Sequence[Result], Progress | None]]:
        """The same, a message at a time: (results, the progress that came with them). For progress displays."""
        async for message in self._messages:
            await self._told(message)
            results, self._results = self._results, []
            results.reverse()
            yield results, Progress.of(message.progress) if message.HasField("progress") else None

    async def raw(self) -> AsyncIterator[pb.ProcessResponse]:
        """The same, as messages of the contract."""
        async for message in self._messages:
            await self._told(message, keep=False)
            yield message

    async def _told(self, message: pb.ProcessResponse, keep: bool = True) -> None:
        if (telling := self._take(message, keep)) is not None:
            await self._hook.finish(telling)

    async def aclose(self) -> None:
        """Cancel, if it isn't over."""
        self.cancel()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.cancel()


async def _read(call: Responses) -> AsyncIterator[pb.ProcessResponse]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None


class Client:
    """A connection to a server at `target` (HOST:PORT). Use it as `async with Client(target) as client`.

    Several servers that have the same pool are a sequence of targets, or one string with commas; dns:///NAME:PORT is
    all servers whose addresses the name has. Then process_stream with `resume` spreads its calls over all, and
    everything else goes to one of them, in turn.

    `tls` or `credentials` (grpc's own) switch TLS on. `token` is sent with every request as `authorization: Bearer`; a
    TokenFile is read again when it has changed. Without TLS it could be read on its way, so it goes to this machine
    alone, unless `plaintext_token`. Raises ValueError for a target, a token or a combination that can't be used;
    entering raises OSError if a file of `tls` can't be read, ValueError if it isn't PEM, and Unavailable if a name has
    no address.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        tls: TlsOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | TokenFile | None = None,
        plaintext_token: bool = False,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._servers = Servers(target, options, tls, credentials, Tokens(token, over_plaintext=plaintext_token))

    async def __aenter__(self) -> Client:
        await self._servers.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._servers.close()

    @property
    def targets(self) -> list[str]:
        """HOST:PORT of each server, once it is entered."""
        return [server.target for server in self._servers.all]

    def process(
        self,
        calls: Iterable[AnyCall],
        *,
        pool: str = "",
        priority: int = 0,
        correlation_id: str = "",
        retry: Retry | None = None,
        ordered: bool = False,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Stream:
        """Run one batch. `timeout` (seconds) is the deadline of the whole; None: none.

        `on_progress` is called with every Progress of the server's, about once a second and at the end, while results
        are read; a coroutine function is awaited. If it raises, that is logged, and it isn't called again.

        Errors come out of the iteration, as ApifluxError: InvalidRequest, PoolNotFound, Overloaded, Unavailable,
        DeadlineExceeded, InternalError.
        """
        request = process_request(
            calls, pool=pool, priority=priority, correlation_id=correlation_id, retry=retry, ordered=ordered
        )
        return self.send(request, timeout=timeout, on_progress=on_progress)

    def process_stream(
        self,
        calls: Iterable[AnyCall] | AsyncIterable[AnyCall] | CallSource,
        *,
        pool: str = "",
        priority: int = 0,
        correlation_id: str = "",
        retry: Retry | None = None,
        ordered: bool = False,
        strict: bool = False,
        timeout: float | None = None,
        resume: bool = False,
        window: int = WINDOW,
        give_up_after: float = GIVE_UP_AFTER,
        before_send: BeforeSend | None = None,
        on_progress: OnProgress | None = None,
        expected: int | None = None,
        on_connection: OnConnection | None = None,
        on_target: OnTarget | None = None,
    ) -> Stream:
        """Run a batch of any length: calls are taken from the iterable while results come back.

        No more than the server is ready for are taken, about 10,000 without a result. A call that is wrong gets a
        result with the error INVALID_CALL, or with `strict` ends the whole as InvalidRequest. Otherwise as `process`.

        With `resume` the batch outlives its connection: when the server goes away, drains or is full, calls without a
        result are sent to it again once it is back, but for those that may have run and aren't idempotent: they
        get the error UNKNOWN with `may_have_run`. At most `window` calls are handed over without a result; that is
        what can come into doubt. The last error comes out if the first connection fails, or if nothing was heard
        for `give_up_after` seconds. `before_send` is awaited with the indexes of calls just before they are handed
        over, to note them down. `on_connection` is called with the error when the connection is lost, and with None
        when the server is heard again. After a lost connection the summary is counted from the results.

        With `resume` and several targets each server takes calls as it has room, until all are done. The
        calls of one that is lost go to the others by the same rules, and one that comes back is used again. The
        connection is lost when all are. `on_target` is called with a target and the error when one of them is lost, or
        left out because it has another pool, and with None when it is there again.

        `expected` is how many calls the iterable will give, so that the progress tells when all of them are done; None:
        as many as its length says, if it has one.
        """
        header = stream_open(
            calls,
            pool=pool,
            priority=priority,
            correlation_id=correlation_id,
            retry=retry,
            ordered=ordered,
            strict=strict,
            expected=expected,
        )
        hook = check_hook(on_progress, may_be_async=True)
        source = source_of(calls)
        if resume and self._servers.are_several:
            reach = Reach(self._servers, pool)
            several = Several(
                reach.names,
                header,
                time.monotonic(),
                window=window,
                give_up_after=give_up_after,
                timeout=timeout,
                on_connection=on_connection,
                on_target=on_target,
            )
            return Stream(Spreading(reach, several, source, before_send), hook)
        batch = resumption_of(
            header,
            time.monotonic(),
            resume=resume,
            window=window,
            give_up_after=give_up_after,
            timeout=timeout,
            before_send=before_send,
            on_connection=on_connection,
        )
        if batch is None:
            return Stream(Streaming(lambda requests: self._open(timeout, requests), header, source), hook)
        return Stream(Resuming(self._open, batch, source, before_send), hook)

    def repeat(
        self,
        count: int = 0,
        template: Call | None = None,
        *,
        pool: str = "",
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Stream:
        """Synthetic load: one call `count` times (0: the server's default). Otherwise as `process`."""
        return self.send(repeat_request(count, template, pool), timeout=timeout, on_progress=on_progress)

    def send(
        self, request: pb.ProcessRequest, *, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Stream:
        """Run one batch, given as the message of the contract. Otherwise as `process`."""
        hook = check_hook(on_progress, may_be_async=True)
        return Stream(
            self._stub.Process(request, timeout=check_timeout(timeout), metadata=self._servers.metadata), hook
        )

    async def estimate(self, calls: int, *, pool: str = "", cost: int = 0, timeout: float = 10.0) -> Estimate:
        """How long a batch of so many calls would take now with its fair share. Raises ApifluxError.

        Of several servers each is asked for an equal part, and the slowest of those that answer tells. If they share
        their limits through a store, each is asked for all, and the fastest tells: one that was busy until now counts
        with the share that it had.
        """
        servers = self._servers.all
        if len(servers) < 2:
            request = pb.EstimateRequest(pool=pool, calls=calls, cost_per_call=cost)
            return Estimate.of(await self._ask(self._stub.Estimate, request, timeout))
        infos = await self.raw_infos(timeout=timeout)
        part, shared = part_of(calls, pool, infos.values())
        request = pb.EstimateRequest(pool=pool, calls=part, cost_per_call=cost)
        answers = await of_all(servers, lambda one: self._ask(one.stub.Estimate, request, timeout))
        return together(answers.values(), shared=shared)

    async def info(self, *, timeout: float = 10.0) -> Info:
        """What the server is: mode, pools, keys, limits. Raises ApifluxError."""
        return Info.of(await self.raw_info(timeout=timeout))

    async def raw_info(self, *, timeout: float = 10.0) -> pb.GetInfoResponse:
        """The same, as the message of the contract: with the rules that each pool has for its calls."""
        message: pb.GetInfoResponse = await self._ask(self._stub.GetInfo, pb.GetInfoRequest(), timeout)
        return message

    async def raw_infos(self, *, timeout: float = 10.0) -> dict[str, pb.GetInfoResponse | ApifluxError]:
        """The same of every server, by its target, or why it doesn't answer; once one has, the others have 2 s."""
        self._servers.refresh()
        return await of_all(self._servers.all, lambda one: self._ask(one.stub.GetInfo, pb.GetInfoRequest(), timeout))

    async def wait_ready(self, timeout: float = 10.0) -> None:
        """Wait until the server answers, of several one. Raises Unavailable if none does within `timeout` seconds."""
        check_timeout(timeout)
        self._servers.pick()
        waiting = [asyncio.ensure_future(self._ready(server, timeout)) for server in self._servers.all]
        try:
            for answered in asyncio.as_completed(waiting):
                try:
                    return await answered
                except grpc.aio.AioRpcError as error:
                    last = error
            raise never_ready(last, " or ".join(self.targets), timeout) from None
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ready(self, server: Server, timeout: float) -> None:
        metadata = self._servers.metadata
        await server.stub.GetInfo(pb.GetInfoRequest(), timeout=timeout, metadata=metadata, wait_for_ready=True)

    async def _ask(self, method: Any, request: Any, timeout: float) -> Any:
        """One request, one answer. Raises ApifluxError."""
        try:
            return await method(request, timeout=check_timeout(timeout), metadata=self._servers.metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from(error) from None

    def _open(self, timeout: float | None, requests: AsyncIterator[pb.ProcessStreamRequest] | None = None) -> Any:
        """A connection for a stream of calls; without `requests` they are written to it."""
        return self._stub.ProcessStream(requests, timeout=timeout, metadata=self._servers.metadata)

    @property
    def _stub(self) -> apiflux_pb2_grpc.FluxServiceAsyncStub:
        stub: apiflux_pb2_grpc.FluxServiceAsyncStub = self._servers.pick().stub
        return stub
