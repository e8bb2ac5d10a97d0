"""The door: whatever is served is denied to who isn't known, or may not; what was refused wasn't read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from apiflux_grpc.client import Call, Client
from apiflux_grpc.core.callers import Access, Caller, Role, digest_of
from apiflux_grpc.server import refusals
from apiflux_grpc.server.door import NEEDS
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.server.peer import Peer
from tests.server.serving import SERVING, connected, health_of, serving

TOKENS = {role: f"apiflux_canary-{role}" for role in Role}
CALLERS = [Caller(f"the-{role}", Access(role), (digest_of(token),)) for role, token in TOKENS.items()]
UNKNOWN = "/apiflux.v1.FluxService/Unknown"
HEALTH = "/grpc.health.v1.Health/"
GARBAGE = b"\xff"
DENIED = ("PERMISSION_DENIED", "NOT_ALLOWED")
REFUSED = ("UNAUTHENTICATED", "CREDENTIALS_MISSING")


def auth(*tokens: str) -> tuple[tuple[str, str], ...]:
    return tuple(("authorization", f"Bearer {token}") for token in tokens)


WRONG = {
    "none": ((), "CREDENTIALS_MISSING"),
    "other-header": ((("x-authorization", f"Bearer {TOKENS[Role.ADMIN]}"),), "CREDENTIALS_MISSING"),
    "wrong": (auth("apiflux_canary-wrong"), "CREDENTIALS_INVALID"),
    "two": (auth(TOKENS[Role.CALLER], TOKENS[Role.ADMIN]), "CREDENTIALS_INVALID"),
    "basic": ((("authorization", f"Basic {TOKENS[Role.ADMIN]}"),), "CREDENTIALS_INVALID"),
    "empty": ((("authorization", ""),), "CREDENTIALS_INVALID"),
    "digest": (auth(f"sha256:{digest_of(TOKENS[Role.ADMIN]).hex()}"), "CREDENTIALS_INVALID"),
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are refused here, none waits for its turn."""
    monkeypatch.setattr(refusals, "AT_ONCE", 10_000)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every method that a server which is made from now on serves, whatever registers it."""
    found: set[str] = set()
    kind: Any = import_module("grpc.aio._server").Server
    own = kind.add_registered_method_handlers

    def recording(server: Any, service: str, handlers: dict[str, Any]) -> None:
        found.update(f"/{service}/{name}" for name in handlers)
        own(server, service, handlers)

    monkeypatch.setattr(kind, "add_registered_method_handlers", recording)
    return found


@asynccontextmanager
async def guarded(**options: Any) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    async with serving(callers=CALLERS, **options) as server, connected(server) as channel:
        yield server, channel


async def answer(
    channel: grpc.aio.Channel, method: str, metadata: Any = (), messages: Iterable[bytes] | None = None
) -> tuple[str, str]:
    """Code and reason that a method answers with to these messages; None: to none, on a stream that stays open."""
    call: Any = channel.stream_stream(method)(messages, metadata=metadata)  # type: ignore[arg-type]  # grpc takes None
    try:
        with suppress(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        code = await call.code()
        return code.name, reason_in(await call.trailing_metadata())
    finally:
        call.cancel()


def reason_in(metadata: Any) -> str:
    status = next((value for key, value in metadata or () if key == "grpc-status-details-bin"), b"")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(status).details:
        detail.Unpack(info)
    return info.reason


async def test_whatever_is_served_is_denied_to_who_is_not_known(
    registered: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each method refuses each wrong credential before a message has come, and no log line repeats one."""
    caplog.set_level(logging.DEBUG, "apiflux")
    async with guarded(open_health=False) as (_, channel):
        assert registered >= {"/apiflux.v1.FluxService/Process", f"{HEALTH}Watch"}
        asked = [(method, name) for method in sorted(registered) for name in WRONG]
        answers = await asyncio.gather(*(answer(channel, method, WRONG[name][0]) for method, name in asked))
    assert dict(zip(asked, answers, strict=True)) == {
        (method, name): ("UNAUTHENTICATED", WRONG[name][1]) for method, name in asked
    }
    lines = [vars(record) for record in caplog.records]
    assert sum(line.get("code") == "UNAUTHENTICATED" for line in lines) == len(asked)
    assert "canary" not in repr(lines)


async def test_a_method_that_is_served_says_what_it_needs(registered: set[str]) -> None:
    """One that is added and forgotten would serve nobody: the table names exactly what is registered."""
    async with guarded():
        assert registered == set(NEEDS)


async def test_a_method_that_the_table_lacks_is_denied_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin too; who isn't known hears nothing of that."""
    method = "/apiflux.v1.FluxService/GetInfo"
    monkeypatch.delitem(NEEDS, method)
    async with guarded() as (_, channel):
        assert await answer(channel, method, auth(TOKENS[Role.ADMIN])) == DENIED
        assert await answer(channel, method) == REFUSED


@pytest.mark.parametrize("role", Role)
async def test_a_role_opens_what_it_may_and_nothing_else(registered: set[str], role: Role) -> None:
    """What it may not is denied before a message has come; what it may is reached, and says what is wrong."""
    ranks = list(Role)
    async with guarded(open_health=False) as (_, channel):
        for method in sorted(registered):
            if ranks.index(NEEDS[method]) > ranks.index(role):
                assert await answer(channel, method, auth(TOKENS[role])) == DENIED
            else:
                code, _ = await answer(channel, method, auth(TOKENS[role]), iter([GARBAGE]))
                assert code not in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"), method


async def test_a_method_that_nobody_serves_tells_nothing() -> None:
    """It is the same to everybody, known or not."""
    async with guarded() as (_, channel):
        for metadata in ((), auth("wrong"), auth(TOKENS[Role.ADMIN])):
            assert await answer(channel, UNKNOWN, metadata) == ("UNIMPLEMENTED", "")


async def test_health_is_open_unless_it_is_closed() -> None:
    """A probe has no token."""
    async with guarded() as (_, channel):
        assert await health_of(channel) == SERVING
    async with guarded(open_health=False) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await health_of(channel)


async def test_a_caller_with_its_token_works_and_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """Fair sharing and log know it by its name, whatever its address."""
    caplog.set_level(logging.INFO, "apiflux.rpc")
    async with guarded() as (server, _), Client(server.address, token=TOKENS[Role.CALLER]) as client:
        assert [result.ok async for result in client.repeat(3)] == [True] * 3
    assert [getattr(record, "caller", None) for record in caplog.records] == ["the-caller"]


async def test_a_server_without_callers_asks_nobody() -> None:
    """As it was: a token that comes all the same is not looked at."""
    async with serving() as server, Client(server.address, token="apiflux_canary-wrong") as client:
        assert [result.ok async for result in client.repeat(3)] == [True] * 3


class Certified:
    """A connection with a certificate, as far as the door asks for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peer: Peer | None = None
        monkeypatch.setattr("apiflux_grpc.server.door.peer_of", lambda context: self.peer)


async def test_a_certificate_says_who_it_is(monkeypatch: pytest.MonkeyPatch, registered: set[str]) -> None:
    """By any of its URIs or its whole subject; who is not known is refused before a message has come."""
    shown = Certified(monkeypatch)
    callers = [Caller("a", Access(Role.ADMIN), (), ("spiffe://a.org/a", "CN=a")), *CALLERS]
    async with serving(callers=callers, open_health=False) as server, connected(server) as channel:
        for peer, refused in (
            (None, "CREDENTIALS_MISSING"),
            (Peer("CN=b"), "CREDENTIALS_INVALID"),
            (Peer("CN=a,O=other", common_name="a"), "CREDENTIALS_INVALID"),
            (Peer("", uris=("spiffe://a.org/a/b",)), "CREDENTIALS_INVALID"),
            (Peer("CN=a"), ""),
            (Peer("CN=x", uris=("https://x", "spiffe://a.org/a")), ""),
        ):
            shown.peer = peer
            for method in sorted(registered):
                if refused:
                    assert await answer(channel, method) == ("UNAUTHENTICATED", refused)
                else:
                    code, _ = await answer(channel, method, messages=iter([GARBAGE]))
                    assert code not in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"), method


async def test_whose_certificate_is_known_works_and_is_logged_by_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All forms of methods are handled as ever; a token goes before the certificate."""
    caplog.set_level(logging.INFO, "apiflux.rpc")
    Certified(monkeypatch).peer = Peer("CN=a")
    async with serving(callers=[Caller("a", Access(), (), ("CN=a",)), *CALLERS]) as server:
        for token in (None, TOKENS[Role.CALLER]):
            async with Client(server.address, token=token) as client:
                assert [result.ok async for result in client.repeat(3)] == [True] * 3
                assert [result.ok async for result in client.process_stream([Call("/")])] == [True]
                assert (await client.info()).pools
        async with connected(server) as channel:
            reading = "/apiflux.v1.FluxService/GetInfo"
            assert await answer(channel, reading, messages=iter([])) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
            assert await answer(channel, "/grpc.health.v1.Health/List") == DENIED
    names = [getattr(record, "caller", None) for record in caplog.records]
    assert names == ["a"] * 3 + ["the-caller"] * 3 + ["a"]


async def test_a_large_request_is_refused_without_being_read() -> None:
    """Its first bytes are on their way when the refusal comes."""
    async with guarded() as (_, channel):
        for method in ("/apiflux.v1.FluxService/Process", "/apiflux.v1.FluxService/ProcessStream"):
            assert await answer(channel, method, messages=iter([bytes(8 << 20)])) == REFUSED
