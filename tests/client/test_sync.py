"""The synchronous client's stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apiflux_grpc.client import Call, InvalidRequest, SyncClient, SyncStream, Unavailable
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.defaults import Defaults
from tests.server.serving import serving


async def in_thread(target: str, work: Callable[[SyncClient], Any]) -> Any:
    def run() -> Any:
        with SyncClient(target) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def test_calls_are_fed_while_results_come() -> None:
    """More than the server's window, from a generator; the summary comes last."""
    count = Defaults().window + 2_000

    def work(client: SyncClient) -> SyncStream:
        client.wait_ready()
        stream = client.process_stream(Call(f"/{number}") for number in range(count))
        assert {result.index for result in stream if result.ok} == set(range(count))
        return stream

    async with serving() as server:
        stream = await in_thread(server.address, work)
        assert stream.summary is not None
        assert stream.summary.succeeded == count


async def test_the_producer_is_held_back() -> None:
    """About as much is taken as the server and the buffers between hold."""
    taken = 0

    def calls() -> Iterator[Call]:
        nonlocal taken
        for number in range(1_000_000):
            taken += 1
            yield Call(f"/{number}", body=b"x" * 1000)

    def work(client: SyncClient) -> None:
        with client.process_stream(calls()) as stream:
            assert next(stream).ok

    async with serving(limits=(Limit(10, 3600 * SECOND),)) as server:
        await in_thread(server.address, work)
        assert await server.engine.wait_idle(10)
    assert taken < 60_000


async def test_errors_come_out_of_the_iteration() -> None:
    """The producer's own, those of the request, and a server that isn't there."""

    def fails() -> Iterator[Call]:
        yield Call("/1")
        raise ZeroDivisionError

    def work(client: SyncClient) -> None:
        with pytest.raises(ZeroDivisionError):
            list(client.process_stream(fails()))
        with pytest.raises(InvalidRequest) as caught:
            list(client.process_stream([Call("../up")], strict=True))
        assert [place for place, _ in caught.value.violations] == ["calls[0].path"]
        (result,) = client.process_stream([Call("../up")])
        assert result.error is not None
        assert result.error.reason == "INVALID_CALL"

    def nobody(client: SyncClient) -> None:
        with pytest.raises(Unavailable):
            next(client.process_stream([Call()]))

    async with serving() as server:
        await in_thread(server.address, work)
        assert await server.engine.wait_idle(10)
    await in_thread("127.0.0.1:1", nobody)
