"""One Redis for all tests that leave it as they found it, and fresh ones for those that don't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.adapters.lease_redis.servers import RedisServer, program


@pytest.fixture(scope="session")
def _one_redis() -> Iterator[RedisServer]:
    with RedisServer(program()) as server:
        yield server


@pytest.fixture
def server(_one_redis: RedisServer) -> RedisServer:
    """A server without keys, which the test doesn't end."""
    _one_redis.flush()
    return _one_redis


@pytest.fixture
def begin() -> Iterator[Callable[..., RedisServer]]:
    """Begins a server of the test's own, with these options; ended with the test."""
    with ExitStack() as servers:
        yield lambda *options: servers.enter_context(RedisServer(program(), *options))
