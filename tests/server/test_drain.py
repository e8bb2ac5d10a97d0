"""A server that is told to stop finishes what is in flight, refuses the rest, and says so before it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.client import Call, Client, Result, Stream, Unavailable
from apiflux_grpc.core.model import Limit
from apiflux_grpc.core.units import SECOND
from tests.server.serving import Held, connected, serving, until

GRACE = 30.0  # far more than any test takes: here nothing is cut


async def take_all(stream: Stream, into: list[Result]) -> None:
    """What comes before an error counts too."""
    async for result in stream:
        into.append(result)  # noqa: PERF401  # a comprehension would lose it


async def test_a_drain_says_not_serving_refuses_and_lets_calls_finish() -> None:
    """Health changes first; then new batches are UNAVAILABLE with a delay, while a call in flight gets its answer."""
    held = Held()
    async with (
        serving(upstream=held, grace=GRACE) as server,
        connected(server) as channel,
        Client(server.address) as client,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="apiflux.v1.FluxService"))
        states = health_pb2.HealthCheckResponse
        assert (await watch.read()).status == states.SERVING
        waiting = asyncio.create_task(anext(client.repeat(1)))
        await until(lambda: len(held.begun) == 1)
        stopping = asyncio.create_task(server.stop())
        assert (await watch.read()).status == states.NOT_SERVING
        await until(lambda: server.engine.draining)
        with pytest.raises(Unavailable) as caught:
            await anext(client.repeat(1))
        assert (caught.value.reason, caught.value.retry_delay) == ("DRAINING", 5.0)
        assert (await client.info()).open_batches == 1
        held.release()
        assert (await waiting).ok
        watch.cancel()
        await stopping


async def test_a_drain_ends_a_stream_that_would_go_on() -> None:
    """Calls in flight finish, what was fed and not sent is DRAINING, then UNAVAILABLE."""
    never = asyncio.Event()

    async def calls() -> AsyncIterator[Call]:
        for number in range(50):
            yield Call(f"/{number}")
        await never.wait()

    held = Held()
    limits = (Limit(10, 3600 * SECOND),)
    async with serving(upstream=held, limits=limits, grace=GRACE) as server, Client(server.address) as client:
        stream = client.process_stream(calls())
        results: list[Result] = []
        reading = asyncio.create_task(take_all(stream, results))
        await until(lambda: server.engine.admission.calls == 50 and len(held.begun) == 10)
        stopping = asyncio.create_task(server.stop())
        await until(lambda: len(results) == 40)
        held.release()
        with pytest.raises(Unavailable) as caught:
            await reading
        await stopping
    assert caught.value.reason == "DRAINING"
    assert sum(result.ok for result in results) == 10
    assert all(result.error.reason == "DRAINING" for result in results if result.error is not None)
    assert len(results) == 50
