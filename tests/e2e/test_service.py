"""The service in real processes: calls over HTTP to the judge, who has the last word."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from apiflux_grpc.client import (
    ApifluxError,
    Call,
    Client,
    InvalidRequest,
    PoolNotFound,
    Result,
    Stream,
    SyncClient,
    Unavailable,
)
from apiflux_grpc.judge.ledger import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for

KEYS = {"key-1": "canary-7f3a-one", "key-2": "canary-7f3a-two"}
LIMIT = Limit(40, 1_000_000_000)
Pair = tuple[JudgeProcess, ServedProcess]


@pytest.fixture
def pair() -> Iterator[Pair]:
    options = JudgeOptions(KEYS, (LIMIT,), latency_ns=(1_000_000, 20_000_000))
    with (
        JudgeProcess(options) as judge,
        ServedProcess(config_for(judge.url, (LIMIT,), list(KEYS)), secrets_for(KEYS)) as served,
    ):
        yield judge, served


@pytest.fixture
def slow_pair() -> Iterator[Pair]:
    options = JudgeOptions(KEYS, (), latency_ns=(600_000_000, 600_000_000))
    extra = "max_in_flight = 10"
    with (
        JudgeProcess(options) as judge,
        ServedProcess(config_for(judge.url, (), list(KEYS), extra), secrets_for(KEYS)) as served,
    ):
        yield judge, served


async def read_until_error(stream: Stream, into: list[Result]) -> ApifluxError | None:
    """Read to the end, keep what came, and give the error that ended it."""
    try:
        async for result in stream:
            into.append(result)  # noqa: PERF401  # a comprehension would lose what came before the error
    except ApifluxError as error:
        return error
    return None


async def test_every_call_gets_one_result_and_no_limit_is_exceeded(pair: Pair) -> None:
    """N calls in, N results out; the judge finds windows filled to the limit and none over it."""
    judge, served = pair
    async with Client(served.target) as client:
        stream = client.process([Call(f"/calls/{number}", id=f"c{number}") for number in range(200)])
        results = [result async for result in stream]
    assert sorted(result.index for result in results) == list(range(200))
    assert all(result.id == f"c{result.index}" and result.ok for result in results)
    assert stream.summary is not None
    assert stream.summary.succeeded == 200
    report = judge.report()
    assert report.violations == []
    assert report.rejected == 0
    assert report.accepted == 200
    assert report.worst == 1.0
    assert "canary" not in served.stderr + repr(results)


async def test_ordered_results_come_in_order(pair: Pair) -> None:
    """With `ordered`, results come by index, whatever the latencies."""
    _, served = pair
    async with Client(served.target) as client:
        stream = client.process([Call(f"/{number}") for number in range(60)], ordered=True)
        assert [result.index async for result in stream] == list(range(60))


async def test_breaking_out_stops_the_work(slow_pair: Pair) -> None:
    """A client that leaves the loop stops unsent calls; another batch goes on untouched."""
    judge, served = slow_pair
    async with Client(served.target) as client:
        other = client.process([Call(f"/other/{number}") for number in range(10)])
        async for _ in client.process([Call(f"/dropped/{number}") for number in range(500)]):
            break
        assert len([result async for result in other]) == 10
        for _ in range(100):
            info = await client.info()
            if not info.open_calls and not info.pools[0].in_flight:
                break
            await asyncio.sleep(0.05)
        assert info.open_batches == 0
        assert info.pools[0].in_flight == 0
    report = judge.report()
    assert report.accepted < 100
    assert report.violations == []


async def test_sigterm_finishes_what_is_in_flight(slow_pair: Pair) -> None:
    """On SIGTERM calls in flight get their answer, the others DRAINING, then UNAVAILABLE; the exit code is 0."""
    judge, served = slow_pair
    async with Client(served.target) as client:
        stream = client.process([Call(f"/{number}") for number in range(100)])
        results = [await anext(stream)]
        ended = asyncio.create_task(asyncio.to_thread(served.terminate))
        cut = await read_until_error(stream, results)
    assert isinstance(cut, Unavailable)
    assert cut.reason == "DRAINING"
    assert cut.retry_delay is not None
    assert sorted(result.index for result in results) == list(range(100))
    answered = [result for result in results if result.ok]
    drained = [result for result in results if result.error is not None and result.error.reason == "DRAINING"]
    assert len(answered) + len(drained) == 100
    assert not any(result.error.may_have_run for result in drained if result.error is not None)
    assert await ended == 0
    assert judge.report().accepted == len(answered)


async def test_bad_requests_are_named_and_the_server_goes_on(pair: Pair) -> None:
    """Every fault of a request comes with its field path; nothing was sent."""
    judge, served = pair
    bad = [
        Call("../up"),
        Call("http://elsewhere/"),
        Call("//host/x"),
        Call("/%zz"),
        Call("/", headers={"X-A": "a\r\nb"}),
        Call("/", headers={"Host": "x"}),
        Call("/", headers={"x-api-key": "x"}),
        Call("/", timeout=-1),
        Call("/", method="TRACE"),
        Call("/", cost=-1),
        Call("/", id="same"),
        Call("/", id="same"),
    ]
    places = [
        "calls[0].path",
        "calls[1].path",
        "calls[2].path",
        "calls[3].path",
        "calls[4].headers['X-A']",
        "calls[5].headers['Host']",
        "calls[6].headers['x-api-key']",
        "calls[7].timeout",
        "calls[8].method",
        "calls[9].cost",
        "calls[11].id",
    ]
    async with Client(served.target) as client:
        with pytest.raises(InvalidRequest) as caught:
            await anext(client.process(bad))
        assert [place for place, _ in caught.value.violations] == places
        with pytest.raises(InvalidRequest, match="calls: is empty"):
            await anext(client.process([]))
        with pytest.raises(InvalidRequest, match="allow_repeat"):
            await anext(client.repeat(3))
        with pytest.raises(PoolNotFound):
            await anext(client.process([Call()], pool="nowhere"))
        assert judge.report().arrivals == 0
        assert (await anext(client.process([Call("/fine")]))).ok


def test_the_synchronous_client(pair: Pair) -> None:
    """The blocking face gives the same results."""
    _, served = pair
    with SyncClient(served.target) as client:
        assert sorted(result.index for result in client.process([Call("/1"), Call("/2")])) == [0, 1]
        assert [pool.name for pool in client.info().pools] == ["default"]


async def test_health_and_malformed_bytes(pair: Pair) -> None:
    """Health says SERVING for the server and the service, also after bytes that are no message."""
    _, served = pair
    async with grpc.aio.insecure_channel(served.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        raw: Any = channel.unary_stream("/apiflux.v1.FluxService/Process")
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in raw(b"\xff\xff\xff"):
                pass
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
        for name in ("", "apiflux.v1.FluxService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_process_a_file(pair: Pair, tmp_path: Path) -> None:
    """JSON Lines in, JSON Lines out; a bad line is named by file and line, and nothing is sent."""
    judge, served = pair
    calls = tmp_path / "calls.jsonl"
    calls.write_text("".join(f'{{"id": "n{number}", "path": "/n/{number}"}}\n' for number in range(50)))
    command = [sys.executable, "-m", "apiflux_grpc", "process", str(calls), "--target", served.target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(row["index"] for row in rows) == list(range(50))
    assert all(row["response"]["statusCode"] == 200 and row["id"] == f"n{row['index']}" for row in rows)
    calls.write_text('{"path": "/fine"}\n{"pth": "/x"}\n')
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{calls}:2: unknown field 'pth'; did you mean 'path'?" in done.stderr
    assert judge.report().accepted == 50


def test_a_port_in_use_is_said(pair: Pair, tmp_path: Path) -> None:
    """A second server on the port fails with exit code 2 and names the address."""
    _, served = pair
    command = [sys.executable, "-m", "apiflux_grpc", "serve", "--bind", served.target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert served.target in done.stderr
