"""Callers whom an issuer vouches for, at the operations port: what holds for an RPC holds for POST /process."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from apiflux_grpc.core.callers import Callers
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.server.until import AFTER_EXPIRY
from tests.ops.ports import ops_served
from tests.server.issuer import Issuer
from tests.server.serving import Held

ANN = {"Authorization": "Bearer ann.a.b"}
BATCH: Any = {"calls": [{}]}


@pytest.mark.parametrize(("unknown", "status"), [(1, 200), (2, 401)])
async def test_keys_that_are_being_fetched_are_waited_for_once(unknown: int, status: int) -> None:
    """The first token of all is good, though its issuer's keys come only then."""
    issuer = Issuer(time.time_ns() + 3600 * SECOND, unknown=unknown)
    async with ops_served(callers=Callers(issuer=issuer)) as served:
        assert (await served.post(BATCH, **ANN)).status == status
    assert issuer.renewed == 1


async def test_a_batch_ends_an_hour_after_its_token() -> None:
    """As a stream of gRPC: its reader is told why, and nothing of it is left."""
    upstream = Held()
    issuer = Issuer(time.time_ns() - AFTER_EXPIRY + SECOND // 5)
    async with ops_served(upstream=upstream, callers=Callers(issuer=issuer)) as served:
        answer = await served.post(BATCH, **ANN)
        assert (answer.status, json.loads(await answer.text())["reason"]) == (401, "CREDENTIALS_EXPIRED")
        assert await served.server.engine.wait_idle(30)
        assert not upstream.open


async def test_a_token_without_a_role_probes_as_a_stranger_does() -> None:
    """Health is open, whatever is shown there."""
    async with ops_served(callers=Callers(issuer=Issuer(0))) as served:
        answers = [await served.get("/readyz", Authorization=f"Bearer {token}") for token in ("bob.a.b", "no.a.b")]
        assert [(one.status, json.loads(await one.text())) for one in answers] == [(200, {"status": "SERVING"})] * 2
