"""From the sources to the settings: what isn't of one pool alone.

Rule: a flag wins over the environment, that over `.env`, and that over the TOML file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apiflux_grpc.settings.callers import callers_of
from apiflux_grpc.settings.default_pool import default_pool
from apiflux_grpc.settings.descriptors import OWN, for_callers, most_for_callers
from apiflux_grpc.settings.jwt import jwt_of
from apiflux_grpc.settings.ops import ops_of
from apiflux_grpc.settings.pools import pool_settings
from apiflux_grpc.settings.shared import check_shared
from apiflux_grpc.settings.sources import Sources
from apiflux_grpc.settings.state import state_of
from apiflux_grpc.settings.transport import transport_of
from apiflux_grpc.settings.types import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from apiflux_grpc.server.defaults import Mode

REPEAT_COUNT: Final[Mapping[Mode, int]] = {"test": Settings(()).repeat_count, "production": 2000}


def read(
    config: Path | None, environ: Mapping[str, str], dotenv: Path | None, bind: str | None, allow_plaintext: bool
) -> Settings:
    """As `load`, which says what comes in and out."""
    sources = Sources(config, environ, dotenv)
    env, server, stress = sources.env, sources.file.server, sources.file.stress
    mode: Mode = server.mode if env.TEST_MODE is None else "test" if env.TEST_MODE else "production"
    latency = _mode_latency(sources, mode)
    transport = transport_of(sources, bind, allow_plaintext)
    ops = ops_of(sources, transport, allow_plaintext)
    _check_server(sources)
    pools = [pool_settings(sources, name, pool, latency) for name, pool in sources.file.pools.items()]
    pools = default_pool(sources, latency) + pools
    check_shared(sources, pools)
    state = state_of(sources, pools)
    jwt = jwt_of(sources)
    callers = callers_of(sources, {one.pool.name: one.pool for one in pools})
    repeat_count = _repeat_count(sources, mode)
    if sources.findings.faults:
        raise SettingsError(sources.findings.faults)
    return Settings(
        pools=tuple(pools),
        host=transport.host,
        port=transport.port,
        tls=transport.tls,
        workers=server.workers,
        mode=mode,
        repeat_count=repeat_count,
        batch_size=env.BATCH_SIZE or server.batch_size,
        concurrent_requests=env.CONCURRENT_REQUESTS or stress.concurrent_requests,
        request_timeout=env.REQUEST_TIMEOUT or stress.request_timeout,
        max_batches=server.max_batches,
        max_queued_calls=server.max_queued_calls,
        max_queued_bytes=server.max_queued_bytes,
        max_batch_calls=server.max_batch_calls,
        max_batch_bytes=server.max_batch_bytes,
        max_connections=server.max_connections or for_callers(),
        compressed_requests=server.compressed_requests,
        grace=server.grace,
        reflection=server.reflection,
        callers=callers,
        jwt=jwt,
        open_health=server.open_health,
        state=state,
        ops=ops,
        warnings=tuple(sources.findings.warnings),
    )


def _mode_latency(sources: Sources, mode: Mode) -> tuple[int, int]:
    """The simulator's latency in that mode."""
    env = sources.env
    # Both modes, or a fault would show only on the day when the mode is changed.
    for low, high in (("TEST_MIN_LATENCY", "TEST_MAX_LATENCY"), ("PROD_MIN_LATENCY", "PROD_MAX_LATENCY")):
        if getattr(env, low) > getattr(env, high):
            given = high if high in sources.set_names else low
            places = [sources.env_place(name) for name in (low, high)]
            sources.findings.fault(sources.env_place(given), f"{low} must be at most {high}", *places)
    if mode == "test":
        return env.TEST_MIN_LATENCY, env.TEST_MAX_LATENCY
    return env.PROD_MIN_LATENCY, env.PROD_MAX_LATENCY


def _check_server(sources: Sources) -> None:
    server = sources.file.server
    for one, all_of_them in (("max_batch_calls", "max_queued_calls"), ("max_batch_bytes", "max_queued_bytes")):
        low, high = getattr(server, one), getattr(server, all_of_them)
        if low > high:
            given = one if one in server.model_fields_set else all_of_them
            places = [sources.toml_place("server", name) for name in (one, all_of_them)]
            text = f"{one} ({low}) must be at most {all_of_them} ({high})"
            sources.findings.fault(sources.toml_place("server", given), text, *places)
    if (asked := server.max_connections) is not None and asked > (most := most_for_callers()):
        text = f"must be at most {most}, {OWN} less than this process may open files; raise `ulimit -n` for more"
        sources.findings.fault(sources.toml_place("server", "max_connections"), text)


def _repeat_count(sources: Sources, mode: Mode) -> int:
    env, server = sources.env, sources.file.server
    name = "TEST_REQUESTS_COUNT" if mode == "test" else "PROD_REQUESTS_COUNT"
    given: int | None = getattr(env, name)
    count = given or server.repeat_count or REPEAT_COUNT[mode]
    place = sources.env_place(name) if given else sources.toml_place("server", "repeat_count")
    most = sources.toml_place("server", "max_batch_calls")
    if count > server.max_batch_calls:
        place = place if given or server.repeat_count else most
        text = f"the default repeat count ({count}) must be at most max_batch_calls ({server.max_batch_calls})"
        sources.findings.fault(place, text, most)
    return count
