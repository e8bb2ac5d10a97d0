"""How much a run sends: so many calls, so much cost, and not one more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from apiflux_grpc.client.accounts import unknown_result
from apiflux_grpc.core.fields import HeaderField, JsonField
from apiflux_grpc.core.model import Key, Pool
from apiflux_grpc.core.rules import CostOfCall
from apiflux_grpc.jobs.guard import NO_END, SAMPLE, Guard
from apiflux_grpc.jobs.known import DONE, Known
from apiflux_grpc.jobs.ration import Purse, Ration, declared
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.jobs.test_selection import Given, entry, paths, selection

FREE = Guard(NO_END)
GOOD = pb.CallResult(response=pb.HttpResponse(status_code=200))


def pool(**options: Any) -> Pool:
    return Pool("p", keys=(Key("a", "", ()),), **options)


def never_ran(reason: str) -> pb.CallResult:
    """What the server says of a call that waited: no attempt of it can have been executed."""
    result = pb.CallResult(failure=pb.Reason.Value(f"REASON_{reason}"))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, metadata={"may_have_run": "false"}))
    result.error.details.append(detail)
    return result


def answered(status: int, failure: pb.Reason.ValueType = pb.REASON_UNSPECIFIED, **more: Any) -> pb.CallResult:
    return pb.CallResult(failure=failure, response=pb.HttpResponse(status_code=status, **more))


async def rest(ration: Ration) -> list[str]:
    """What it hands out until it has no more."""
    found: list[str] = []
    while (calls := await ration.take(3)) is not None:
        found += paths(calls)
    return found


@pytest.mark.parametrize(("limit", "sent"), [(1, 1), (4, 4), (5, 5), (9, 5)])
async def test_a_limit_is_the_first_calls_that_are_not_done(tmp_path: Path, limit: int, sent: int) -> None:
    """Those that have their result don't count; and it says whether the limit ended it."""
    known = Known()
    known[0 << 1] = known[2 << 1] = DONE
    one = selection(tmp_path, Given([entry(number) for number in range(7)]), known)
    ration = Ration(one, FREE, limit)
    assert await ration.any()
    assert await rest(ration) == ["/1", "/3", "/4", "/5", "/6"][:sent]
    assert ration.reached == ("--limit" if limit <= sent else "")
    assert not ration.left


async def test_what_would_exceed_the_cost_waits_for_results_and_is_never_sent_without_room(tmp_path: Path) -> None:
    """What was set aside for a call and wasn't spent lets others go; at the end nothing is out, and one is left."""
    costs = (4, 4, 3, 9)
    one = selection(tmp_path, Given([entry(number, cost=cost) for number, cost in enumerate(costs)]), Known())
    purse = Purse(10, pool(cost_from=HeaderField("x-cost")))
    ration = Ration(one, FREE, purse=purse)
    assert await ration.any()
    assert paths(await ration.take(9)) == ["/0"]
    assert paths(await ration.take(9)) == ["/1"]
    waiting = asyncio.create_task(ration.take(9))
    await asyncio.sleep(0)
    assert not waiting.done()
    ration.settle(0, GOOD)  # says no cost: it was 4
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    ration.settle(1, answered(200, headers=[pb.Header(name="x-cost", value="1")]))
    assert paths(await waiting) == ["/2"]
    waiting = asyncio.create_task(ration.take(9))
    await asyncio.sleep(0)
    assert not waiting.done()
    ration.settle(2, GOOD)
    assert await waiting is None
    assert (ration.reached, ration.left, purse.spent) == ("--max-cost", 1, 8)


async def test_who_waits_for_room_is_let_go_by_a_stop(tmp_path: Path) -> None:
    """And cancelled, it loses no call."""
    one = selection(tmp_path, Given([entry(0, cost=6), entry(1, cost=6)]), Known())
    ration = Ration(one, FREE, purse=Purse(10, pool()))
    assert paths(await ration.take(9)) == ["/0"]
    cancelled = asyncio.create_task(ration.take(9))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    waiting = asyncio.create_task(ration.take(9))
    await asyncio.sleep(0)
    ration.stop()
    assert await waiting is None
    assert (ration.reached, ration.left) == ("", 1)


async def test_nothing_is_sent_if_not_even_the_first_call_fits(tmp_path: Path) -> None:
    """So there is nothing to open a stream for."""
    ration = Ration(selection(tmp_path, Given([entry(0, cost=11)]), Known()), FREE, purse=Purse(10, pool()))
    assert not await ration.any()
    assert (ration.reached, ration.left) == ("--max-cost", 1)


@pytest.mark.parametrize("clears", [True, False])
async def test_no_more_than_the_sample_goes_until_a_result_clears_it(tmp_path: Path, clears: bool) -> None:
    """A limited call makes room for one more; the first success for all. If all fail alike, a stop ends the waiting."""
    one, guard = selection(tmp_path, Given([entry(number) for number in range(SAMPLE + 9)]), Known()), Guard()
    ration = Ration(one, guard)
    assert len(await ration.take(SAMPLE + 9) or ()) == SAMPLE

    async def settled(place: int, result: pb.CallResult) -> list[str] | None:
        waiting = asyncio.create_task(ration.take(SAMPLE + 9))
        await asyncio.sleep(0)
        assert not waiting.done()
        guard.add(result)
        ration.settle(place, result)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if waiting.done():
            return paths(waiting.result())
        waiting.cancel()
        await asyncio.wait({waiting})
        return None

    assert await settled(0, answered(429, pb.REASON_LIMITED)) == [f"/{SAMPLE}"]
    assert await settled(1, answered(404, pb.REASON_HTTP_4XX)) is None
    if clears:
        assert len(await settled(2, GOOD) or ()) == 8
        assert await ration.take(1) is None
    else:
        waiting = asyncio.create_task(ration.take(1))
        await asyncio.sleep(0)
        ration.stop()
        assert await waiting is None
    assert (ration.reached, ration.left) == ("", 0 if clears else 8)


async def test_a_file_that_is_no_longer_than_the_sample_ends_with_its_last_call(tmp_path: Path) -> None:
    """The stream is told that there are no more before any result is there."""
    ration = Ration(selection(tmp_path, Given([entry(number) for number in range(SAMPLE)]), Known()), Guard())
    assert len(await ration.take(SAMPLE) or ()) == SAMPLE
    assert await ration.take(1) is None


async def test_calls_are_told_with_their_place_before_they_are_sent(tmp_path: Path) -> None:
    """For whoever must know them later."""
    told: list[tuple[int, str]] = []
    one = selection(tmp_path, Given([entry(number) for number in range(4)]), Known())
    ration = Ration(one, FREE, sent=lambda place, call: told.append((place, call.path)))
    assert await ration.any()
    await rest(ration)
    assert told == [(0, "/0"), (1, "/1"), (2, "/2"), (3, "/3")]


@pytest.mark.parametrize(
    ("call", "rule", "cost"),
    [
        (pb.Call(), None, 1),
        (pb.Call(cost=0), None, 0),
        (pb.Call(cost=7, body=b'{"max":3}'), CostOfCall(("max",)), 7),
        (pb.Call(body=b'{"max":3}'), CostOfCall(("max",)), 3),
    ],
)
def test_a_request_costs_what_it_says_else_what_its_pool_reads(
    call: pb.Call, rule: CostOfCall | None, cost: int
) -> None:
    """Else 1, as in the server."""
    assert declared(call, pool(cost=rule)) == cost


def spent(results: Sequence[pb.CallResult], **options: Any) -> int:
    """By calls that may cost 100 each."""
    purse = Purse(100_000, pool(**options))
    for place, result in enumerate(results):
        assert purse.take(place, pb.Call(cost=100))
        purse.settle(place, result)
    assert not purse.has_open
    return purse.spent


BODY = answered(200, body=b'{"usage":{"total":12}}')


@pytest.mark.parametrize(
    ("result", "options", "cost"),
    [
        (GOOD, {}, 100),
        (BODY, {}, 100),
        (BODY, {"cost_from": JsonField(("usage", "total"))}, 12),
        (BODY, {"cost_from": JsonField(("usage", "other"))}, 100),
        (answered(400, pb.REASON_HTTP_4XX), {}, 100),
        (answered(500, pb.REASON_HTTP_5XX), {}, 100),
        (answered(429, pb.REASON_LIMITED), {}, 0),
        (answered(401, pb.REASON_KEY_REJECTED), {}, 0),
        (unknown_result(0, "", ""), {}, 100),
        (unknown_result(0, "", ""), {"cost_from": JsonField(("usage", "total"))}, 100),
        (never_ran("NOT_SENT"), {}, 0),
        (never_ran("NO_USABLE_KEY"), {}, 0),
    ],
)
def test_a_call_with_its_result_costs_what_is_known_of_it(
    result: pb.CallResult, options: dict[str, Any], cost: int
) -> None:
    """Nothing if it wasn't executed, what the answer tells, else what was set aside for it."""
    assert spent([result] * 3, **options) == 3 * cost
