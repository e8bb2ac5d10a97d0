"""A Redis that would lose budgets, or that can't be used as its URL says, is refused at the start, with what to do."""

from __future__ import annotations

import builtins
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from apiflux_grpc.adapters.lease_redis import client
from apiflux_grpc.adapters.lease_redis.checks import OLDEST, advice_on, fault_of
from apiflux_grpc.adapters.lease_redis.client import RIGHTS, RedisStoreError
from apiflux_grpc.adapters.lease_redis.store import RedisLeaseStore
from apiflux_grpc.core.lease.codec import LAYOUT
from apiflux_grpc.core.redis_url import parse_redis_url
from tests.adapters.lease_redis.proxy import Proxy
from tests.adapters.lease_redis.rounds import FIRST, one, store_at
from tests.adapters.lease_redis.servers import RedisServer
from tests.adapters.sender.ports import closed_port
from tests.adapters.sender.waiting import until

Begin = Callable[..., RedisServer]


async def told_at_start(url: str) -> list[str]:
    """What is advised of this server."""
    store = RedisLeaseStore(parse_redis_url(url))
    try:
        return await store.check()
    finally:
        await store.close()


async def refused(url: str) -> str:
    """Why this server is refused."""
    with pytest.raises(RedisStoreError) as caught:
        await told_at_start(url)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


async def test_one_that_evicts_is_refused(begin: Begin) -> None:
    """Bad input: an evicting maxmemory policy. One that evicts only what has a time to live takes nothing of ours."""
    server = begin("--maxmemory-policy", "allkeys-lru")
    assert "evicts budgets when memory runs out (allkeys-lru): set maxmemory-policy to noeviction" in await refused(
        server.url
    )
    server.client.config_set("maxmemory-policy", "volatile-lru")
    async with store_at(server.url) as store:
        assert await store.check() == []


async def test_a_policy_that_changes_is_noticed_when_the_server_was_gone(begin: Begin) -> None:
    """Another may have taken over, so it is checked again; the rounds are refused with the same words."""
    server = begin()
    async with store_at(server.url) as store:
        await one(store, FIRST)
        server.kill()
        with pytest.raises(ConnectionError, match="is gone"):
            await store.exchange([FIRST])
        server.start()
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ConnectionError, match="set maxmemory-policy"):
            await store.exchange([FIRST])


async def test_a_wrong_password_is_refused(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """Bad input: a wrong password, none, or one where none is set. It is shown nowhere."""
    caplog.set_level(logging.DEBUG)
    server = begin("--requirepass", "right")
    where = f"127.0.0.1:{server.port}"
    for login in ("", ":hunter2@", "user:hunter2@"):
        assert f"redis://{where} refuses the user or the password" in await refused(f"redis://{login}{where}")
    async with store_at(f"redis://:right@{where}") as store:
        assert await store.check() == []
        assert "right" not in repr(store)
    assert "refuses the user" in await refused(begin().url.replace("//", "//:hunter2@"))
    assert "hunter2" not in caplog.text


async def test_a_user_without_the_rights_is_refused(server: RedisServer) -> None:
    """With the rights that it needs, which do."""
    server.client.execute_command("ACL", "SETUSER", "some", "on", ">x", "~apiflux:*", "+get", "+info")  # type: ignore[no-untyped-call]
    url = server.url.replace("//", "//some:x@")
    assert RIGHTS in await refused(url)
    server.client.execute_command("ACL", "SETUSER", "some", "reset", "on", ">x", *RIGHTS.split())  # type: ignore[no-untyped-call]
    async with store_at(url) as store:
        assert await store.check() == []
        assert (await one(store, FIRST)).granted.calls == 1


async def test_a_store_of_another_layout_is_refused(server: RedisServer) -> None:
    """Bad input: a store of a newer format, whether its mark is found at the start or its budget later."""
    async with store_at(server.url) as store:
        await store.check()
        server.client.set("apiflux:layout", LAYOUT + 1)
        assert f"has budgets of layout {LAYOUT + 1}" in await refused(server.url)
        server.client.set("apiflux:budget:key", b"\x81\xa6layout\x63")  # {"layout": 99}
        with pytest.raises(ConnectionError, match="has budgets of layout 99, and this version of APIFlux reads"):
            await store.exchange([FIRST])
        assert server.client.get("apiflux:budget:key") == b"\x81\xa6layout\x63"


async def test_tls_is_spoken_or_said_to_be_missing(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad input: TLS. rediss:// needs a server that speaks it, with a certificate that is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with monkeypatch.context() as hasty:
        hasty.setattr(client, "TIMEOUT", 0.1)
        with pytest.raises(ConnectionError, match="is gone, or doesn't speak TLS"):
            await told_at_start(server.url.replace("redis:", "rediss:"))
    async with Proxy(server.port, tls=context) as proxy:
        assert "?ssl_ca_certs=FILE" in await refused(proxy.url)
        async with store_at(f"{proxy.url}?ssl_ca_certs={tmp_path / 'ca.pem'}") as store:
            assert await store.check() == []
            assert (await one(store, FIRST)).granted.calls == 1


async def test_a_replica_is_refused(begin: Begin) -> None:
    """It takes no writes. Its primary is advised not to go on without it."""
    primary = begin()
    replica = begin("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
    assert "is a replica, which takes no writes" in await refused(replica.url)
    await until(lambda: primary.client.info("replication")["connected_slaves"])
    async with store_at(primary.url) as store:
        (advice,) = await store.check()
        assert "set min-replicas-to-write to 1" in advice
    assert advice_on({"connected_slaves": 1, "min_slaves_good_slaves": 1}) == ""


async def test_a_cluster_is_not_one_server_nor_the_other_way_round(begin: Begin) -> None:
    """The URL says which, and the fault says how it must be written."""
    assert "write redis+cluster://" in await refused(begin("--cluster-enabled", "yes").url)
    assert "isn't a Redis Cluster" in await refused(begin().url.replace("redis:", "redis+cluster:"))


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"redis_mode": "sentinel"}, "write redis+sentinel://HOST:PORT/NAME"),
        ({"redis_version": "6.0.16"}, f"is Redis 6.0.16: install {OLDEST[0]}.{OLDEST[1]} or newer"),
        ({"redis_version": "5.0"}, "install"),
        ({"redis_version": "6.2.5"}, ""),
        ({"redis_version": "7.2.4", "server_name": "valkey"}, ""),
        ({"redis_version": "10.0.0-rc1"}, ""),
    ],
)
def test_what_a_server_says_of_itself_is_judged(info: dict[str, Any], text: str) -> None:
    """By one table, of servers that no test has."""
    fault = fault_of(info, "one")
    assert (text in fault) if text else not fault
    assert advice_on(info) == ""


async def test_one_that_is_not_there_is_gone_not_refused() -> None:
    """It may come yet, so it's no fault of the configuration."""
    store = RedisLeaseStore(parse_redis_url(f"redis://127.0.0.1:{closed_port()}"))
    with pytest.raises(ConnectionError, match="is gone"):
        await store.check()
    await store.close()


async def test_one_on_a_unix_socket_serves(server: RedisServer) -> None:
    """unix:// is a server of this host."""
    async with store_at(f"unix://{server.socket}") as store:
        assert await store.check() == []
        assert (await one(store, FIRST)).granted.calls == 1


def test_without_redis_py_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: who doesn't use it needn't have it."""
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("redis"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RedisStoreError, match=r"redis://h:6379 needs redis-py: pip install 'apiflux-grpc\[redis\]'"):
        RedisLeaseStore(parse_redis_url("redis://h"))
