"""The service in real processes: calls over HTTP to the judge, who has the last word.

One judge and one server serve all tests of this file; before each the judge forgets what arrived.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for

KEYS = {"key-1": "canary-7f3a-one", "key-2": "canary-7f3a-two"}
NARROW_KEYS = {"key-3": "canary-7f3a-three", "key-4": "canary-7f3a-four"}
LIMIT = Limit(40, 1_000_000_000)
SLOW = {"X-Judge-Fault": "slow;size=10;every=50ms"}  # half a second for an answer
HANGS = {"X-Judge-Fault": "hang"}


@dataclass(frozen=True)
class Pair:
    """A judge, and a server in front of it."""

    judge: JudgeProcess
    served: ServedProcess

    @property
    def target(self) -> str:
        return self.served.target


def serving(judge: JudgeProcess) -> ServedProcess:
    """Pool `default`, and pool `narrow`, which makes five calls at once with each of its keys."""
    # The judge counts arrivals: the jitter is more than a busy machine delays a call on its way.
    jitter = 'arrival_jitter = "5s"'
    default = config_for(judge.url, (LIMIT,), list(KEYS), jitter)
    keys = ", ".join(f'{{ label = "{label}", secret = "{secret}" }}' for label, secret in NARROW_KEYS.items())
    narrow = f'base_url = "{judge.url}"\nlimits = [{{ max = 40, per = "1s" }}]\nmax_in_flight = 5\nkeys = [{keys}]'
    return ServedProcess(f"{default}\n[pools.narrow]\n{jitter}\n{narrow}\n", secrets_for(KEYS))


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    options = JudgeOptions(KEYS | NARROW_KEYS, (LIMIT,), latency_ns=(1_000_000, 20_000_000))
    with JudgeProcess(options) as judge, serving(judge) as served:
        yield Pair(judge, served)


@pytest.fixture
def pair(both: Pair) -> Pair:
    both.judge.reset()
    return both


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
    async with Client(pair.target) as client:
        stream = client.process([Call(f"/calls/{number}", id=f"c{number}") for number in range(100)])
        results = [result async for result in stream]
    assert sorted(result.index for result in results) == list(range(100))
    assert all(result.id == f"c{result.index}" and result.ok for result in results)
    assert stream.summary is not None
    assert stream.summary.succeeded == 100
    report = pair.judge.report()
    assert report.violations == []
    assert report.rejected == 0
    assert report.accepted == 100
    assert report.worst == 1.0
    assert "canary" not in pair.served.stderr + repr(results)


async def test_ordered_results_come_in_order(pair: Pair) -> None:
    """With `ordered`, results come by index, whatever the latencies."""
    async with Client(pair.target) as client:
        stream = client.process([Call(f"/{number}") for number in range(60)], pool="narrow", ordered=True)
        assert [result.index async for result in stream] == list(range(60))


async def test_breaking_out_stops_the_work(pair: Pair) -> None:
    """A client that leaves the loop stops its calls, sent and unsent; another batch goes on untouched."""
    async with Client(pair.target) as client:
        other = client.process([Call(f"/other/{number}", headers=SLOW) for number in range(10)], pool="narrow")
        hanging = [Call(f"/dropped/{number}", headers=HANGS) for number in range(500)]
        async for _ in client.process([Call("/dropped/first"), *hanging], pool="narrow"):
            break
        assert len([result async for result in other if result.ok]) == 10
        while (info := await client.info()).open_calls or any(pool.in_flight for pool in info.pools):
            pass
        assert info.open_batches == 0
    report = pair.judge.report()
    assert report.arrivals <= 10 + 1 + 10  # as many hang at once as the keys allow
    assert report.violations == []


async def test_sigterm_finishes_what_is_in_flight(pair: Pair) -> None:
    """On SIGTERM calls in flight get their answer, the others DRAINING, then UNAVAILABLE; the exit code is 0."""
    with serving(pair.judge) as served:
        async with Client(served.target) as client:
            stream = client.process([Call(f"/{number}", headers=SLOW) for number in range(100)], pool="narrow")
            results = [await anext(stream)]
            ended = asyncio.create_task(asyncio.to_thread(served.terminate))
            cut = await read_until_error(stream, results)
        assert await ended == 0
    assert isinstance(cut, Unavailable)
    assert cut.reason == "DRAINING"
    assert cut.retry_delay is not None
    assert sorted(result.index for result in results) == list(range(100))
    answered = [result for result in results if result.ok]
    drained = [result for result in results if result.error is not None and result.error.reason == "DRAINING"]
    assert len(answered) + len(drained) == 100
    assert not any(result.error.may_have_run for result in drained if result.error is not None)
    assert pair.judge.report().accepted == len(answered)


async def test_bad_requests_are_named_and_the_server_goes_on(pair: Pair) -> None:
    """Every fault of a request comes with its field path; nothing was sent."""
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
        "calls[4].headers[0].value",
        "calls[5].headers[0].name",
        "calls[6].headers[0].name",
        "calls[7].timeout",
        "calls[8].method",
        "calls[9].cost",
        "calls[11].id",
    ]
    async with Client(pair.target) as client:
        with pytest.raises(InvalidRequest) as caught:
            await anext(client.process(bad))
        assert [place for place, _ in caught.value.violations] == places
        with pytest.raises(InvalidRequest, match="calls: is empty"):
            await anext(client.process([]))
        with pytest.raises(InvalidRequest, match="allow_repeat"):
            await anext(client.repeat(3))
        with pytest.raises(PoolNotFound):
            await anext(client.process([Call()], pool="nowhere"))
        assert pair.judge.report().arrivals == 0
        assert (await anext(client.process([Call("/fine")]))).ok


def test_the_synchronous_client(pair: Pair) -> None:
    """The blocking face gives the same results."""
    with SyncClient(pair.target) as client:
        assert sorted(result.index for result in client.process([Call("/1"), Call("/2")])) == [0, 1]
        assert [pool.name for pool in client.info().pools] == ["default", "narrow"]


async def test_health_and_malformed_bytes(pair: Pair) -> None:
    """Health says SERVING for the server and the service, also after bytes that are no message."""
    async with grpc.aio.insecure_channel(pair.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
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
    calls = tmp_path / "calls.jsonl"
    calls.write_text("".join(f'{{"id": "n{number}", "path": "/n/{number}"}}\n' for number in range(50)))
    command = [sys.executable, "-m", "apiflux_grpc", "process", str(calls), "--target", pair.target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(row["index"] for row in rows) == list(range(50))
    assert all(row["response"]["statusCode"] == 200 and row["id"] == f"n{row['index']}" for row in rows)
    calls.write_text('{"path": "/fine"}\n{"pth": "/x"}\n')
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{calls}:2: unknown field 'pth'; did you mean 'path'?" in done.stderr
    assert pair.judge.report().accepted == 50


def test_a_port_in_use_is_said(pair: Pair, tmp_path: Path) -> None:
    """A second server on the port fails with exit code 2 and names the address, in one line of ours: gRPC's own aren't
    printed.
    """
    command = [sys.executable, "-m", "apiflux_grpc", "serve", "--bind", pair.target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"can't listen on {pair.target}; is another program using it?\n"
