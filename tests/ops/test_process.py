"""POST /process is the RPC Process: the same batches, results, callers and ends, over HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format

from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.ops.ports import lines_of, ops_served, read_into
from tests.server.serving import Bulky, Held, connected, stub_of, until

BATCH = pb.ProcessRequest(
    calls=[
        pb.Call(id="ä", path="/a", query=[pb.QueryParameter(name="q", value="Oslo & Ås")]),
        pb.Call(id="b", method="POST", path="/b", body=b"\x00\xff{}", headers=[pb.Header(name="x-a", value="1")]),
        pb.Call(path="c", cost=3, idempotent=False),
    ],
    ordered=True,
    correlation_id="r-1",
)


def told(responses: list[pb.ProcessResponse]) -> tuple[list[pb.CallResult], pb.Summary]:
    """The results and the summary, without what no two runs have alike: times."""
    results = [result for response in responses for result in response.results]
    for result in results:
        for name in ("queue_time", "latency", "completed_at"):
            assert result.HasField(name)
            result.ClearField(name)
    summary = responses[-1].summary
    for name in ("elapsed", "time_waiting", "time_in_calls"):
        summary.ClearField(name)  # type: ignore[arg-type]
    return results, summary


async def test_a_batch_has_the_results_that_the_rpc_gives() -> None:
    """Each line is a ProcessResponse in proto3 JSON, and they say the same as the RPC's messages."""
    async with ops_served() as served, connected(served.server) as channel:
        answer = await served.post(json_format.MessageToDict(BATCH))
        over_grpc = [response async for response in stub_of(channel).Process(BATCH)]
    assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
    over_http = [json_format.Parse(line, pb.ProcessResponse()) for line in (await answer.text()).splitlines()]
    assert told(over_http) == told(over_grpc)


async def test_results_come_as_they_happen() -> None:
    """A line is there as soon as there is a result, while other calls of the batch are open."""
    upstream = Held()
    async with ops_served(upstream=upstream) as served:
        posting = asyncio.ensure_future(served.http.post(f"{served.url}/process", json={"repeat": {"count": 2}}))
        await until(lambda: len(upstream.open) == 2)
        upstream.release_one()
        async with await posting as answer:
            while not (first := json.loads(await answer.content.readline()))["results"]:
                pass  # how the batch stands may come alone
            assert (len(first["results"]), len(upstream.open)) == (1, 1)
            upstream.release()
            rest = [json.loads(line) async for line in answer.content]
    assert rest[-1]["summary"]["succeeded"] == "2"


async def test_a_caller_who_goes_away_cancels_the_batch() -> None:
    """Cut while the answer streams: calls in flight are cancelled, what waits is never sent, nothing stays open."""
    upstream = Held()
    async with ops_served(upstream=upstream) as served:
        posting = asyncio.ensure_future(served.http.post(f"{served.url}/process", json={"repeat": {"count": 50}}))
        await until(lambda: len(upstream.open) == 50)
        upstream.release_one()
        (await posting).close()
        await until(lambda: served.server.engine.admission.batches == 0)
    assert (len(upstream.begun), len(upstream.cancelled)) == (50, 49)


async def test_a_slow_reader_holds_back_its_own_batch() -> None:
    """Results that nobody reads are bounded, and another batch runs meanwhile; once they are read all are there."""
    size, count = 100_000, 500
    async with (
        ops_served(upstream=Bulky(size)) as served,
        served.raw(_post({"repeat": {"count": count}})) as (reader, _),
    ):
        await reader.readuntil(b"\r\n\r\n")
        engine = served.server.engine
        assert (await served.post({"repeat": {"count": 1}})).status == 200
        left, same = 0, 0
        while same < 10:  # round trips in which nothing more was done for the batch
            await served.get("/health")
            left, same = engine.admission.calls, same + 1 if left == engine.admission.calls else 0
        assert left > 100
        whole = bytearray()
        while b'"summary"' not in whole[-2000:]:
            whole += await reader.read(1 << 20)
    assert whole.count(b'"keyLabel"') == count


async def test_a_reader_that_stalls_is_cut() -> None:
    """Nothing is read for too long: the connection ends before the end of the answer, and the batch with it."""
    async with (
        ops_served(upstream=Bulky(100_000), defaults=Defaults(write_timeout=0.2)) as served,
        served.raw(_post({"repeat": {"count": 400}})) as (reader, _),
    ):
        await until(lambda: served.server.engine.admission.batches == 1)
        await until(lambda: served.server.engine.admission.batches == 0 and not served.port.connections)
        told = b""
        with suppress(ConnectionError):  # it may be reset before all was read
            while some := await reader.read(1 << 16):
                told = some
    assert not told.endswith(b"0\r\n\r\n")


async def test_a_batch_that_outlives_a_drain_ends_as_the_rpc_does() -> None:
    """What was running finishes, what waited has its result, then come the summary and why; the answer isn't whole."""
    upstream = Held()
    async with ops_served(upstream=upstream, grace=30.0) as served:
        url = f"{served.url}/process"
        posting = asyncio.ensure_future(served.http.post(url, json={"repeat": {"count": 3}}))
        await until(lambda: len(upstream.open) == 3)
        upstream.release_one()
        async with await posting as answer:
            stop = asyncio.ensure_future(served.server.stop())
            await until(lambda: served.server.engine.draining)
            refused = await served.post({"repeat": {"count": 1}})
            ready = await served.get("/readyz")
            live = await served.get("/livez")
            upstream.release()
            lines: list[dict[str, Any]] = []
            with pytest.raises(aiohttp.ClientPayloadError):
                await read_into(lines, answer)
        await stop
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert (ready.status, live.status) == (503, 200)
    assert lines[-2]["summary"]["succeeded"] == "3"
    assert lines[-1]["error"]["reason"] == "DRAINING"


async def test_the_head_comes_with_the_first_line() -> None:
    """A refusal that comes late is a status too: nothing is said until there is something to say."""
    async with ops_served() as served:
        answer = await served.post({"pool": "no", "calls": [{}]})
        assert answer.status == 404
        assert [line["summary"]["total"] for line in await lines_of(await served.post({"calls": [{}]}))] == ["1"]


def _post(request: object) -> bytes:
    body = json.dumps(request).encode()
    head = f"POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
