"""GET /livez, /readyz and /health: how the server is, for probes, balancers and people.

Rule: nothing is found out here. /readyz says what gRPC's health says, for the server and for each pool, and why;
/health is GetInfo. A process that is live and not ready is left alone: it drains, or waits for a store and goes on by
itself.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from google.protobuf.json_format import MessageToDict

from apiflux_grpc.core.errors import PoolNotFound
from apiflux_grpc.core.units import spoken

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.server.health import Health
    from apiflux_grpc.v1 import apiflux_pb2 as pb

SERVING: Final = "SERVING"
NOT_SERVING: Final = "NOT_SERVING"


def live(engine: Engine) -> tuple[HTTPStatus, bytes]:
    """Whether the process works; if not, restart it."""
    if engine.healthy:
        return HTTPStatus.OK, _document({"status": SERVING})
    return HTTPStatus.SERVICE_UNAVAILABLE, _document({"status": NOT_SERVING, "reason": "the engine doesn't answer"})


def ready(
    engine: Engine, health: Health, pool: str = "", sees: Callable[[str], bool] = lambda name: True
) -> tuple[HTTPStatus, bytes]:
    """Whether batches are taken: by the server, or by this pool of it. Raises PoolNotFound.

    Of a pool that who asks doesn't see nothing is told but what gRPC's health tells everybody: its state, by its name.
    """
    reason = _why_not(engine, health)
    pools = {name: reason or ("" if fine else _why(engine, name)) for name, fine in sorted(health.pools.items())}
    seen = [name for name in pools if sees(name)]
    if pool:
        if pool not in pools:
            raise PoolNotFound(pool[:64], seen)
        why = pools[pool]
        told: dict[str, object] = _state(why) if pool in seen or not why else {"status": NOT_SERVING}
    else:
        why = reason
        told = _state(why)
        if seen:
            told["pools"] = {name: _state(pools[name]) for name in seen}
    return HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, _document(told)


def whole(engine: Engine, health: Health, info: pb.GetInfoResponse) -> tuple[HTTPStatus, bytes]:
    """State and configuration, without a secret; OK whatever the state is."""
    told = MessageToDict(info, always_print_fields_with_no_presence=True)
    return HTTPStatus.OK, _document({**_state(_why_not(engine, health)), **told})


def _why_not(engine: Engine, health: Health) -> str:
    """Why no batch is taken at all; "": they are."""
    if health.draining:
        return "the server is shutting down"
    return "" if health.serving else "the engine doesn't answer"


def _why(engine: Engine, pool: str) -> str:
    """Why a pool isn't healthy while the server is."""
    store = None if engine.snapshot is None else engine.snapshot.pools[pool].store
    if store is None or store.silent_for is None:
        return "the store of its budgets can't be used"
    return f"the store of its budgets hasn't answered for {spoken(store.silent_for)}: {store.why}"


def _state(why_not: str) -> dict[str, object]:
    return {"status": NOT_SERVING, "reason": why_not} if why_not else {"status": SERVING}


def _document(told: dict[str, object]) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"
