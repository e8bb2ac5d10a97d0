"""Peers whose issuer isn't trusted any more, on connections that were made while it was.

Rule: once an authority is removed from client_ca_file, an RPC of a peer that none of the others issued is refused, and
those that are open end with the same error, and with them their batches. grpc can't close a connection that it has; it
closes each after an hour (lifecycle.py), and the next handshake fails by itself.

Until an authority is removed every peer was checked as it connected, and nothing is checked again.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc

from apiflux_grpc.core.errors import PeerNotTrusted
from apiflux_grpc.server.door import ask_first
from apiflux_grpc.server.peer import peer_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from apiflux_grpc.server.issuers import Issuers
    from apiflux_grpc.server.peer import Peer

_REMEMBERED: Final = 10_000  # verdicts: certificates that live for minutes would make more and more


class _Open:
    """An RPC that is being handled."""

    def __init__(self, peer: Peer, task: asyncio.Task[Any]) -> None:
        self.peer = peer
        self.task = task
        self.is_refused = False


class Peers(grpc.aio.ServerInterceptor):
    """Knows the open RPCs of each peer, and who issued it."""

    def __init__(self, authorities: Sequence[bytes]) -> None:
        self._authorities = frozenset(authorities)
        self._issuers: Issuers | None = None  # since one was removed
        self._open: set[_Open] = set()
        self._verdicts: dict[tuple[bytes, bytes], bool] = {}

    def trust(self, authorities: Sequence[bytes]) -> int:
        """Only these from now on, each in PEM. Returns how many open RPCs that ends."""
        before, self._authorities = self._authorities, frozenset(authorities)
        if self._issuers is None and before <= self._authorities:
            return 0
        from apiflux_grpc.server.issuers import Issuers  # slow to import, and rarely needed

        self._issuers = Issuers(authorities)
        self._verdicts.clear()
        ended = [one for one in self._open if not (one.is_refused or self._trusts(one.peer))]
        for one in ended:
            one.is_refused = True
            one.task.cancel()
        return len(ended)

    def _trusts(self, peer: Peer) -> bool:
        if self._issuers is None:
            return True
        shown = peer.certificate, peer.chain
        if (verdict := self._verdicts.get(shown)) is None:
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            verdict = self._verdicts[shown] = self._issuers.issued(*shown)
        return verdict

    def _check(self, context: Any) -> Peer:
        """Raises PeerNotTrusted."""
        peer = peer_of(context)
        if peer is None or not self._trusts(peer):
            raise PeerNotTrusted()
        return peer

    @contextmanager
    def _handling(self, context: Any) -> Iterator[None]:
        """Raises PeerNotTrusted, at the start or in place of what a cancellation by `trust` becomes."""
        task = asyncio.current_task()
        assert task is not None
        one = _Open(self._check(context), task)  # again, for its authority may be gone since the request arrived
        self._open.add(one)
        try:
            yield
        except asyncio.CancelledError:
            # Not if its client has cancelled it too: nobody is left to be told.
            if one.is_refused and not task.uncancel():
                raise PeerNotTrusted() from None
            raise
        finally:
            self._open.discard(one)

    # grpc's handlers are records of callables whose types no stub can tell; hence Any.
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        ask_first(self._check)  # before anything is read
        if handler.request_streaming and handler.response_streaming:
            make, behavior = grpc.stream_stream_rpc_method_handler, self._streaming(handler.stream_stream)
        elif handler.response_streaming:
            make, behavior = grpc.unary_stream_rpc_method_handler, self._streaming(handler.unary_stream)
        elif handler.request_streaming:
            make, behavior = grpc.stream_unary_rpc_method_handler, self._unary(handler.stream_unary)
        else:
            make, behavior = grpc.unary_unary_rpc_method_handler, self._unary(handler.unary_unary)
        return make(behavior, handler.request_deserializer, handler.response_serializer)

    def _unary(self, behavior: Any) -> Any:
        async def wrapped(request: Any, context: Any) -> Any:
            with self._handling(context):
                return await behavior(request, context)

        return wrapped

    def _streaming(self, behavior: Any) -> Any:
        if not inspect.isasyncgenfunction(behavior):
            return self._unary(behavior)

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._handling(context):
                async for response in behavior(request, context):
                    yield response

        return generated
