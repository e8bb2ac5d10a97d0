"""One Redis for all tests that leave it as they found it, and fresh ones for those that don't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from apiflux_grpc.adapters.lease_redis import client
from tests.adapters.lease_redis.servers import RedisServer, program


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, a server that answers is there."""
    monkeypatch.setattr(client, "TIMEOUT", 30)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, _patient: None) -> None:
    """One that doesn't answer is soon gone. So is one that is only slow: it is asked by `answered`."""
    monkeypatch.setattr(client, "TIMEOUT", 0.2)


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
