"""The health of a pool whose store of budgets is silent: told apart from that of the process."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2

from apiflux_grpc.core.info import PoolSnapshot
from apiflux_grpc.core.model import Pool
from apiflux_grpc.core.store_health import SILENCE, StoreSnapshot
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.health import SERVICE, Health
from apiflux_grpc.server.info import put_pool
from apiflux_grpc.v1 import apiflux_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def statuses(health: Health) -> dict[str, int]:
    """By service."""
    context: Any = None  # it isn't asked for anything
    found = {}
    for name in ("", SERVICE, f"{SERVICE}/a", f"{SERVICE}/b"):
        found[name] = (await health.servicer.Check(health_pb2.HealthCheckRequest(service=name), context)).status
    return found


async def test_a_pool_that_is_not_healthy_says_so_and_the_process_stays_live() -> None:
    """A probe of the process goes on to succeed: to restart it would help nobody."""
    health = Health(["a", "b"])
    await health.set(True)
    health.change_pool("a", False)
    await asyncio.sleep(0)  # its task
    await asyncio.sleep(0)
    told = await statuses(health)
    assert told == {"": SERVING, SERVICE: SERVING, f"{SERVICE}/a": NOT_SERVING, f"{SERVICE}/b": SERVING}
    await health.set(False)
    assert set((await statuses(health)).values()) == {NOT_SERVING}
    health.change_pool("a", True)
    await health.set(True)
    await asyncio.sleep(0)  # its task
    await asyncio.sleep(0)
    assert set((await statuses(health)).values()) == {SERVING}


def test_get_info_tells_of_the_store() -> None:
    """Since when it's silent and why, and how many calls were sent late; nothing without a store."""
    for store in (None, StoreSnapshot(None, "", 3, False), StoreSnapshot(SILENCE, "it is gone", 0, False)):
        message = pb.PoolInfo()
        put_pool(message, Pool("a", ()), snapshot(store))
        assert message.HasField("budget_store") is (store is not None)
        if store is not None:
            told = message.budget_store
            assert told.HasField("silent_for") is (store.silent_for is not None)
            assert (told.silent_for.seconds * SECOND, told.error) == (store.silent_for or 0, store.why)
            assert told.sent_late == store.sent_late


def snapshot(store: StoreSnapshot | None) -> PoolSnapshot:
    return PoolSnapshot("a", 0, 0, 0, (), 0.0, None, False, 0, "", (), store)
