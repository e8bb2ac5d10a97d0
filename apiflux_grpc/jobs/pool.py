"""The pool that a job's calls go to, as its server tells it, before anything of the job is done.

Rule: a job knows the rules of its pool, so that core/checks.py judges its lines as it will judge them in the server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from grpc import StatusCode

from apiflux_grpc.client import ApifluxError, DeadlineExceeded, Overloaded, Unavailable
from apiflux_grpc.client.same_pool import OtherPool, SamePool
from apiflux_grpc.client.words import word_of
from apiflux_grpc.core.errors import PoolNotFound
from apiflux_grpc.core.fields import Field, HeaderField, JsonField
from apiflux_grpc.core.model import Counts, Group, HeaderKey, Key, Kind, Limit, Pool, QueryKey
from apiflux_grpc.core.rules import CallRule, CostOfCall
from apiflux_grpc.core.units import LONGEST
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from apiflux_grpc.client import Client
    from apiflux_grpc.jobs.console import Console
    from apiflux_grpc.jobs.job import Job
    from apiflux_grpc.jobs.servers import Servers

_SILENT: Final = 0.5  # seconds of waiting for a server that aren't worth mentioning
# While no server tells the pool's rules: what every pool takes.
ANY_POOL: Final = Pool("", keys=(Key("", "", ()),), timeout=LONGEST, key_in=HeaderKey(""))


async def asked_pool(
    client: Client, job: Job, console: Console, servers: Servers, is_finished: Callable[[], Awaitable[bool]]
) -> Pool:
    """Ask the server for the job's pool, once it is there, of several all that are. Raises ApifluxError, Refused.

    A job that `is_finished` isn't worth waiting for: then the server is as good as absent.
    """
    if job.wait is not None:
        waiting = asyncio.ensure_future(client.wait_ready(job.wait))
        asking = None
        try:
            await asyncio.wait({waiting}, timeout=_SILENT)
            if not waiting.done():
                asking = asyncio.ensure_future(is_finished())
                console.say(f"waiting up to {job.wait:g} s for a server at {job.any_server}")
                await asyncio.wait({waiting, asking}, return_when=asyncio.FIRST_COMPLETED)
                if asking.done() and asking.result():
                    raise Unavailable("it isn't needed", code=StatusCode.UNAVAILABLE)
            await waiting
        finally:
            waiting.cancel()
            if asking is not None:
                asking.cancel()
            await asyncio.gather(*filter(None, (waiting, asking)), return_exceptions=True)
    return pool_of(_same(await client.raw_infos(), job.pool, servers), job.pool)


def _same(infos: Mapping[str, pb.GetInfoResponse | ApifluxError], pool: str, servers: Servers) -> pb.GetInfoResponse:
    """What the first server says, if all that are there have the same pool. Raises Refused if one has another, and
    ApifluxError if none is there, or one doesn't let us in."""
    same, absent = SamePool(pool), []
    first: pb.GetInfoResponse | None = None
    for target, info in infos.items():
        if isinstance(info, ApifluxError):
            if not isinstance(info, Unavailable | Overloaded | DeadlineExceeded):
                raise info
            absent.append((target, info))
            continue
        first = first or info
        try:
            same.check(target, info)
        except OtherPool as other:
            raise Refused(other.message) from None
    if first is None:
        raise absent[0][1]
    for target, error in absent:
        servers.changed(target, error)
    return first


def pool_of(info: pb.GetInfoResponse, name: str) -> Pool:
    """The pool of this name; "": the server's default. Its keys have no secrets. Raises Refused."""
    asked = name or info.default_pool
    for pool in info.pools:
        if pool.name == asked:
            return _pool(pool)
    refused = PoolNotFound(name, [pool.name for pool in info.pools])
    raise Refused(f"{refused} with --pool")


def _pool(info: pb.PoolInfo) -> Pool:
    return Pool(
        name=info.name,
        keys=tuple(Key(key.label, "", _limits(key.limits)) for key in info.keys),
        arrival_jitter=info.arrival_jitter.ToNanoseconds(),
        timeout=info.timeout.ToNanoseconds(),
        cost=_cost(info.cost) if info.HasField("cost") else None,
        cost_from=_cost_from(info),
        is_unmasked=info.unmasked,
        idempotent=tuple(CallRule(tuple(rule.methods), tuple(rule.paths)) for rule in info.idempotent),
        allow_paths=tuple(info.allow_paths),
        key_in=QueryKey(info.key_query) if info.HasField("key_query") else HeaderKey(info.key_header),
        upstream=word_of(pb.UpstreamKind.DESCRIPTOR, info.upstream).lower(),
        base_url=info.base_url,
        groups=tuple(Group(tuple(group.keys), _limits(group.limits)) for group in info.groups),
    )


def _limits(limits: Iterable[pb.Limit]) -> tuple[Limit, ...]:
    return tuple(
        Limit(
            limit.max,
            limit.per.ToNanoseconds(),
            Counts(word_of(pb.LimitCounts.DESCRIPTOR, limit.counts).lower()),
            Kind(word_of(pb.LimitKind.DESCRIPTOR, limit.kind).lower()),
            limit.burst,
            tuple(limit.paths),
        )
        for limit in limits
    )


def _cost_from(info: pb.PoolInfo) -> Field | None:
    if info.cost_header:
        return HeaderField(info.cost_header)
    return JsonField(tuple(info.cost_json)) if info.cost_json else None


def _cost(rule: pb.CostRule) -> CostOfCall:
    return CostOfCall(tuple(rule.json) or None, rule.per_byte, tuple(rule.per_byte_of) or None, rule.at_least)
