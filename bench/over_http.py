"""Section http: POST /process against the RPC: calls per second, and what a call costs the server.

Rule: both doors are of one server and are asked turn by turn, with the same batch from the same process. Neither client
reads more of an answer than its bytes, but for the summary at the end.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import grpc
import psutil
from google.protobuf import json_format

from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb
from bench.cpu import SIMULATOR
from bench.figures import Figure

PAIRS, CALLS = 9, 10_000
BATCH = pb.ProcessRequest(
    calls=[
        pb.Call(id=f"c{n}", path="/v1/geocode", query=[pb.QueryParameter(name="q", value="Oslo")]) for n in range(CALLS)
    ]
)


class Run(NamedTuple):
    """Calls per second, and microseconds of the server's CPU per call."""

    rate: float
    spent: float


async def figures() -> list[Figure]:
    runs: dict[str, list[Run]] = {"the RPC": [], "POST /process": []}
    with ServedProcess(f'[server]\nops_bind = "127.0.0.1:{(port := free_port())}"\n{SIMULATOR}', {}) as served:
        async with grpc.aio.insecure_channel(served.target) as channel, aiohttp.ClientSession() as http:
            body = json.dumps(json_format.MessageToDict(BATCH)).encode()
            doors: dict[str, Callable[[], Awaitable[int]]] = {
                "the RPC": lambda: over_grpc(channel, BATCH.SerializeToString()),
                "POST /process": lambda: over_http(http, f"http://127.0.0.1:{port}/process", body),
            }
            for door in doors.values():
                await door()
            for turn in range(PAIRS):
                for name in doors if turn % 2 else reversed(doors):
                    runs[name].append(await measured(served, doors[name]))
    rpc, http_runs = runs.values()
    pairs = list(zip(rpc, http_runs, strict=True))
    return [
        *(Figure("calls per second", [run.rate for run in one], "calls/s", case=name) for name, one in runs.items()),
        *(Figure("server CPU per call", [run.spent for run in one], "us", case=name) for name, one in runs.items()),
        Figure("calls per second, POST /process / the RPC", [other.rate / one.rate for one, other in pairs]),
        Figure("server CPU per call, POST /process / the RPC", [other.spent / one.spent for one, other in pairs]),
    ]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def measured(served: ServedProcess, door: Callable[[], Awaitable[int]]) -> Run:
    """One batch. Raises RuntimeError if not all of its calls succeeded."""
    server = psutil.Process(served.pid)
    start, before = time.perf_counter(), sum(server.cpu_times()[:2])
    done = await door()
    if done != CALLS:
        raise RuntimeError(f"{done} of {CALLS} calls succeeded")
    return Run(CALLS / (time.perf_counter() - start), (sum(server.cpu_times()[:2]) - before) / CALLS * 1e6)


async def over_grpc(channel: grpc.aio.Channel, request: bytes) -> int:
    process: Any = channel.unary_stream("/apiflux.v1.FluxService/Process")  # without serializers: bytes
    last = b""
    async for message in process(request):
        last = message
    return int(pb.ProcessResponse.FromString(last).summary.succeeded)


async def over_http(http: aiohttp.ClientSession, url: str, body: bytes) -> int:
    end = b""
    async with http.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
        async for some in answer.content.iter_any():
            end = (end + some)[-200_000:]  # a line is shorter
    return int(json.loads(end.splitlines()[-1])["summary"]["succeeded"])
