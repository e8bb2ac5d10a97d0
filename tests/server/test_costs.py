"""What a call may cost, and what it then takes of its key."""

from __future__ import annotations

import grpc
import pytest

from apiflux_grpc.client import Call, Client, InvalidRequest
from apiflux_grpc.core.cost import LARGEST_COST
from apiflux_grpc.core.model import Counts, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.server.serving import WIDE, serving

TOKENS = (Limit(1000, SECOND, Counts.COST),)


@pytest.mark.parametrize("limits", [WIDE, TOKENS], ids=["calls", "tokens"])
async def test_a_repeated_call_may_have_a_cost(limits: tuple[Limit, ...]) -> None:
    """Each of them costs that."""
    request = pb.ProcessRequest(repeat=pb.RepeatedCall(count=5, template=pb.Call(cost=7)))
    async with serving(limits=limits) as server, Client(server.address) as client:
        assert len([result async for result in client.send(request)]) == 5
        info = await client.info()
        assert info.pools[0].keys[0].attempts == 5
        assert info.pools[0].keys[0].headroom == (1 - 35 / 1000 if limits is TOKENS else pytest.approx(1, abs=1e-3))


async def test_a_cost_that_nothing_counts_holds_up_nobody() -> None:
    """Up to the most that an upstream could tell it is taken, beyond that refused, and others go on."""
    async with serving(limits=WIDE) as server, Client(server.address) as client:
        for cost in (1 << 62, (1 << 63) - 1, LARGEST_COST + 1):
            with pytest.raises(InvalidRequest) as caught:
                await anext(client.process([Call(cost=cost)]))
            assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        for cost in (LARGEST_COST, 1):
            assert [result.ok async for result in client.process([Call(cost=cost)])] == [True]
