"""What a pool says of calls that don't say it themselves: in a batch, in a repeated call and in a stream."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apiflux_grpc.core.batch import FedCall
from apiflux_grpc.core.checks import MOST_FIELDS, Fault
from apiflux_grpc.core.errors import InvalidRequest
from apiflux_grpc.core.model import Counts, Group, Key, Limit, Pool
from apiflux_grpc.core.rules import CallRule, CostOfCall
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.server.checking import Checking, StreamChecking
from apiflux_grpc.server.info import put_pool
from apiflux_grpc.v1 import apiflux_pb2 as pb

POOL = Pool(
    "main",
    (Key("key-1", "secret", (Limit(1000, SECOND),)),),
    allow_repeat=True,
    idempotent=(CallRule(("POST",), ("/chat/",)),),
)
CHAT = pb.Call(method="POST", path="/chat/new")
CALLS = [
    CHAT,
    pb.Call(method="POST", path="/chat/new", idempotent=False),
    pb.Call(method="POST", path="/images"),
    pb.Call(method="POST", path="/images", idempotent=True),
    pb.Call(path="/images"),
    pb.Call(path="/images", idempotent=False),
]
MAY_RUN_TWICE = [True, False, False, True, True, False]


def spec_of(request: pb.ProcessRequest, pool: Pool) -> BatchSpec:
    checking = Checking(request, pool, "caller", default_repeat=1, max_calls=100, max_bytes=1 << 20)
    for _ in checking.slices():
        pass
    return checking.spec()


def fed(calls: list[pb.Call], pool: Pool) -> list[FedCall]:
    good, wrong, _ = StreamChecking(pb.ProcessStreamOpen(), pool).take(calls)
    assert wrong == []
    return good


def test_a_call_s_own_word_wins_then_the_pool_s_then_its_method() -> None:
    """Whether it may run twice, wherever a call is read."""
    spec = spec_of(pb.ProcessRequest(calls=CALLS), POOL)
    assert [spec.calls[index].idempotent for index in range(len(CALLS))] == MAY_RUN_TWICE
    assert [call.idempotent for call in spec.calls[:]] == MAY_RUN_TWICE
    assert [one.call.idempotent for one in fed(CALLS, POOL)] == MAY_RUN_TWICE
    repeated = pb.ProcessRequest(repeat=pb.RepeatedCall(count=2, template=CHAT))
    assert [call.idempotent for call in spec_of(repeated, POOL).calls] == [True, True]


TOKENS = replace(
    POOL,
    keys=(Key("key-1", "secret", (Limit(1000, SECOND, Counts.COST),)),),
    cost=CostOfCall(("max_tokens",), 0.5, ("messages",)),
)
BODY = b'{"max_tokens": 100, "messages": [1, 2, 3, 4]}'
COSTLY = [pb.Call(body=BODY), pb.Call(body=BODY, cost=7), pb.Call(body=BODY, cost=0), pb.Call(), pb.Call(body=b"x")]
COSTS = [106, 7, 0, 1, 1]
TOO_MUCH = "is 1001 (max_tokens + 0.5 per byte of messages); no key of this pool takes more than 1000 at once"


def test_a_call_s_own_cost_wins_then_the_pool_s_rule() -> None:
    """What a call costs, wherever it is read."""
    assert spec_of(pb.ProcessRequest(calls=COSTLY), TOKENS).costs == COSTS
    assert [one.cost for one in fed(COSTLY, TOKENS)] == COSTS
    for call, cost in zip(COSTLY, COSTS, strict=True):
        repeated = spec_of(pb.ProcessRequest(repeat=pb.RepeatedCall(count=3, template=call)), TOKENS)
        assert (1 if repeated.costs is None else repeated.costs[2]) == cost


def test_a_cost_that_no_key_takes_is_refused_by_name() -> None:
    """As if the call had said it, with what it was read from."""
    calls = [pb.Call(body=b'{"max_tokens": 1000}'), pb.Call(body=b'{"max_tokens": 1001}')]
    with pytest.raises(InvalidRequest) as caught:
        spec_of(pb.ProcessRequest(calls=calls), TOKENS)
    assert [*caught.value.violations] == [Fault("calls[1].cost", TOO_MUCH)]
    with pytest.raises(InvalidRequest) as caught:
        spec_of(pb.ProcessRequest(repeat=pb.RepeatedCall(template=calls[1])), TOKENS)
    assert [*caught.value.violations] == [Fault("repeat.template.cost", TOO_MUCH)]
    good, wrong, _ = StreamChecking(pb.ProcessStreamOpen(), TOKENS).take(calls)
    assert (len(good), wrong) == (1, [(1, f"calls[1].cost: {TOO_MUCH}")])


def test_bodies_are_read_only_if_something_counts_cost() -> None:
    """Where nothing does, no body is parsed, and a batch needs no list of costs; a group's limit counts, too."""
    free = replace(TOKENS, keys=POOL.keys)
    assert spec_of(pb.ProcessRequest(calls=[pb.Call(body=BODY)]), free).costs is None
    shared = replace(free, groups=(Group(("key-1",), (Limit(1000, SECOND, Counts.COST),)),))
    assert spec_of(pb.ProcessRequest(calls=[pb.Call(body=BODY)]), shared).costs == [106]


def test_the_loop_gets_a_turn_between_large_calls() -> None:
    """A slice is over after so many bytes, too: of bodies that costs are read from, and of thousands of headers."""
    for bytes_of_each, slices in ((10, [3, 1]), (1 << 17, [2, 2]), (1 << 20, [1, 1, 1, 1])):
        message = pb.ProcessStreamRequest(calls=[pb.Call(body=b" " * bytes_of_each)] * 4)
        assert [len(part) for part in StreamChecking.slices(message, 3)] == slices
        request = pb.ProcessRequest(calls=message.calls)
        checking = Checking(request, TOKENS, "caller", default_repeat=1, max_calls=100, max_bytes=1 << 30)
        assert len(list(checking.slices())) == (1 if bytes_of_each == 10 else len(slices))


def test_a_call_has_so_many_headers_and_parameters_at_most() -> None:
    """Those of one call are read at once, and a message of 30 MB has room for six million."""
    for count in (MOST_FIELDS, MOST_FIELDS + 1):
        call = pb.Call(
            headers=[pb.Header(name="X-A", value="1")] * count, query=[pb.QueryParameter(name="a", value="1")] * count
        )
        _, wrong, _ = StreamChecking(pb.ProcessStreamOpen(), POOL).take([call])
        text = "calls[0].headers: has 10001; use at most 10000; calls[0].query: has 10001; use at most 10000"
        assert wrong == ([] if count == MOST_FIELDS else [(0, text)])


SEARCH = Limit(3, SECOND, paths=("/search/",))
NARROW = Limit(5, SECOND, Counts.COST, paths=("/search/",))
PATHS = replace(POOL, keys=(Key("key-1", "secret", (Limit(1000, SECOND), SEARCH)),))


def test_the_path_class_of_each_call_is_found_on_its_way_in() -> None:
    """The engine needn't stand still for it; a pool whose limits have no paths needs none."""
    calls = [pb.Call(path=path) for path in ("/search/x", "/other", "%73earch/x", "")]
    assert spec_of(pb.ProcessRequest(calls=calls), PATHS).classes == bytes([1, 0, 1, 0])
    repeat = pb.RepeatedCall(template=calls[0], count=3)
    assert spec_of(pb.ProcessRequest(repeat=repeat), PATHS).classes == bytes([1, 1, 1])
    assert spec_of(pb.ProcessRequest(calls=calls), POOL).classes is None


def test_a_cost_is_bounded_by_the_limits_that_its_path_meets() -> None:
    """A dear call may go where no limit minds its cost."""
    pool = replace(POOL, keys=(Key("key-1", "secret", (NARROW,)),))
    spec_of(pb.ProcessRequest(calls=[pb.Call(path="/other", cost=6), pb.Call(path="/search/x", cost=5)]), pool)
    with pytest.raises(InvalidRequest) as caught:
        spec_of(pb.ProcessRequest(calls=[pb.Call(path="/search/x", cost=6)]), pool)
    assert [*caught.value.violations] == [Fault("calls[0].cost", "is 6; no key of this pool takes more than 5 at once")]


def test_get_info_shows_the_paths_of_a_limit() -> None:
    """As they are compared."""
    message = pb.PoolInfo()
    put_pool(message, PATHS, None)
    assert [[*limit.paths] for limit in message.keys[0].limits] == [[], ["/search/"]]
