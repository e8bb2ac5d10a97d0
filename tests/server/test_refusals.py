"""A request that can't be served is refused at once, in words for people and in details for programs."""

from __future__ import annotations

import asyncio
import json
import logging

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from apiflux_grpc.client import Client, InvalidRequest, Overloaded
from apiflux_grpc.core.errors import BatchTooLarge
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.server.checking import Checking
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.serving import SERVING, Held, connected, health_of, repeated, serving, stub_of, until

UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


async def test_every_refusal_carries_an_error_info() -> None:
    """Programs tell errors apart by reason and domain."""
    async with serving() as server, connected(server) as channel:
        for request, reason in (
            (pb.ProcessRequest(), "INVALID_REQUEST"),
            (pb.ProcessRequest(pool="no", repeat=pb.RepeatedCall(count=1)), "POOL_NOT_FOUND"),
            (pb.ProcessRequest(calls=[pb.Call()], repeat=pb.RepeatedCall(count=1)), "INVALID_REQUEST"),
            (pb.ProcessRequest(repeat=pb.RepeatedCall(count=-1)), "INVALID_REQUEST"),
            (pb.ProcessRequest(calls=[pb.Call()], priority=4), "INVALID_REQUEST"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub_of(channel).Process(request).read()
            status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
            assert status is not None
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert (info.reason, info.domain) == (reason, "apiflux.v1")


RETRYING = {
    "methodConfig": [
        {
            "name": [{"service": "apiflux.v1.FluxService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "NOT_FOUND", "INVALID_ARGUMENT"],
            },
        }
    ]
}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (repeated(5_000), "DEADLINE_INFEASIBLE"),
        (pb.ProcessRequest(pool="no", repeat=pb.RepeatedCall(count=1)), "POOL_NOT_FOUND"),
        (pb.ProcessRequest(), "INVALID_REQUEST"),
    ],
    ids=["infeasible", "unknown-pool", "invalid"],
)
async def test_a_library_that_retries_by_itself_is_told_when_that_cannot_help(
    caplog: pytest.LogCaptureFixture, request_: pb.ProcessRequest, reason: str
) -> None:
    """With the usual retry policy of a channel the refusal comes at once, and the batch was sent once."""
    caplog.set_level(logging.INFO, "apiflux.rpc")
    config = ("grpc.service_config", json.dumps(RETRYING))
    async with serving(limits=(Limit(100, 60 * SECOND),)) as server, connected(server, config) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel).Process(request_, timeout=60).read()
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"
    assert [record.reason for record in caplog.records if hasattr(record, "reason")] == [reason]


async def test_many_faults_of_many_words_fit_the_trailers() -> None:
    """Clients take 8 KiB of trailers: a batch with a hundred long faults is still refused in words."""
    euro = "€" * 5_000
    requests = (
        pb.ProcessRequest(
            calls=[pb.Call(headers=[pb.Header(name=f"{euro}{number}", value="\n")]) for number in range(100)]
        ),
        pb.ProcessRequest(
            calls=[
                pb.Call(headers=[pb.Header(name=f"{number}{euro}", value="\0")], method=euro) for number in range(100)
            ]
        ),
        pb.ProcessRequest(calls=[pb.Call(path=euro, id=euro)] * 100),
        pb.ProcessRequest(
            calls=[pb.Call()], retry=pb.RetryPolicy(reasons=[pb.REASON_HTTP_4XX] * 100), correlation_id=euro
        ),
    )
    # At a limit of its own a client drops every larger one; between 8 KiB and a higher one only some, by chance.
    options = [("grpc.max_metadata_size", 8192), ("grpc.absolute_max_metadata_size", 8192)]
    async with serving() as server, Client(server.address, options=options) as client:
        for request in requests:
            with pytest.raises(InvalidRequest) as caught:
                await anext(client.send(request))
            assert caught.value.reason == "INVALID_REQUEST"
            assert len(caught.value.violations) == 20
            assert int(caught.value.metadata["violations_not_shown"]) >= 80


async def test_health_answers_while_every_batch_is_refused() -> None:
    """The bound is Process's own, so that a full server does not look like a dead one."""
    async with (
        serving(upstream=Held(), bounds=Bounds(batches=2)) as server,
        connected(server) as channel,
        Client(server.address) as client,
    ):
        held = [stub_of(channel).Process(repeated(1)) for _ in range(2)]
        await until(lambda: server.engine.admission.batches == 2)

        async def refused() -> None:
            with pytest.raises(Overloaded):
                await anext(client.repeat(1))

        checks = [health_of(channel, name) for name in ("", "apiflux.v1.FluxService") for _ in range(20)]
        refusals = asyncio.gather(*(refused() for _ in range(50)))
        assert await asyncio.gather(*checks) == [SERVING] * 40
        await refusals
        assert (await client.info()).open_batches == 2
        for call in held:
            call.cancel()


async def test_a_full_queue_is_refused_with_the_time_that_it_takes_to_drain() -> None:
    """RESOURCE_EXHAUSTED comes with RetryInfo and the bound that was hit."""
    held = Held()
    async with serving(upstream=held, bounds=Bounds(batches=1)) as server, Client(server.address) as client:
        waiting = asyncio.create_task(anext(client.repeat(5)))
        await until(lambda: server.engine.admission.batches == 1)
        with pytest.raises(Overloaded) as caught:
            await anext(client.repeat(1))
        assert (caught.value.reason, caught.value.metadata["limit"]) == ("TOO_MANY_BATCHES", "1")
        assert caught.value.retry_delay is not None
        assert caught.value.retry_delay >= 1
        held.release()
        assert (await waiting).ok


async def test_over_the_maximum_is_said_by_us_and_far_over_by_the_transport() -> None:
    """A batch with too many calls or bytes is INVALID_ARGUMENT and names the maximum; the server goes on."""
    small = Defaults(max_batch_calls=10, max_batch_bytes=100_000)
    async with serving(defaults=small) as server, Client(server.address) as client:
        for request in (
            pb.ProcessRequest(calls=[pb.Call()] * 11),
            pb.ProcessRequest(calls=[pb.Call(body=bytes(110_000))]),
            repeated(11),
        ):
            with pytest.raises(InvalidRequest, match="at most") as caught:
                await anext(client.send(request))
            assert caught.value.reason == "BATCH_TOO_LARGE"
        with pytest.raises(Overloaded, match="larger than max"):
            await anext(client.send(pb.ProcessRequest(calls=[pb.Call(body=bytes(300_000))])))
        assert (await anext(client.repeat(1))).ok


async def test_a_batch_of_the_documented_maximum_of_bytes_is_taken() -> None:
    """32 MiB to the byte; what is over it reaches us, so that the caller hears our words and not the transport's."""
    most = Defaults().max_batch_bytes
    assert most == 32 << 20
    body = bytes(2 * most - pb.ProcessRequest(calls=[pb.Call(method="PUT", body=bytes(most))]).ByteSize())
    async with serving() as server, connected(server, *UNLIMITED) as channel:
        process = stub_of(channel).Process
        full = pb.ProcessRequest(calls=[pb.Call(method="PUT", body=body)])
        assert full.ByteSize() == most
        *_, last = [message async for message in process(full)]
        assert last.summary.succeeded == last.summary.total == 1
        full.calls[0].id = "x"
        with pytest.raises(grpc.aio.AioRpcError, match=str(most)) as caught:
            await process(full).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await health_of(channel) == SERVING
        assert server.engine.admission.size == 0


def test_a_batch_of_the_documented_maximum_of_calls_is_taken() -> None:
    """50,000, and not one more."""
    most = Defaults().max_batch_calls
    assert most == 50_000
    pool = Pool("default", (Key("key-1", "secret", (Limit(1, SECOND),)),))

    def check(calls: int) -> None:
        request = pb.ProcessRequest(calls=[pb.Call(path="/p")] * calls)
        checking = Checking(request, pool, "me", default_repeat=1, max_calls=most, max_bytes=Defaults().max_batch_bytes)
        for _ in checking.slices():
            pass
        assert len(checking.spec().calls) == calls

    check(50_000)
    with pytest.raises(BatchTooLarge, match="50000"):
        check(50_001)


@pytest.mark.slow
async def test_a_batch_of_the_documented_maximum_of_calls_is_served() -> None:
    """All 50,000 of them get their result."""
    async with serving() as server, Client(server.address) as client:
        stream = client.send(pb.ProcessRequest(calls=[pb.Call(path="/p")] * 50_000))
        assert len([result async for result in stream]) == 50_000
