"""ProcessStream against Process: throughput, and the memory of both sides."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from apiflux_grpc.client import Client
from apiflux_grpc.tools.stress import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb

BATCH = 20_000


def calls(count: int) -> Iterator[pb.Call]:
    for number in range(count):
        yield pb.Call(id=f"c{number}", path=f"/v1/things/{number}")


async def long_stream(config: str, total: int = 1_000_000) -> tuple[float, float, float]:
    """(throughput of one stream / of batches one after the other, MB that the server grew, MB that we grew)."""
    with ServedProcess(config, {}) as served:
        process, own = psutil.Process(served.pid), psutil.Process()
        async with Client(served.target) as client:
            await _batches(client, 2)
            start = time.perf_counter()
            await _batches(client, 10)
            batches = 10 * BATCH / (time.perf_counter() - start)
            server_before, own_before = process.memory_info().rss, own.memory_info().rss
            server_most, own_most = server_before, own_before
            start = time.perf_counter()
            done = 0
            async for message in client.process_stream(calls(total)).raw():
                done += len(message.results)
                if done % 50_000 < len(message.results):
                    server_most = max(server_most, process.memory_info().rss)
                    own_most = max(own_most, own.memory_info().rss)
            stream = total / (time.perf_counter() - start)
    if done != total:
        raise RuntimeError(f"{done} results of {total}")
    return stream / batches, (server_most - server_before) / 1e6, (own_most - own_before) / 1e6


async def _batches(client: Client, count: int) -> None:
    for _ in range(count):
        done = 0
        async for message in client.send(pb.ProcessRequest(calls=calls(BATCH))).raw():
            done += len(message.results)
        if done != BATCH:
            raise RuntimeError(f"{done} results of {BATCH}")
