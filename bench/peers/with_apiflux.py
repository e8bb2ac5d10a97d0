"""A served APIFlux and its Python client: each name's calls are one batch. Both count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.testing.served import ServedProcess, config_for, secrets_for
from bench.peers.contest import Run, Work, compete


@asynccontextmanager
async def opened(work: Work) -> AsyncIterator[Run]:
    keys = {f"key-{place}": secret for place, secret in enumerate(work.secrets)}
    limit = Limit(work.most, round(work.per * SECOND))
    config = config_for(work.url, (limit,), list(keys), f"max_connections = {work.at_once}")
    with ServedProcess(config, secrets_for(keys)) as served:
        async with Client(served.target) as client:

            async def run(name: str, calls: int) -> int:
                batch = [Call(f"/{name}/{number}") for number in range(calls)]
                return sum([result.ok async for result in client.process(batch)])

            yield run


if __name__ == "__main__":
    compete(opened)
