"""The synchronous client: the same calls, results and errors over grpc's blocking channel.

Rule: thin. Closing, or dropping, a stream cancels its RPC, and nothing is sent again by itself unless `resume` is asked
for, as in the asynchronous client.
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import grpc

from apiflux_grpc.client.calls import process_request, stream_open
from apiflux_grpc.client.channel import check_timeout
from apiflux_grpc.client.errors import error_from, never_ready
from apiflux_grpc.client.hook import check_hook
from apiflux_grpc.client.info import Estimate, Info, together
from apiflux_grpc.client.received import Received
from apiflux_grpc.client.resume import resumption_of
from apiflux_grpc.client.resuming_sync import SyncResuming
from apiflux_grpc.client.same_pool import part_of
from apiflux_grpc.client.servers_sync import SyncReach, SyncServers
from apiflux_grpc.client.several import Several
from apiflux_grpc.client.spreading_sync import SyncSpreading
from apiflux_grpc.client.streaming_sync import SyncStreaming
from apiflux_grpc.client.token import TokenFile, Tokens
from apiflux_grpc.client.whole import GIVE_UP_AFTER, WINDOW
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apiflux_grpc.client.calls import AnyCall, Retry
    from apiflux_grpc.client.hook import OnProgress
    from apiflux_grpc.client.results import Result
    from apiflux_grpc.client.resuming_sync import SyncBeforeSend
    from apiflux_grpc.client.several import OnTarget
    from apiflux_grpc.client.tls import TlsOptions
    from apiflux_grpc.client.whole import OnConnection
    from apiflux_grpc.v1 import apiflux_pb2_grpc


class SyncStream(Received):
    """The results of one batch, as they complete: `for result in stream`. Dropping it cancels the batch."""

    def __init__(self, call: Any, on_progress: OnProgress | None = None) -> None:
        super().__init__(call, on_progress)
        self._messages: Iterator[pb.ProcessResponse] = iter(call)

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        """The next result. Raises ApifluxError if the request fails as a whole."""
        while not self._results:
            try:
                message = next(self._messages)
            except grpc.RpcError as error:
                raise error_from(error) from None
            self._take(message)
        return self._results.pop()

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class SyncClient:
    """A connection to a server at `target` (HOST:PORT). Use it as `with SyncClient(target) as client`.

    `tls`, `credentials`, `token` and `plaintext_token` as with Client; a file of `tls` that can't be read is an OSError
    here, and one that isn't PEM a ValueError, and a name without an address Unavailable. Several targets as with
    Client, whose calls are spread in threads.
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
        self._servers = SyncServers(target, options, tls, credentials, Tokens(token, over_plaintext=plaintext_token))
        self._servers.open()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    @property
    def targets(self) -> list[str]:
        """HOST:PORT of each server."""
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
    ) -> SyncStream:
        """Run one batch; see Client.process. `on_progress` is a plain function here."""
        request = process_request(
            calls, pool=pool, priority=priority, correlation_id=correlation_id, retry=retry, ordered=ordered
        )
        hook = check_hook(on_progress, may_be_async=False)
        call = self._stub.Process(request, timeout=check_timeout(timeout), metadata=self._servers.metadata)
        return SyncStream(call, hook)

    def process_stream(
        self,
        calls: Iterable[AnyCall],
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
        before_send: SyncBeforeSend | None = None,
        on_progress: OnProgress | None = None,
        expected: int | None = None,
        on_connection: OnConnection | None = None,
        on_target: OnTarget | None = None,
    ) -> SyncStream:
        """Run a batch of any length, with `resume` also over several connections and servers; see
        Client.process_stream.

        The iterable is read, and `before_send` called, in a thread of grpc's. Calls that come fast travel together, so
        a producer must not wait for the result of the call it gave last.
        """
        hook = check_hook(on_progress, may_be_async=False)
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
        if resume and self._servers.are_several:
            reach = SyncReach(self._servers, pool)
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
            return SyncStream(SyncSpreading(reach, several, calls, before_send), hook)
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
            return SyncStream(SyncStreaming(lambda requests: self._open(timeout, requests), header, calls), hook)
        return SyncStream(SyncResuming(self._open, batch, calls, before_send), hook)

    def estimate(self, calls: int, *, pool: str = "", cost: int = 0, timeout: float = 10.0) -> Estimate:
        """How long a batch of so many calls would take now; see Client.estimate. Raises ApifluxError."""
        if len(self._servers.all) < 2:
            request = pb.EstimateRequest(pool=pool, calls=calls, cost_per_call=cost)
            return Estimate.of(self._ask(self._stub.Estimate, request, timeout))
        limit, metadata = check_timeout(timeout), self._servers.metadata
        infos = self._servers.ask_all(
            lambda one: one.stub.GetInfo.future(pb.GetInfoRequest(), timeout=limit, metadata=metadata)
        )
        part, shared = part_of(calls, pool, infos.values())
        request = pb.EstimateRequest(pool=pool, calls=part, cost_per_call=cost)
        answers = self._servers.ask_all(lambda one: one.stub.Estimate.future(request, timeout=limit, metadata=metadata))
        return together(answers.values(), shared=shared)

    def info(self, *, timeout: float = 10.0) -> Info:
        """What the server is. Raises ApifluxError."""
        return Info.of(self._ask(self._stub.GetInfo, pb.GetInfoRequest(), timeout))

    def wait_ready(self, timeout: float = 10.0) -> None:
        """Wait until the server answers, of several one. Raises Unavailable if none does within `timeout` seconds."""
        limit = check_timeout(timeout)
        self._servers.refresh()
        asked = [
            one.stub.GetInfo.future(
                pb.GetInfoRequest(), timeout=limit, metadata=self._servers.metadata, wait_for_ready=True
            )
            for one in self._servers.all
        ]
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for future in asked:
            future.add_done_callback(ended.put)
        try:
            for _ in asked:
                error = ended.get().exception()
                if error is None:
                    return
        finally:
            for future in asked:
                future.cancel()
        raise never_ready(error, " or ".join(one.target for one in self._servers.all), timeout) from None

    def _ask(self, method: Any, request: Any, timeout: float) -> Any:
        """One request, one answer. Raises ApifluxError."""
        try:
            return method(request, timeout=check_timeout(timeout), metadata=self._servers.metadata)
        except grpc.RpcError as error:
            raise error_from(error) from None

    def _open(self, timeout: float | None, requests: Iterator[pb.ProcessStreamRequest]) -> Any:
        """A connection for a stream of calls."""
        return self._stub.ProcessStream(requests, timeout=timeout, metadata=self._servers.metadata)

    @property
    def _stub(self) -> apiflux_pb2_grpc.FluxServiceStub:
        stub: apiflux_pb2_grpc.FluxServiceStub = self._servers.pick().stub
        return stub
