"""What a pool says of calls that don't say it themselves: in a batch, in a repeated call and in a stream."""

from __future__ import annotations

from apiflux_grpc.core.batch import FedCall
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.rules import CallRule
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.engine.messages import BatchSpec
from apiflux_grpc.server.checking import Checking, StreamChecking
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
