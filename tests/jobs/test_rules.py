"""Calls of a file are judged by their pool's rules, as the server will judge them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core.checks import MOST_FIELDS
from apiflux_grpc.core.errors import InvalidRequest
from apiflux_grpc.core.model import Counts, HeaderKey, Key, Limit, Pool, QueryKey
from apiflux_grpc.core.rules import CostOfCall
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.jobs.pool import pool_of
from apiflux_grpc.jobs.rules import KNOWN_METHODS, Rules, told
from apiflux_grpc.server.checking import Checking
from apiflux_grpc.server.info import put_pool
from apiflux_grpc.v1 import apiflux_pb2 as pb

POOL = Pool(
    "own",
    (Key("a", "canary", (Limit(50, SECOND, Counts.COST),)),),
    allow_paths=("/v1/",),
    key_in=HeaderKey("X-Own"),
    timeout=9 * SECOND,
    cost=CostOfCall(("max_tokens",), 1.0),
)
WRONG = {
    "id": pb.Call(id="x" * 257, path="/v1/a"),
    "method": pb.Call(method="get", path="/v1/a"),
    "path": pb.Call(path="/v1/a b"),
    "path of the pool": pb.Call(path="/v2/a"),
    "header": pb.Call(path="/v1/a", headers=[pb.Header(name="x-own", value="1"), pb.Header(name="b", value="\n")]),
    "too many": pb.Call(path="/v1/a", headers=[pb.Header(name="a")] * (MOST_FIELDS + 1)),
    "cost": pb.Call(path="/v1/a", cost=51),
    "cost of the body": pb.Call(method="POST", path="/v1/a", body=b'{"max_tokens": 40}'),
    "all": pb.Call(id="x" * 257, method="get", path="/%", cost=-1),
}


def as_the_server(pool: Pool, call: pb.Call) -> list[tuple[str, str]]:
    """What a server refuses such a call for."""
    checking = Checking(pb.ProcessRequest(calls=[call]), pool, "", default_repeat=1, max_calls=1, max_bytes=1 << 20)
    with pytest.raises(InvalidRequest) as caught:
        list(checking.slices())
    return [(fault.field.removeprefix("calls[0]."), fault.text) for fault in caught.value.violations]


def learned(pool: Pool) -> Pool:
    """The pool as a job knows it."""
    info = pb.GetInfoResponse()
    put_pool(info.pools.add(), pool, None)
    return pool_of(info, pool.name)


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_line_is_refused_in_the_server_s_words(call: pb.Call) -> None:
    """All of them: whatever the server would refuse is known before anything is sent."""
    found = Rules(learned(POOL)).faults(call)
    assert found == as_the_server(POOL, call)
    assert found


def test_a_timeout_is_at_most_the_pool_s() -> None:
    """And the key's place is nobody's else, in the query too."""
    pool = replace(POOL, key_in=QueryKey("key"))
    call = pb.Call(path="/v1/a", query=[pb.QueryParameter(name="key", value="1")])
    call.timeout.FromSeconds(10)
    assert Rules(learned(pool)).faults(call) == as_the_server(pool, call)
    assert [fault.field for fault in Rules(learned(pool)).faults(call)] == ["query[0].name", "timeout"]


def test_fields_are_named_as_the_line_has_them() -> None:
    """A format may have other names, and the path and its parameters in one field."""
    pool = replace(POOL, key_in=QueryKey("key"))
    call = pb.Call(id="x" * 257, path="/v1/%", query=[pb.QueryParameter(name="key")], headers=[pb.Header(name=":")])
    said = told(Rules(pool).faults(call), {"id": "custom_id", "path": "url", "query": "url"})
    assert said.startswith("custom_id: has 257 bytes")
    assert "; url: has a % without" in said
    assert "; url: is 'key', which carries the pool's key" in said
    assert "; headers[0].name: ':' is not a header name" in said
    assert told(Rules(pool).faults(pb.Call(method="GTE", path="/v1/a")), {}).startswith("method: 'GTE' is not")


def test_a_usual_call_is_fine() -> None:
    """With any method that is known, and a cost that a key can pay."""
    rules = Rules(learned(POOL))
    for method in KNOWN_METHODS:
        assert rules.faults(pb.Call(method=method, path="/v1/a", body=b'{"max_tokens": 5}')) == []


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("GTE", "'GTE' is not a usual method; did you mean 'GET'? --any-method sends it as it is"),
        ("PSOT", "'PSOT' is not a usual method; did you mean 'POST'? --any-method sends it as it is"),
        ("UPDATE", "'UPDATE' is not a usual method; --any-method sends it as it is"),
    ],
)
def test_a_method_that_is_hardly_meant_is_refused(method: str, said: str) -> None:
    """Though the server takes it: what was mistyped costs a call. --any-method sends it."""
    call = pb.Call(method=method, path="/v1/a")
    assert Rules(POOL).faults(call) == [("method", said)]
    assert Rules(POOL, any_method=True).faults(call) == []


@pytest.mark.parametrize("method", ["get", "CONNECT", "TRACE", "A-B"])
def test_what_can_t_be_sent_is_refused_all_the_same(method: str) -> None:
    """Once, in the server's words, whatever --any-method says."""
    call = pb.Call(method=method, path="/v1/a")
    for any_method in (False, True):
        assert Rules(POOL, any_method=any_method).faults(call) == as_the_server(POOL, call)
