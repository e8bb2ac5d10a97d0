"""Whatever cancels an RPC stops its batch, and nothing else: nobody hangs, and no work is left behind."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from apiflux_grpc.client import Call, Client, InternalError, SyncClient
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.serving import Bulky, Held, connected, repeated, serving, settled, stub_of, until


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str | None, int]]:
    """Code and level of each RPC's log line."""
    return [
        (getattr(record, "code", None), record.levelno)
        for record in caplog.records
        if record.name == "apiflux.rpc" and "Process" in str(getattr(record, "method", ""))
    ]


@pytest.mark.parametrize("method", ["submit", "look"])
async def test_a_cancellation_of_our_own_hangs_nobody(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """CancelledError in a handler whose RPC nobody cancelled is a fault of ours: INTERNAL, not a client that waits."""

    def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Engine, method, cancelled)
    async with serving() as server, Client(server.address) as client:
        with pytest.raises(InternalError):
            await (client.info() if method == "look" else anext(client.repeat(1)))
        monkeypatch.undo()
        assert (await anext(client.repeat(1))).ok


async def test_a_client_s_cancel_goes_on_as_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that swallowed it would leak a stream's native memory; and it is no error of ours in the log."""
    caplog.set_level(logging.INFO, "apiflux")
    ended: list[type[BaseException] | None] = []

    class Watched(FluxService):
        async def Process(  # type: ignore[override]  # noqa: N802  # as in FluxService
            self, request: pb.ProcessRequest, context: Any
        ) -> None:
            try:
                await super().Process(request, context)
                ended.append(None)
            except BaseException as error:
                ended.append(type(error))
                raise

    async with serving(upstream=Held(), service=Watched) as server:
        async with connected(server) as channel:
            calls = [stub_of(channel).Process(repeated(5)) for _ in range(5)]
            await until(lambda: server.engine.admission.batches == 5)
            for call in calls:
                call.cancel()
            await until(lambda: len(ended) == 5)
        assert await server.engine.wait_idle(30)
        assert server.engine.admission.calls == 0
    assert ended == [asyncio.CancelledError] * 5
    assert lines(caplog) == [("CANCELLED", logging.INFO)] * 5


async def test_a_cancel_during_a_blocked_write_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """grpc raises an error of its own then; it is logged as a cancelled RPC, and leaves nothing behind."""
    caplog.set_level(logging.INFO, "apiflux")
    async with serving(upstream=Bulky(1 << 16)) as server, Client(server.address) as client:
        async with connected(server) as channel:
            calls = [stub_of(channel).Process(repeated(1000)) for _ in range(3)]
            for call in calls:
                await call.read()
            # 192 MB: the windows of the connection fill, and then no result leaves the engine any more.
            assert await settled(lambda: server.engine.admission.calls, client) > 0
            for call in calls:
                call.cancel()
            assert await server.engine.wait_idle(30)
        assert server.engine.admission.calls == 0
        assert lines(caplog) == [("CANCELLED", logging.INFO)] * 3
        assert max(record.levelno for record in caplog.records) < logging.WARNING
        assert (await anext(client.repeat(1))).ok


def test_leaving_the_loop_of_the_synchronous_client_stops_the_work() -> None:
    """A `break` tells grpc nothing; the dropped stream cancels its RPC."""

    async def scenario() -> None:
        # A few go through, so that there is a result to leave at; the others wait.
        async with serving(limits=(Limit(500, 3600 * SECOND),)) as server:

            def use() -> None:
                with SyncClient(server.address) as client:
                    for _ in client.process([Call()] * 20_000):
                        break
                    while client.info().open_batches:
                        pass

            await asyncio.to_thread(use)
            assert server.engine.admission.calls == 0

    asyncio.run(scenario())
