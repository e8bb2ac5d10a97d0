"""Calls through an egress proxy, which only aiohttp can make."""

from __future__ import annotations

import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.core.outcome import Cause, NotSent
from tests.adapters.sender.ports import closed_port
from tests.adapters.sender.script import FIN
from tests.adapters.sender.stage import CANARY, World


def test_calls_go_to_the_proxy(aiohttp: World) -> None:
    """With an egress proxy calls go there, and nowhere else."""

    async def go() -> None:
        async with aiohttp.stage() as proxy:
            await aiohttp.ask("http://upstream.invalid/api", egress_proxy=proxy.server.url)
            (request,) = proxy.server.requests
            assert request.target == "http://upstream.invalid/api/"
            proxy.server.peers[0].requests.clear()  # it was none of the stage's own calls

    aiohttp.run(go())


def test_a_proxy_that_is_gone(aiohttp: World) -> None:
    """A proxy that can't be reached means not sent."""

    async def go() -> None:
        outcome = await aiohttp.ask("http://upstream.invalid", egress_proxy=f"http://127.0.0.1:{closed_port()}")
        assert outcome == NotSent(Cause.UNREACHABLE, "the egress proxy can't be reached: connection refused")

    aiohttp.run(go())


def test_a_proxy_that_refuses(aiohttp: World) -> None:
    """A proxy that refuses the tunnel means not sent, and it never sees the key."""

    async def go() -> None:
        async with aiohttp.stage() as proxy:
            proxy.server.on("upstream.invalid:443", b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", FIN)
            outcome = await aiohttp.ask("https://upstream.invalid", egress_proxy=proxy.server.url)
            assert outcome == NotSent(Cause.UNREACHABLE, "the egress proxy refused")
            (request,) = proxy.server.requests
            assert request.method == "CONNECT"
            assert CANARY.encode() not in request.head

    aiohttp.run(go())


def test_our_own_sender_knows_none() -> None:
    """Our own sender refuses to be made for a pool with a proxy, instead of going past it."""
    with pytest.raises(ValueError, match="prox"):
        HttpUpstream(HttpSettings(base_url="http://host", egress_proxy="http://proxy"))
