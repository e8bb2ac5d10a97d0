"""Generated stubs and several servers: gRPC's own round_robin with health checking, as docs/howto/clients.md has it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from apiflux_grpc.client import Client
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.v1 import apiflux_pb2 as pb
from apiflux_grpc.v1 import apiflux_pb2_grpc
from docs.common import DOCS
from tests.server.serving import Held, serving


def service_config() -> str:
    """The one that the page shows."""
    page = (DOCS / "howto" / "clients.md").read_text()
    block = page.partition('```json title="service config"\n')[2].partition("```")[0]
    return json.dumps(json.loads(block))


@asynccontextmanager
async def stub_for(*servers: Server) -> AsyncIterator[Any]:
    addresses = ",".join(server.address for server in servers)
    options = [("grpc.service_config", service_config()), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options) as channel:
        yield apiflux_pb2_grpc.FluxServiceStub(channel)


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Any, list[Server]]]:
    """A stub for two servers, and those."""
    async with serving() as one, serving() as other, stub_for(one, other) as stub:
        yield stub, [one, other]


async def ask(stub: Any, times: int) -> None:
    for _ in range(times):
        request = pb.ProcessRequest(calls=[pb.Call()])
        messages = [message async for message in stub.Process(request, wait_for_ready=True)]
        assert messages[-1].summary.succeeded == 1


async def test_batches_go_to_all_servers_in_turn() -> None:
    """One channel for a static list of addresses."""
    async with both() as (stub, servers):
        await until_all_are_used(stub, servers)


async def test_a_server_that_is_not_serving_gets_no_new_batches() -> None:
    """It says so by its health, and still answers; back in health it is used again."""
    async with both() as (stub, (one, other)):
        await until_all_are_used(stub, [one, other])
        await one.health.set(False)
        while await asks_in_turn(stub, one):
            pass
        before = await calls_of(one)
        await ask(stub, 20)
        assert await calls_of(one) == before
        await one.health.set(True)
        await until_all_are_used(stub, [one, other])


async def test_a_server_that_ends_is_missed_by_its_own_batch_alone() -> None:
    """That is cut as UNAVAILABLE; the other's goes on, and new ones go there."""
    held = [Held(), Held()]
    async with serving(upstream=held[0], grace=0.0) as one, serving(upstream=held[1]) as other:  # noqa: SIM117
        async with stub_for(one, other) as stub:
            batches: list[Any] = []
            while not all(upstream.open for upstream in held):
                batches.append(stub.Process(pb.ProcessRequest(calls=[pb.Call()]), wait_for_ready=True))
                progress = await anext(aiter(batches[-1]))
                assert progress.HasField("progress")
            await one.stop()
            held[1].release()
            ends = [await end_of(batch) for batch in batches]
            assert set(ends) == {"UNAVAILABLE", ""}
            before = await calls_of(other)
            await ask(stub, 10)
            assert await calls_of(other) == before + 10


async def end_of(batch: Any) -> str:
    """The status that ends it; "": its call has its answer."""
    try:
        messages = [message async for message in batch]
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    assert messages[-1].summary.succeeded == 1
    return ""


async def until_all_are_used(stub: Any, servers: list[Server]) -> None:
    while not all([await asks_in_turn(stub, server) for server in servers]):
        pass


async def asks_in_turn(stub: Any, server: Server) -> bool:
    """Whether one of several batches went there."""
    before = await calls_of(server)
    await ask(stub, 4)
    return await calls_of(server) > before


async def calls_of(server: Server) -> int:
    """How many calls it has made since its start."""
    async with Client(server.address) as client:
        return sum(key.attempts for pool in (await client.info()).pools for key in pool.keys)
