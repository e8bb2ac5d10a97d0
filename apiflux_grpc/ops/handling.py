"""From a request to the one that answers it, and a log line for each.

Rule: in this order: is it from where it should be, is there such a thing, who asks and may they, then the work.
Whatever is raised becomes a problem; of a fault of ours the caller gets an opaque id, and the log the rest, as with an
RPC. No header's value and no path is logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from apiflux_grpc.core.callers import Credentials
from apiflux_grpc.core.errors import EngineFailed, FluxError, Forbidden, PeerNotTrusted, ReaderStalled, Unauthenticated
from apiflux_grpc.ops import states
from apiflux_grpc.ops.bodies import Room
from apiflux_grpc.ops.connections import answer, answer_of
from apiflux_grpc.ops.guards import check_host, check_site
from apiflux_grpc.ops.problems import HttpRefused, problem_of
from apiflux_grpc.ops.process import CUT_WITHIN, Exchange, Process
from apiflux_grpc.ops.tls import certificate_of, names_in
from apiflux_grpc.server.door import allowed, caller_of, enter
from apiflux_grpc.server.interceptors import begin_line
from apiflux_grpc.server.status import code_of
from apiflux_grpc.server.until import AFTER_EXPIRY, within
from apiflux_grpc.v1 import apiflux_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aiohttp import web

    from apiflux_grpc.core.callers import Callers, Identity
    from apiflux_grpc.engine.engine import Engine
    from apiflux_grpc.server.health import Health
    from apiflux_grpc.server.service import FluxService

_log = logging.getLogger("apiflux.ops")
GET: Final = ("GET", "HEAD")
JSON: Final = "application/json"
PROCESS: Final = "/apiflux.v1.FluxService/Process"
GET_INFO: Final = "/apiflux.v1.FluxService/GetInfo"
CHECK: Final = "/grpc.health.v1.Health/Check"
READY: Final = "/readyz"
READY_POOL: Final = f"{READY}/"  # and then the name of one


@dataclass(frozen=True, slots=True)
class Route:
    """`rpc` is the method that does the same over gRPC: who may call one may call the other.

    `is_health`: it is health's, and as open as that. `is_quiet`: probes ask all the time, so its line is for debugging.
    """

    path: str
    methods: tuple[str, ...]
    run: Callable[[web.BaseRequest, Exchange], Awaitable[web.StreamResponse]]
    rpc: str
    is_health: bool = False
    is_quiet: bool = False


class Handling:
    """Answers every request of the port. `names` are this server's, in lower case."""

    def __init__(
        self,
        engine: Engine,
        service: FluxService,
        health: Health,
        *,
        callers: Callers,
        open_health: bool,
        asks_certificates: bool = False,
        names: Collection[str],
        max_calls: int,
        most: int,
    ) -> None:
        self._engine = engine
        self._service = service
        self._health = health
        self._callers = callers
        self._open_health = open_health
        self._asks_certificates = asks_certificates
        self._names = names
        process = Process(service, lambda: engine.draining, max_calls, Room(most))
        routes = (
            Route("/livez", GET, self._live, CHECK, is_health=True, is_quiet=True),
            Route(READY, GET, self._ready, CHECK, is_health=True, is_quiet=True),
            Route("/health", GET, self._whole, GET_INFO, is_quiet=True),
            Route("/process", ("POST",), process.run, PROCESS),
        )
        self._routes = {route.path: route for route in routes}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer, which may have been sent already."""
        line, start = begin_line(), time.monotonic()
        exchange = Exchange(request)
        caller = caller_of(exchange.peer())
        route: Route | None = None
        code = "OK"
        try:
            check_origin(request, self._names)
            route = self._route(request)
            known = await self._admit(route, request, caller)
            if known is None:
                return await route.run(request, exchange)
            caller = known.name
            with nullcontext() if known.until is None else within(known.until + AFTER_EXPIRY - time.time_ns()):
                return await route.run(request, exchange)
        except (asyncio.CancelledError, ConnectionError):
            code = "CANCELLED"
            raise
        except HttpRefused as refusal:
            code = refusal.problem.status.name
            line["reason"] = refusal.problem.reason
            return answer_of(refusal.problem)
        except FluxError as error:
            code = code_of(error).name
            line["reason"] = error.reason
            return await _told(error, exchange)
        except Exception as error:
            failure = EngineFailed(uuid.uuid4().hex[:12])
            code = code_of(failure).name
            line["error_id"] = failure.error_id
            _log.error("unhandled exception", exc_info=error, extra={"error_id": failure.error_id})
            return await _told(failure, exchange)
        finally:
            level = logging.DEBUG if route is not None and route.is_quiet else logging.INFO
            if _log.isEnabledFor(level):
                ms = round((time.monotonic() - start) * 1000, 1)
                method = f"{request.method[:16]} {'other' if route is None else route.path}"
                _log.log(level, "http", extra={"method": method, "caller": caller, "code": code, "ms": ms, **line})

    def _route(self, request: web.BaseRequest) -> Route:
        """Raises HttpRefused: there is none, or it has another method."""
        route = self._routes.get(request.path)
        if route is None and request.path.startswith(READY_POOL):
            route = self._routes[READY]
        if route is None:
            known = ", ".join(self._routes)
            raise HttpRefused(HTTPStatus.NOT_FOUND, "NO_SUCH_PATH", f"there is no such path; there are {known}")
        if request.method not in route.methods:
            allowed = ", ".join(route.methods)
            text = f"use {allowed}"
            raise HttpRefused(HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", text, {"Allow": allowed})
        return route

    async def _admit(self, route: Route, request: web.BaseRequest, caller: str) -> Identity | None:
        """Who asks; None: nobody has to know. Raises Refused."""
        if route.is_health and (self._open_health or not self._callers):
            return None
        assert request.transport is not None
        certificate = certificate_of(request.transport)
        if self._asks_certificates and certificate is None:
            raise PeerNotTrusted("this server's clients show a certificate, and you have shown none")
        if self._callers:
            known = await self._callers.admit_soon(_credentials(request))
            allowed(known, route.rpc)
            enter(known)
            return known
        if certificate is None and not ip_address(caller).is_loopback:
            raise Forbidden("only programs on this machine may use this, as long as no callers are configured")
        return None

    async def _live(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        return answer(*states.live(self._engine), JSON)

    async def _ready(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        pool = request.path.removeprefix(READY).removeprefix("/")
        return answer(*states.ready(self._engine, self._health, pool, self._sees(request)), JSON)

    def _sees(self, request: web.BaseRequest) -> Callable[[str], bool]:
        """Which pools there are for who asks: with callers none for a stranger, who may probe all the same."""
        if not self._callers:
            return lambda name: True
        try:
            pools = self._callers.admit(_credentials(request)).access.pools
        except (Unauthenticated, Forbidden):
            return lambda name: False
        return lambda name: pools is None or name in pools

    async def _whole(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        info = await self._service.GetInfo(pb.GetInfoRequest(), exchange)
        return answer(*states.whole(self._engine, self._health, info), JSON)


def check_origin(request: web.BaseRequest, names: Collection[str]) -> None:
    """Raises HttpRefused unless the request is for this server, and of no other site's page."""
    if not request.raw_path.startswith("/"):
        text = "this isn't a proxy; send a path"
        raise HttpRefused(HTTPStatus.BAD_REQUEST, "BAD_PATH", text, closes=True)
    hosts = request.headers.getall("Host", [])
    assert request.transport is not None
    check_host(hosts, names, request.transport.get_extra_info("sockname")[0])
    own = f"{request.scheme}://{hosts[0]}"
    check_site(request.headers.getall("Origin", []), request.headers.getall("Sec-Fetch-Site", []), own)


def _credentials(request: web.BaseRequest) -> Credentials:
    assert request.transport is not None
    certificate = certificate_of(request.transport)
    shown = tuple(request.headers.getall("Authorization", ()))
    return Credentials(shown, () if certificate is None else names_in(certificate))


async def _told(error: FluxError, exchange: Exchange) -> web.StreamResponse:
    problem = problem_of(error)
    if not exchange.has_begun:
        return answer_of(problem)
    return await exchange.cut(problem, 0 if isinstance(error, ReaderStalled) else CUT_WITHIN)
