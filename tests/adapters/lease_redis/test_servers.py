"""What the tests of the Redis store rest on: servers that can be broken, and a proxy that breaks the way to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.adapters.lease_redis.proxy import Proxy
from tests.adapters.lease_redis.servers import RedisServer, found


@pytest.mark.parametrize("name", found())
def test_every_server_that_is_found_runs(name: str) -> None:
    """It answers, keeps what it is told until it is restarted, and takes DEBUG."""
    with RedisServer(found()[name]) as server:
        server.client.set("a", 1)
        server.sleep(0)
        assert server.client.get("a") == b"1"
        server.restart()
        assert server.client.get("a") is None


def test_a_server_can_hang_and_go_on(begin: Callable[..., RedisServer]) -> None:
    """Nothing is answered between stop and go_on."""
    server = begin()
    hasty = redis.Redis(port=server.port, socket_timeout=0.05, retry=Retry(NoBackoff(), 0))
    server.stop()
    with pytest.raises(redis.TimeoutError):
        hasty.ping()
    server.go_on()
    assert server.client.ping()
    hasty.close()


async def test_the_proxy_passes_cuts_and_keeps_silent(server: RedisServer) -> None:
    """Bytes pass; a cut is seen; what is sent while it is silent never arrives, and nobody is told."""
    async with Proxy(server.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        proxy.cut()
        assert await reader.readline() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.silent = True
        proxy.passed.clear()
        writer.write(b"SET lost 1\r\n")
        await proxy.passed.wait()
        proxy.silent = False
        writer.write(b"GET lost\r\n")
        assert await reader.readline() == b"$-1\r\n"
        writer.close()
