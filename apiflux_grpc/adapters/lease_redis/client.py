"""redis-py's client of a place, and what its errors mean.

Rule: nothing is sent twice, so every kind of retry is off: a round may have been served though its reply was lost, and
only the ledger knows how to ask again. Whatever happens, a command ends within TIMEOUT.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from apiflux_grpc.core.redis_url import RedisUrl

TIMEOUT: Final = 1.0  # seconds, to connect and to answer: a store that slow refuses whoever asks it anyway
RIGHTS: Final = "~apiflux:* +get +set +info +time +eval +evalsha"


class RedisStoreError(Exception):
    """This Redis can't hold budgets as it is set up. The text says what to do."""


def client_of(place: RedisUrl) -> Any:
    """A client of redis-py, not yet connected: Redis, or RedisCluster. Raises RedisStoreError without redis-py."""
    try:
        from redis.asyncio import Redis, RedisCluster
        from redis.asyncio.cluster import ClusterNode
        from redis.asyncio.sentinel import Sentinel
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise RedisStoreError("needs redis-py: pip install 'apiflux-grpc[redis]'") from None
    bounds: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # every server speaks it, and there is nothing to agree on first
    }
    login: dict[str, Any] = {"username": place.username or None, "password": place.password or None}
    tls: dict[str, Any] = {"ssl": True, **place.ssl} if place.tls else {}
    if place.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in place.hosts]
        return RedisCluster(startup_nodes=nodes, **bounds, **login, **tls)
    if place.kind == "sentinel":
        asked = {**bounds, **tls, **place.sentinel}
        sentinel: Any = Sentinel(place.hosts, sentinel_kwargs=asked, **bounds, **login, **tls)  # type: ignore[no-untyped-call]
        return sentinel.master_for(place.service, db=place.db)
    if place.socket:
        return Redis(unix_socket_path=place.socket, db=place.db, **bounds, **login)
    ((host, port),) = place.hosts
    return Redis(host=host, port=port, db=place.db, **bounds, **login, **tls)


async def close(client: Any) -> None:
    """Close its connections, those to Sentinels too."""
    await client.aclose()
    sentinel = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    if sentinel is not None:
        await sentinel.aclose()


def errors() -> tuple[type[Exception], ...]:
    """What the client raises: a cluster's error isn't one of redis-py's others."""
    from redis.exceptions import RedisClusterException, RedisError

    return RedisError, RedisClusterException, OSError


def fault_in(error: BaseException) -> str:
    """What is set up wrong, and what to do, if this error of the client tells so; "": the server may only be gone."""
    from redis import exceptions

    if isinstance(error, exceptions.AuthenticationError):
        return "refuses the user or the password that its URL has"
    if isinstance(error, exceptions.NoPermissionError):
        return f"doesn't let its user do all that is needed: ACL SETUSER it with {RIGHTS}"
    if "Cluster mode is not enabled" in str(error):
        return "isn't a Redis Cluster: write redis:// without +cluster"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                "has a certificate that isn't trusted, or that is of another name: name the file of its authority by "
                "?ssl_ca_certs=FILE"
            )
        if isinstance(cause, ssl.SSLError):
            return "doesn't speak TLS as its URL wants it: write redis:// if it has none"
        cause = cause.__cause__ or cause.__context__
    return ""
