"""The pool of a job, as GetInfo tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core.checks import Checks
from apiflux_grpc.core.fields import HeaderField, JsonField
from apiflux_grpc.core.model import Counts, Group, HeaderKey, Key, Kind, Limit, Pool, QueryKey
from apiflux_grpc.core.rules import CallRule, CostOfCall
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.pool import ANY_POOL, pool_of
from apiflux_grpc.server.info import put_pool
from apiflux_grpc.v1 import apiflux_pb2 as pb

WHOLE = Pool(
    name="whole",
    keys=(
        Key(
            "a",
            "canary",
            (Limit(100, SECOND), Limit(5, SECOND, Counts.COST, Kind.BUCKET, 9), Limit(3, SECOND, paths=("/s",))),
        ),
        Key("b", "canary-b", (Limit(7, 60 * SECOND, Counts.COST, burst=2),)),
    ),
    timeout=7 * SECOND,
    cost=CostOfCall(("max_tokens",), 0.25, ("messages",), 3),
    cost_from=JsonField(("usage", "total")),
    is_unmasked=True,
    idempotent=(CallRule(("POST",), ("/v1/",)), CallRule((), ("/x",))),
    allow_paths=("/v1/", "/x"),
    key_in=QueryKey("api_key"),
    upstream="http",
    base_url="https://api.example.com/v1",
    groups=(Group(("a", "b"), (Limit(6, SECOND, Counts.COST),)),),
)
PLAIN = Pool("plain", (Key("a", "canary", (Limit(1, SECOND),)),), key_in=HeaderKey("X-Own"))


def told(*pools: Pool, default: str = "") -> pb.GetInfoResponse:
    """GetInfo's response of a server with these pools."""
    info = pb.GetInfoResponse(default_pool=default)
    for pool in pools:
        put_pool(info.pools.add(), pool, None)
    return info


@pytest.mark.parametrize(
    "pool",
    [WHOLE, PLAIN, replace(PLAIN, cost_from=HeaderField("x-cost")), replace(WHOLE, cost=CostOfCall(per_byte=1.5))],
)
def test_a_job_judges_calls_as_its_server_does(pool: Pool) -> None:
    """Paths, the key's place, timeouts and costs, with the same words; and it knows no secret."""
    info = told(pool)
    assert b"canary" not in info.SerializeToString()
    here, there = Checks(pool_of(info, pool.name)), Checks(pool)
    assert here.cost_rule == there.cost_rule
    calls = [
        ("GET", path, headers, query, timeout, cost)
        for path in ("/v1/a", "/x/b", "/other", "/../up", "/v1/s", "/s/1")
        for headers in ([], [("X-Own", "1")], [("X-API-Key", "1")])
        for query in ([], [("api_key", "1")])
        for timeout in (None, 6 * SECOND, 8 * SECOND)
        for cost in (None, 0, 5, 6, 7, 8, 9, 10, -1, 10**9)
    ]
    for method, path, headers, query, timeout, cost in calls:
        assert here.call("", method, path, headers, query, timeout, cost) == there.call(
            "", method, path, headers, query, timeout, cost
        )
    found = pool_of(info, pool.name)
    assert (found.idempotent, found.cost_from, found.is_unmasked) == (
        pool.idempotent,
        pool.cost_from,
        pool.is_unmasked,
    )


def test_the_pool_that_was_asked_for() -> None:
    """Without a name the server's default; a wrong one, or none where it is needed, is refused with all names."""
    assert pool_of(told(PLAIN, WHOLE, default="whole"), "").name == "whole"
    assert pool_of(told(PLAIN, WHOLE, default="whole"), "plain").name == "plain"
    with pytest.raises(Refused, match=r"there is no pool 'default'; use one of plain, whole"):
        pool_of(told(PLAIN, WHOLE), "default")
    with pytest.raises(Refused, match=r"no pool was named, and there are several; use one of plain, whole"):
        pool_of(told(PLAIN, WHOLE), "")


def test_without_a_server_only_what_no_pool_takes_is_wrong() -> None:
    """The rules of a pool aren't known, so they forbid nothing."""
    checks = Checks(ANY_POOL)
    assert not checks.call("", "POST", "/any", [("X-API-Key", "1")], [("key", "1")], 3600 * SECOND, 10**9)
    assert checks.call("", "POST", "/../up", [], [], None, None)
