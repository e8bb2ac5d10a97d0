"""The one composition root: Settings -> adapters -> engine -> server.

Rule: this is the only place that knows every concrete class. It computes nothing: whatever can be chosen comes from
the settings, and what runs is what it puts together here.

The aiohttp sender is imported only by a pool that needs it: importing aiohttp is a third of a server's start-up time;
and SQLite or redis-py only by a server that keeps something.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from apiflux_grpc import __version__
from apiflux_grpc.adapters.boot import boot_id
from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.lease_memory import MemoryLeaseStore
from apiflux_grpc.adapters.observe_logs import LogObserver
from apiflux_grpc.adapters.pacer import AiolimiterPacer
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.adapters.upstream_simulated import SimulatedUpstream
from apiflux_grpc.core.callers import Callers
from apiflux_grpc.core.claims import Issued
from apiflux_grpc.core.errors import EngineFailed
from apiflux_grpc.core.units import is_loopback
from apiflux_grpc.engine.admission import Bounds
from apiflux_grpc.engine.batches import PoolParts
from apiflux_grpc.engine.engine import Engine
from apiflux_grpc.server.administration import Administration, SecretFile
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.health import Health
from apiflux_grpc.server.lifecycle import PortInUse, Server
from apiflux_grpc.server.service import FluxService
from apiflux_grpc.server.tls_files import BadFile
from apiflux_grpc.settings.secret_file import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from apiflux_grpc.core.redis_url import RedisUrl
    from apiflux_grpc.engine.ports import Clock, LeaseStore, Upstream
    from apiflux_grpc.server.lifecycle import OtherPort
    from apiflux_grpc.settings import PoolSettings, Settings

_log = logging.getLogger("apiflux.server")

# How long one thread keeps the interpreter while another wants it. With Python's 5 ms the server's loop waits that
# long, many times for each RPC, while the engine is busy: the first result's p99 was twice as long.
SWITCH_INTERVAL: Final = 0.0003  # seconds
# The most results that cross to the server's loop at once. A message may hold more, but the first of them should not
# wait until it is full.
HANDED_OVER: Final = 100


ON_A_NETWORK: Final = "is on a network file system ({}), where locks don't hold; use a local directory"


class StateUnusable(Exception):
    """What is to be kept can't be kept where it is to; the text names the setting, and says what to do."""


# What keeps a server from starting, and the exit code of each.
CANT_START: Final[dict[type[Exception], int]] = {PortInUse: 2, StateUnusable: 2, BadFile: 2, EngineFailed: 1}


def clock() -> Clock:
    """The clock of engine, upstreams and lease stores: no one steps it, and while the machine sleeps it goes on if
    the system has such a clock, for leases end meanwhile."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns if boottime is None else partial(time.clock_gettime_ns, boottime)


CLOCK: Final = clock()


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers on one port a server is, from 1, and of how many. 0 of 1: it is alone."""

    number: int = 0
    of: int = 1


ALONE: Final = Place()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop if it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def make_server(settings: Settings, place: Place = ALONE, store: LeaseStore | None = None) -> Server:
    """A server, ready to start. `store`: where budgets are kept; None: nowhere."""
    callers = Callers(settings.callers, _issuer(settings))
    health = Health(pool.pool.name for pool in settings.pools)
    engine = Engine(
        parts_with(settings, store),
        LogObserver(),
        bounds=Bounds(settings.max_batches, settings.max_queued_calls, settings.max_queued_bytes),
        batch_size=min(settings.batch_size, HANDED_OVER),
        loop_factory=loop_factory(),
        on_health=health.change,
        on_pool=health.change_pool,
        clock=CLOCK,
    )
    defaults = Defaults(
        mode=settings.mode,
        repeat_count=settings.repeat_count,
        max_batch_calls=settings.max_batch_calls,
        max_batch_bytes=settings.max_batch_bytes,
        batch_size=settings.batch_size,
        worker=place.number,
        workers=place.of,
    )
    service = FluxService(engine, defaults)
    return Server(
        engine,
        service,
        health,
        host=settings.host,
        port=settings.port,
        shares_port=place.of > 1,
        max_batch_bytes=settings.max_batch_bytes,
        max_connections=settings.max_connections,
        compressed_requests=settings.compressed_requests,
        with_reflection=settings.reflection,
        grace=settings.grace / 1e9,
        callers=callers,
        open_health=settings.open_health,
        tls=settings.tls,
        administration=_administration(settings, engine),
        other=_ops_port(settings, place, engine, service, health, callers),
    )


def _administration(settings: Settings, engine: Engine) -> Administration:
    files = {
        (pool.pool.name, label): SecretFile(path, partial(read_secret, path))
        for pool in settings.pools
        for label, path in pool.secret_files.items()
    }
    return Administration(engine, settings.state.directory, files, is_kept=not settings.state.is_temporary)


def _ops_port(
    settings: Settings, place: Place, engine: Engine, service: FluxService, health: Health, callers: Callers
) -> OtherPort | None:
    if settings.ops is None:
        return None
    from apiflux_grpc.ops.connections import MOST_CONNECTIONS
    from apiflux_grpc.ops.handling import Handling
    from apiflux_grpc.ops.port import OpsPort

    handling = Handling(
        engine,
        service,
        health,
        callers=callers,
        open_health=settings.open_health,
        asks_certificates=settings.tls is not None and settings.tls.client_ca_file is not None,
        names=settings.ops.hosts,
        max_calls=settings.max_batch_calls,
        most=2 * settings.max_batch_bytes,  # as gRPC's own limit
    )
    ops = settings.ops
    return OpsPort(
        handling,
        ops.host,
        ops.port,
        shares_port=place.of > 1,
        files=settings.tls,
        most_connections=min(MOST_CONNECTIONS, settings.max_connections),
    )


def parts_of(settings: PoolSettings) -> PoolParts:
    """What an engine needs to run this pool."""
    return PoolParts(settings.pool, _upstream(settings), AiolimiterPacer)


def parts_with(settings: Settings, store: LeaseStore | None) -> list[PoolParts]:
    """What an engine needs to run the pools of these settings. `store`: where budgets are kept; None: nowhere."""
    state = settings.state
    # Pools that share a budget need a store for it, be it of this process alone.
    shared = store or MemoryLeaseStore(CLOCK)
    pools_of = Counter(name for pool in settings.pools for name in {key.budget for key in pool.pool.keys})
    found = []
    for pool in settings.pools:
        parts = parts_of(pool)
        is_kept = store is not None and (bool(pool.base_url) or bool(state.asked_at))
        if is_kept or any(key.budget and pools_of[key.budget] > 1 for key in pool.pool.keys):
            parts = replace(parts, store=shared, life=state.life, trust=state.trust)
        elif not state.trust:
            parts = replace(parts, pool=replace(parts.pool, begins_spent=True))
        found.append(parts)
    return found


async def open_store(settings: Settings) -> LeaseStore | None:
    """Where budgets are kept, opened; None: in memory. Raises StateUnusable if that was asked for and can't be."""
    state = settings.state
    if state.redis is not None:
        return await _open_redis(state.redis, state.asked_at)
    if state.directory is None:
        if any(pool.base_url for pool in settings.pools):
            spent = "nothing" if state.trust else "everything"
            _log.info("budgets are kept in memory, and of the time before it counts that %s was spent", spent)
        return None
    from apiflux_grpc.adapters.lease_sqlite import SqliteLeaseStore
    from apiflux_grpc.adapters.mounts import network_of
    from apiflux_grpc.adapters.state_file import NAME, StateFileError

    path = state.directory / NAME
    store = SqliteLeaseStore(path, CLOCK, time.time_ns, boot_id())
    try:
        if kind := network_of(state.directory):
            raise StateFileError(ON_A_NETWORK.format(kind))
        await store.open()
    except StateFileError as error:
        await store.close()
        if state.asked_at:
            raise StateUnusable(f"{state.asked_at}: {path} {error}") from error
        _log.warning("%s %s; until then budgets are kept in memory, and a restart forgets them", path, error)
        return None
    _log.info("budgets are kept in %s", path)
    return store


@dataclass(frozen=True, slots=True)
class ProbedStore:
    """Whether budgets can be kept `at` a place, and `what` came, or is wrong and what to do."""

    at: str
    what: str
    ok: bool


async def probe_store(settings: Settings) -> ProbedStore | None:
    """Ask the Redis whether it may hold budgets, or see whether state_dir can be written, which stays as it is; None:
    budgets are kept in memory."""
    state = settings.state
    if state.redis is not None:
        from apiflux_grpc.adapters.lease_redis.client import RedisStoreError
        from apiflux_grpc.adapters.lease_redis.store import RedisLeaseStore

        place = str(state.redis)
        try:
            store = RedisLeaseStore(state.redis)
            advice = await store.check()
            await store.close()
        except (RedisStoreError, ConnectionError) as error:
            return ProbedStore(state.asked_at, str(error), ok=False)
        return ProbedStore(state.asked_at, "; ".join([f"{place} answers, and may hold budgets", *advice]), ok=True)
    if state.directory is None:
        return None
    from apiflux_grpc.adapters.mounts import network_of
    from apiflux_grpc.adapters.state_file import NAME, StateFileError, probe

    path, at = state.directory / NAME, state.asked_at or "state_dir"
    try:
        if kind := network_of(state.directory):
            raise StateFileError(ON_A_NETWORK.format(kind))
        probe(path)
    except StateFileError as error:
        return ProbedStore(at, f"{path} {error}", ok=False)
    return ProbedStore(at, f"{path} can be written", ok=True)


async def _open_redis(url: RedisUrl, asked_at: str) -> LeaseStore:
    from apiflux_grpc.adapters.lease_redis.client import RedisStoreError
    from apiflux_grpc.adapters.lease_redis.store import RedisLeaseStore

    try:
        store = RedisLeaseStore(url)
        for advice in await store.check():
            _log.warning("%s %s", url, advice)
    except RedisStoreError as error:
        raise StateUnusable(f"{asked_at}: {error}") from error
    except ConnectionError:
        pass  # it may come yet; the engine asks it at once too, and says of each pool that calls wait for it
    _log.info("budgets are kept in %s", url)
    return store


def _issuer(settings: Settings) -> Issued | None:
    """Raises StateUnusable if the file of its keys can't be used."""
    if settings.jwt is None:
        return None
    from apiflux_grpc.adapters.jwt import JwtVerifier, KeysUnusable, from_file, from_url

    path, rules = settings.jwt.keys_file, settings.jwt.rules
    verifier = JwtVerifier(from_url(settings.jwt.keys_url) if path is None else from_file(path), rules.algorithms)
    try:
        if path is not None:
            verifier.load()
    except OSError as error:
        raise StateUnusable(f"auth.jwt.jwks_file: {path} can't be read: {error.strerror}") from None
    except KeysUnusable as error:
        raise StateUnusable(f"auth.jwt.jwks_file: {path} {error}") from None
    return Issued(rules, verifier, settings.callers, time.time_ns)


def _upstream(settings: PoolSettings) -> Callable[[], Upstream]:
    if not settings.base_url:
        return partial(SimulatedUpstream, settings.latency, settings.error_rate, clock=CLOCK)
    http = HttpSettings(
        base_url=settings.base_url,
        key_in=settings.pool.key_in,
        body_cap=settings.body_cap,
        idle_timeout=settings.idle_timeout,
        max_connections=settings.pool.max_connections,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        egress_proxy=settings.egress_proxy,
        mask_secrets=settings.mask_secrets,
        user_agent=f"apiflux/{__version__}",
    )
    if not settings.egress_proxy:
        return partial(HttpUpstream, http, clock=CLOCK)
    # Our own sender knows exactly what it sent, but it can't go through a proxy.
    from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream

    return partial(AiohttpUpstream, http, clock=CLOCK)


def serve(settings: Settings, place: Place = ALONE, *, serves: Callable[[Server], object]) -> int:
    """Serve until SIGTERM or SIGINT. `serves` is called once health says SERVING. 1: a fault of ours.

    Raises those of CANT_START.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, place, serves))


async def _serve(settings: Settings, place: Place, serves: Callable[[Server], object]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = make_server(settings, place, await open_store(settings))
    await server.start()
    if not settings.callers and settings.jwt is None and place.number <= 1:  # the first worker says it for all
        # If other machines reach it and are asked for no certificate, its keys are open to all of them.
        is_kept = is_loopback(settings.host) or (settings.tls is not None and settings.tls.client_ca_file is not None)
        level = logging.INFO if is_kept else logging.WARNING
        _log.log(level, "no callers are configured: whoever can connect may call")
    if place is ALONE:  # of workers the supervisor says it, once
        for warning in settings.warnings:
            _log.warning(warning)
    # Start-up made objects that live as long as the process: the collector need not look at them again, and with
    # its usual threshold it costs an eighth of the CPU under load.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    serves(server)
    await server.serve_until(stop)
    return 1 if server.failed or server.engine.failure is not None else 0
