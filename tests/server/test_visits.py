"""What a caller sees and may hand over, as its own client hears it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apiflux_grpc.client import ApifluxError, Call, Client, InvalidRequest, Overloaded, PoolNotFound
from apiflux_grpc.core.callers import Access, Caller, Rate, digest_of
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.server.lifecycle import Server
from tests.server.serving import Held, serving, settled, until

HOUR = 3600 * SECOND


def caller(name: str, **access: Any) -> Caller:
    """One whose token is its name."""
    return Caller(name, Access(**access), (digest_of(name),))


def client_of(server: Server, name: str) -> Client:
    return Client(server.address, token=name)


async def test_a_pool_of_others_does_not_exist() -> None:
    """Not by name, not as the default, not in a list and not in an error's words."""
    mine = caller("mine", pools=frozenset({"b"}))
    two = caller("two", pools=frozenset({"b", "c"}))
    async with serving(pools=("default", "b", "c"), callers=[mine, two, caller("all")]) as server:
        async with client_of(server, "mine") as client:
            info = await client.info()
            assert ([pool.name for pool in info.pools], info.default_pool) == (["b"], "b")
            assert (await anext(client.repeat(1))).ok
            assert (await client.estimate(1)).makespan is not None
            for asked in (client.estimate(1, pool="c"), anext(client.repeat(1, pool="c"))):
                with pytest.raises(PoolNotFound) as caught:
                    await asked
                assert caught.value.message == "there is no pool 'c'; use one of b"
            with pytest.raises(PoolNotFound):
                await anext(client.process_stream([Call("/")], pool="default"))
        async with client_of(server, "two") as client:
            assert (await client.info()).default_pool == ""
            with pytest.raises(PoolNotFound, match="no pool was named"):
                await anext(client.repeat(1))
        async with client_of(server, "all") as client:
            assert [pool.name for pool in (await client.info()).pools] == ["b", "c", "default"]


async def test_a_call_that_a_caller_may_not_make_is_named() -> None:
    """In a batch with its place; of a stream it alone has no answer. Others may make it."""
    narrow = caller("narrow", methods=frozenset({"GET"}), paths=("/v1/",))
    calls = [Call("/v1/a"), Call("/v1/a", method="DELETE"), Call("/v2/a")]
    async with serving(callers=[narrow, caller("wide")]) as server:
        async with client_of(server, "narrow") as client:
            with pytest.raises(InvalidRequest) as caught:
                await anext(client.process(calls))
            assert [field for field, _ in caught.value.violations] == ["calls[1].method", "calls[2].path"]
            results = {result.index: result async for result in client.process_stream(calls)}
            assert [results[index].ok for index in range(3)] == [True, False, False]
            assert list((await client.raw_info()).pools[0].allow_paths) == ["/v1/"]
        async with client_of(server, "wide") as client:
            assert [result.ok async for result in client.process(calls)] == [True] * 3
            assert list((await client.raw_info()).pools[0].allow_paths) == []


async def test_a_batch_has_the_name_and_the_weight_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fair sharing goes by them, whatever the addresses."""
    seen: list[tuple[str, float]] = []
    own = Engine.submit

    def noting(engine: Engine, spec: BatchSpec, *account: Any) -> Any:
        seen.append((spec.caller, spec.caller_weight))
        return own(engine, spec, *account)

    monkeypatch.setattr(Engine, "submit", noting)
    async with serving(callers=[caller("a", weight=3.0)]) as server, client_of(server, "a") as client:
        assert (await anext(client.repeat(1))).ok
        assert (await anext(client.process_stream([Call("/")]))).ok
    assert seen == [("a", 3.0)] * 2


@pytest.mark.parametrize(
    ("quotas", "reason"),
    [
        ({"max_batches": 1}, "QUOTA_BATCHES"),
        ({"max_queued_calls": 5}, "QUOTA_CALLS"),
        ({"rate": Rate(5, HOUR)}, "QUOTA_RATE"),
    ],
)
async def test_who_has_used_up_a_quota_is_refused_and_others_are_not(quotas: dict[str, Any], reason: str) -> None:
    """With RetryInfo; what is in flight goes on."""
    upstream = Held()
    async with (
        serving(upstream=upstream, callers=[caller("a", **quotas), caller("b")]) as server,
        client_of(server, "a") as client,
        client_of(server, "b") as other,
    ):
        first = asyncio.create_task(_all(client, 4))
        await until(lambda: len(upstream.open) == 4)
        with pytest.raises(Overloaded) as caught:
            await anext(client.repeat(2))
        assert caught.value.reason == reason
        assert (caught.value.retry_delay or 0) > (3000 if reason == "QUOTA_RATE" else 0)
        second = asyncio.create_task(_all(other, 6))
        await until(lambda: len(upstream.open) == 10)
        upstream.release()
        assert (await first, await second) == (4, 6)
        if reason != "QUOTA_RATE":
            assert await _all(client, 5) == 5


async def _all(client: Client, count: int) -> int:
    return len([result async for result in client.repeat(count) if result.ok])


@pytest.mark.parametrize("quotas", [{"max_queued_calls": 5}, {"rate": Rate(5, HOUR)}])
async def test_a_stream_is_held_back_at_its_callers_quota(quotas: dict[str, Any]) -> None:
    """It isn't refused: it is read no further, and goes on when there is room."""
    upstream = Held()
    async with serving(upstream=upstream, callers=[caller("a", **quotas)]) as server, client_of(server, "a") as client:
        stream = client.process_stream(Call(f"/{number}") for number in range(12))
        reading = asyncio.create_task(_read(stream))
        await until(lambda: len(upstream.open) == 5)
        assert await settled(lambda: len(upstream.begun), client) == 5
        upstream.release()
        if "rate" in quotas:
            assert await settled(lambda: len(upstream.begun), client) == 5
            reading.cancel()
        else:
            assert await reading == 12


async def _read(stream: Any) -> int:
    return len([result async for result in stream if result.ok])


async def test_what_ends_early_is_given_back() -> None:
    """A batch whose reader goes leaves nothing on its caller's account."""
    upstream = Held()
    one = caller("a", max_batches=1, max_queued_calls=5)
    async with serving(upstream=upstream, callers=[one]) as server, client_of(server, "a") as client:
        for streamed in (False, True):
            stream = client.process_stream(Call("/") for _ in range(9)) if streamed else client.repeat(5)
            reading = asyncio.create_task(_read(stream))
            await until(lambda: len(upstream.open) == 5)
            reading.cancel()
            await asyncio.wait([reading])
            await stream.aclose()
            assert await server.engine.wait_idle(30)
        upstream.release()
        assert await _all(client, 5) == 5


async def test_a_batch_over_the_whole_quota_is_too_large() -> None:
    """It would never be admitted, so it isn't asked to come again."""
    async with serving(callers=[caller("a", max_queued_calls=5)]) as server, client_of(server, "a") as client:
        with pytest.raises(ApifluxError) as caught:
            await anext(client.repeat(6))
        assert caught.value.reason == "BATCH_TOO_LARGE"
