"""/livez, /readyz and /health say how the server is, as gRPC does, and to those who may know."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from apiflux_grpc import __version__
from apiflux_grpc.core.callers import Access, Caller, Callers, Role, digest_of
from apiflux_grpc.ops import states
from tests.ops.ports import SECRET, ops_served, problem_in

TOKENS = {role: f"apiflux_{role}" for role in Role}
CALLERS = Callers(Caller(role, Access(role), (digest_of(token),)) for role, token in TOKENS.items())


async def test_a_server_that_serves_is_live_and_ready() -> None:
    """And so is its pool; a pool that isn't there is a problem."""
    async with ops_served() as served:
        for path, told in (
            ("/livez", {"status": "SERVING"}),
            ("/readyz", {"status": "SERVING", "pools": {"default": {"status": "SERVING"}}}),
            ("/readyz/default", {"status": "SERVING"}),
        ):
            answer = await served.get(path)
            assert (answer.status, answer.content_type, json.loads(await answer.text())) == (
                200,
                "application/json",
                told,
            )
        missing = await served.get("/readyz/no")
        assert (missing.status, (await problem_in(missing))["reason"]) == (404, "POOL_NOT_FOUND")


async def test_a_pool_that_is_not_ready_says_why() -> None:
    """The server itself is: other pools can be used, and this one comes back by itself."""
    async with ops_served() as served:
        served.server.health.change_pool("default", False)
        whole, pool = await served.get("/readyz"), await served.get("/readyz/default")
        assert (whole.status, pool.status) == (200, 503)
        told = {"status": "NOT_SERVING", "reason": "the store of its budgets can't be used"}
        assert json.loads(await whole.text())["pools"]["default"] == json.loads(await pool.text()) == told


async def test_a_silent_engine_is_neither_live_nor_ready() -> None:
    """Only a new process helps then; /health tells people so, with an answer all the same."""
    silent: Any = SimpleNamespace(healthy=False)
    assert states.live(silent)[0] == 503
    async with ops_served() as served:
        served.server.health.change(False)  # as the engine's watchdog says
        ready, whole = await served.get("/readyz"), await served.get("/health")
        assert (ready.status, whole.status) == (503, 200)
        why = {"status": "NOT_SERVING", "reason": "the engine doesn't answer"}
        assert json.loads(await ready.text()) == {**why, "pools": {"default": why}}
        assert json.loads(await whole.text())["status"] == "NOT_SERVING"


async def test_health_is_get_info() -> None:
    """State and configuration, without a secret."""
    async with ops_served() as served:
        answer = await served.get("/health")
        text = await answer.text()
        told = json.loads(text)
        assert (answer.status, told["status"], told["version"]) == (200, "SERVING", __version__)
        assert told["pools"][0]["keys"][0]["label"] == "key-1"
        assert SECRET not in text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
async def test_head_says_what_get_says(path: str) -> None:
    """The same head, and no body: what comes next on the connection is the next answer."""
    async with ops_served() as served:
        head, get = await served.get(path, "HEAD"), await served.get(path)
        assert head.status == get.status == 200
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


async def test_with_callers_a_token_decides() -> None:
    """The role that the RPC asks for; probes are as open as gRPC's health."""
    async with ops_served(callers=CALLERS) as served:
        for path, role, status in (
            ("/livez", None, 200),
            ("/readyz", None, 200),
            ("/health", None, 401),
            ("/health", Role.READER, 200),
            ("/health", Role.ADMIN, 200),
        ):
            assert (await served.get(path, **bearer(role))).status == status, (path, role)
        for role, status in ((None, 401), (Role.READER, 403), (Role.CALLER, 200), (Role.ADMIN, 200)):
            assert (await served.post({"calls": [{}]}, **bearer(role))).status == status
        wrong = await served.post({"calls": [{}]}, Authorization="Bearer no")
        assert (wrong.status, wrong.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await problem_in(wrong))["reason"] == "CREDENTIALS_INVALID"


async def test_a_pool_is_there_for_those_who_may_use_it() -> None:
    """A stranger may probe, as with gRPC, and is told of no pool and no reason; another caller neither."""
    callers = Callers(
        [
            Caller("mine", Access(pools=frozenset({"default"})), (digest_of("mine"),)),
            Caller("other", Access(pools=frozenset({"else"})), (digest_of("other"),)),
        ]
    )
    down = {"status": "NOT_SERVING"}
    reason = {"reason": "the store of its budgets can't be used"}
    async with ops_served(callers=callers) as served:
        served.server.health.change_pool("default", False)
        for token, pools, told in (
            ("mine", {"default": down | reason}, down | reason),
            ("other", None, down),
            ("", None, down),
        ):
            shown = {"Authorization": f"Bearer {token}"} if token else {}
            whole, pool, no = [await served.get(path, **shown) for path in ("/readyz", "/readyz/default", "/readyz/no")]
            assert json.loads(await whole.text()).get("pools") == pools
            assert (pool.status, json.loads(await pool.text())) == (503, told)
            assert (no.status, "default" in await no.text()) == (404, token == "mine")
        batch = {"pool": "default", "calls": [{}]}
        assert (await served.post(batch, Authorization="Bearer other")).status == 404
        assert (await served.post(batch, Authorization="Bearer mine")).status == 200


async def test_probes_can_be_closed() -> None:
    """As gRPC's health: then they need a token too."""
    async with ops_served(callers=CALLERS, open_health=False) as served:
        assert (await served.get("/livez")).status == 401
        assert (await served.get("/readyz", **bearer(Role.READER))).status == 200


def bearer(role: Role | None) -> dict[str, str]:
    return {} if role is None else {"Authorization": f"Bearer {TOKENS[role]}"}
