"""Health, by the standard protocol: "" and the service are SERVING while the engine answers and no drain has begun.

Each pool has a service of its own, `apiflux.v1.FluxService/NAME`: it isn't SERVING either while the store of its
budgets has been silent for too long. The process is fine then and recovers by itself, so "" goes on to say SERVING.

Rule: changes come from the engine's state alone; a drain is final.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SERVICE: Final = pb.DESCRIPTOR.services_by_name["FluxService"].full_name


class Health:
    """The health servicer, and the two switches that we use."""

    def __init__(self, pools: Iterable[str] = ()) -> None:
        self.servicer = health_aio.HealthServicer()
        self._pools = dict.fromkeys(pools, True)
        self._healthy = False
        self.draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def serving(self) -> bool:
        """Whether "" says SERVING."""
        return self._healthy and not self.draining

    @property
    def pools(self) -> Mapping[str, bool]:
        """Whether each pool is healthy itself, as long as the server is."""
        return self._pools

    def change(self, healthy: bool) -> None:
        """The engine's state has changed. Returns at once; watchers are told by a task."""
        self._healthy = healthy
        self._tell_soon()

    def change_pool(self, name: str, healthy: bool) -> None:
        """A pool's state has changed, as `change`."""
        self._pools[name] = healthy
        self._tell_soon()

    async def set(self, healthy: bool) -> None:
        """SERVING or NOT_SERVING, for the server, for the service, and for the pools that are healthy themselves."""
        self._healthy = healthy
        await self._tell()

    def _tell_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        statuses = health_pb2.HealthCheckResponse
        # Each as it is when it's told: of two tasks the later one may be the first to be over.
        for name in ("", SERVICE):
            await self.servicer.set(name, statuses.SERVING if self._healthy else statuses.NOT_SERVING)
        for pool in self._pools:
            is_fine = self._healthy and self._pools[pool]
            await self.servicer.set(f"{SERVICE}/{pool}", statuses.SERVING if is_fine else statuses.NOT_SERVING)

    async def drain(self) -> None:
        """NOT_SERVING from now on, whatever the engine says."""
        self.draining = True
        await self.servicer.enter_graceful_shutdown()
