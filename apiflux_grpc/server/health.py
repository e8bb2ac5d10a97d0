"""Health, by the standard protocol: "" and the service are SERVING while the engine answers and no drain has begun.

Rule: changes come from the engine's state alone; a drain is final.
"""

from __future__ import annotations

import asyncio
from typing import Final

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from apiflux_grpc.v1 import apiflux_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["FluxService"].full_name


class Health:
    """The health servicer, and the two switches that we use."""

    def __init__(self) -> None:
        self.servicer = health_aio.HealthServicer()
        self._tasks: set[asyncio.Task[None]] = set()

    def change(self, healthy: bool) -> None:
        """The engine's state has changed. Returns at once; watchers are told by a task."""
        task = asyncio.get_running_loop().create_task(self.set(healthy))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def set(self, healthy: bool) -> None:
        """SERVING or NOT_SERVING, for the server and for the service."""
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if healthy else statuses.NOT_SERVING
        for name in ("", SERVICE):
            await self.servicer.set(name, status)

    async def drain(self) -> None:
        """NOT_SERVING from now on, whatever the engine says."""
        await self.servicer.enter_graceful_shutdown()
