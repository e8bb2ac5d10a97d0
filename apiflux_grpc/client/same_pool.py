"""Whether servers that are to share a job have the same pool: its upstream, its keys and their limits.

Rule: calls go to whichever server has room, so it must not matter which one that is. What is compared is what a call
can meet; how busy a server is doesn't count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from apiflux_grpc.client.errors import ApifluxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

    from apiflux_grpc.v1 import apiflux_pb2 as pb

# What a call can meet, in the words of the configuration; the first that differs is told.
_UPSTREAM: Final = (("base_url", "base_url"), ("upstream", "upstream"))
_FIELDS: Final = (
    *_UPSTREAM,
    ("timeout", "timeout"),
    ("max_attempts", "retry.max_attempts"),
    ("arrival_jitter", "arrival_jitter"),
    ("allow_paths", "allow_paths"),
    ("key_header", "key_in"),
    ("key_query", "key_in"),
    ("idempotent", "idempotent"),
    ("cost", "cost"),
    ("cost_header", "cost_from"),
    ("cost_json", "cost_from"),
    ("unmasked", "mask_secrets"),
    ("groups", "groups"),
    ("budget_store", "having a store of budgets"),
)


class OtherPool(ApifluxError):
    """A server has another pool than the one that the others have."""


def difference(one: pb.PoolInfo, other: pb.PoolInfo, fields: Sequence[tuple[str, str]] = _FIELDS) -> str:
    """What of a pool differs between two servers, in words; "": nothing that matters."""
    for field, word in fields:
        if _value(one, field) != _value(other, field):
            return word
    if fields is _UPSTREAM:
        return ""
    mine, others = ({key.label: key for key in pool.keys} for pool in (one, other))
    if mine.keys() != others.keys():
        return f"the key {min(mine.keys() ^ others.keys())}, which only one of them has"
    for label, key in mine.items():
        if list(key.limits) != list(others[label].limits):
            return f"limits of the key {label}"
        if _value(key, "max_in_flight") != _value(others[label], "max_in_flight"):
            return f"max_in_flight of the key {label}"
    return ""


def has_store(pool: pb.PoolInfo) -> bool:
    """Whether its limits are those of all servers at the same store."""
    return pool.HasField("budget_store")


def pool_named(info: pb.GetInfoResponse, name: str) -> pb.PoolInfo | None:
    """The pool of this name; "": the server's default. None: it has none."""
    asked = name or info.default_pool
    return next((pool for pool in info.pools if pool.name == asked), None)


def part_of(calls: int, name: str, infos: Iterable[pb.GetInfoResponse | ApifluxError]) -> tuple[int, bool]:
    """How many of these calls one server is to be asked about, and whether that is all of them because limits are
    shared: as long as a server has none it reckons with whole limits."""
    there = [info for info in infos if not isinstance(info, ApifluxError)]
    pools = filter(None, (pool_named(info, name) for info in there))
    shared = any(map(has_store, pools))
    return calls if shared else -(-calls // max(1, len(there))), shared


class SamePool:
    """The pool that the first server has, and that all others must have as well."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._first = ""  # target
        self._pool: pb.PoolInfo | None = None

    def check(self, target: str, info: pb.GetInfoResponse, *, is_later: bool = False) -> None:
        """Raises OtherPool, saying what differs. Of one that came when the stream had begun only the upstream counts:
        an update with other keys or limits replaces all servers of a name, one by one."""
        pool = pool_named(info, self._name)
        if pool is None:
            return  # the server itself says it best
        if self._pool is None:
            self._first, self._pool = target, pool
        elif pool.name != self._pool.name:
            raise _other(f"{self._first} has the default pool {self._pool.name}, and {target} {pool.name}")
        elif what := difference(self._pool, pool, _UPSTREAM if is_later else _FIELDS):
            raise _other(f"{self._first} and {target} don't have the same pool {pool.name}: they differ in {what}")


def _other(message: str) -> OtherPool:
    return OtherPool(message, code=grpc.StatusCode.FAILED_PRECONDITION)


def _value(message: Message, field: str) -> object:
    """A field's value as something that can be compared."""
    if field == "budget_store":  # how it is, is another at every moment
        return message.HasField(field)
    value = getattr(message, field)
    return list(value) if isinstance(value, list) or hasattr(value, "add") or hasattr(value, "extend") else value
