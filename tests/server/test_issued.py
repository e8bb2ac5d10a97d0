"""Callers whom an issuer vouches for: waited for while keys are fetched, and ended an hour after their token."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from apiflux_grpc.client import ApifluxError, Call, Client, Unauthenticated
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.until import AFTER_EXPIRY
from tests.server.issuer import Issuer
from tests.server.serving import Held, serving, until


@pytest.mark.parametrize(("unknown", "is_known"), [(0, True), (1, True), (2, False)])
async def test_keys_that_are_being_fetched_are_waited_for_once(unknown: int, is_known: bool) -> None:
    """Then the token is judged by what is there."""
    issuer = Issuer(time.time_ns() + 3600 * SECOND, unknown=unknown)
    async with serving(issuer=issuer) as server, Client(server.address, token="ann.a.b") as client:
        if is_known:
            assert (await client.info()).pools
        else:
            with pytest.raises(Unauthenticated):
                await client.info()
    assert issuer.renewed == min(unknown, 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stream_ends_an_hour_after_its_token(streamed: bool) -> None:
    """With an error that says so, and its batch with it; others go on."""
    upstream = Held()
    issuer = Issuer(time.time_ns() - AFTER_EXPIRY + SECOND // 5)
    async with serving(upstream=upstream, issuer=issuer) as server, Client(server.address, token="ann.a.b") as client:
        stream: Any = client.process_stream([Call("/")] * 3) if streamed else client.repeat(3)
        with pytest.raises(ApifluxError) as caught:
            await anext(stream)
        assert caught.value.reason == "CREDENTIALS_EXPIRED"
        assert await server.engine.wait_idle(30)
        assert not upstream.open


async def test_a_stream_that_ends_before_is_left_alone() -> None:
    """Its timer goes with it."""
    async with serving(issuer=Issuer(time.time_ns())) as server, Client(server.address, token="ann.a.b") as client:
        assert [result.ok async for result in client.repeat(3)] == [True] * 3
        assert [result.ok async for result in client.process_stream([Call("/")])] == [True]


async def test_who_cancels_in_time_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """As any caller."""
    upstream = Held()
    issuer = Issuer(time.time_ns())
    async with serving(upstream=upstream, issuer=issuer) as server, Client(server.address, token="ann.a.b") as client:
        stream = client.repeat(3)
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: len(upstream.open) == 3)
        reading.cancel()
        await asyncio.wait([reading])
        await stream.aclose()
        assert await server.engine.wait_idle(30)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
