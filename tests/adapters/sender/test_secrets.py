"""The key shows nowhere: not in an answer, an outcome, a repr or a log.

Rule: an exception's own text is never shown, since it may hold a URL, and a URL may hold the key.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
from urllib.parse import quote

import aiohttp as aiohttp_
import pytest

from apiflux_grpc.core.model import QueryKey
from apiflux_grpc.core.outcome import Cause, NotSent, Outcome
from apiflux_grpc.core.units import SECOND
from tests.adapters.sender.answers.row import S
from tests.adapters.sender.ports import closed_port
from tests.adapters.sender.script import CLOSE, HANG, RST, TAKEN
from tests.adapters.sender.stage import CANARY, Stage, Told, World
from tests.adapters.sender.waiting import until


def with_body(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers).encode()
    return S + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_echoed_keys_are_masked(both: World) -> None:
    """A key that the upstream sends back, in whatever common form, doesn't reach the answer."""
    basic = base64.b64encode(b"user:" + CANARY.encode()).decode()
    text = f"{CANARY} {quote(CANARY, safe='')} {basic}"

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/echo", with_body(text.encode(), f"X-Echo: {text}"))
            answer = await stage.answer("/echo")
            for said in (answer.headers["x-echo"], answer.body.decode()):
                first, second, third = said.split()
                assert (first, second) == ("***", "***")
                assert "***" in third
            assert not answer.truncated

    both.run(go())


def test_a_key_in_a_repeated_header_is_masked(both: World) -> None:
    """In each of its values; the others and their order stay."""

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/echo", with_body(b"", "X-A: 1", f"X-Echo: {CANARY}", "X-A: 2", f"X-Echo: a {CANARY} b"))
            answer = await stage.answer("/echo")
            said = [("x-a", "1"), ("x-echo", "***"), ("x-a", "2"), ("x-echo", "a *** b"), ("content-length", "0")]
            assert list(answer.headers.pairs) == said

    both.run(go())


def test_the_cap_cuts_no_key_in_two(both: World) -> None:
    """A key that lies across the body cap leaves no part of itself."""
    answer = with_body(b"x" * 95 + CANARY.encode() * 20)
    body_at = answer.index(b"xxx")

    async def go() -> None:
        async with both.stage(body_cap=100) as stage:
            stage.server.on("/echo", answer[: body_at + 103], TAKEN, answer[body_at + 103 :])
            got = await stage.answer("/echo")
            assert got.truncated
            assert got.body == b"x" * 95

    both.run(go())


def test_masking_can_be_switched_off(both: World) -> None:
    """A pool may ask for its answers as they are."""

    async def go() -> None:
        async with both.stage(mask_secrets=False) as stage:
            stage.server.on("/echo", with_body(CANARY.encode()))
            assert (await stage.answer("/echo")).body.decode() == CANARY

    both.run(go())


def test_no_text_of_an_exception_gets_out(aiohttp: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody thought of, with the URL and so the key in its text, shows as its class alone."""

    async def fail(_: object, request: aiohttp_.ClientRequest, **__: object) -> None:
        assert quote(CANARY, safe="") in str(request.url)
        raise RuntimeError(f"could not do {request.url}")

    monkeypatch.setattr(aiohttp_.TCPConnector, "connect", fail)

    async def go() -> None:
        outcome = await aiohttp.ask("http://127.0.0.1:1", key_in=QueryKey("key"))
        assert outcome == NotSent(Cause.UNREACHABLE, "RuntimeError")

    aiohttp.run(go())


async def failures(world: World, stage: Stage) -> list[Outcome]:
    """Every kind of failure, and what became of it."""
    cookie = f"Set-Cookie: {CANARY}=;=", f"Location: http://[{CANARY}"
    stage.server.on("/cut", CLOSE)
    stage.server.on("/reset", RST)
    stage.server.on("/garbage", f"{CANARY} nonsense\r\n\r\n".encode(), HANG)
    stage.server.on("/short", S + b"Content-Length: 100\r\n\r\n" + CANARY.encode(), CLOSE)
    stage.server.on("/cookie", with_body(b"", *cookie))
    stage.server.on("/moved", with_body(b"", *cookie).replace(b"200", b"302"))
    paths = ("/", "/cut", "/reset", "/garbage", "/short", "/cookie", "/moved")
    calls = [(path, *how) for path in paths for how in (("GET", b""), ("POST", b"x"), ("bad method", b""))]
    outcomes = [await stage.call(path, method, body=body) for path, method, body in calls]
    stage.server.on("/hang", HANG)
    outcomes.append(await stage.late(await hanging(stage)))
    key_in = QueryKey("key")
    outcomes.append(await world.ask(f"http://127.0.0.1:{closed_port()}", key_in=key_in))
    async with world.upstream(stage.server.url.replace("http:", "https:"), key_in=key_in) as upstream:
        before = len(stage.server.peers)
        told = stage.watch(upstream)
        await until(lambda: len(stage.server.peers) > before)
        world.clock.advance(11 * SECOND)
        outcomes.append(await told.over())
    return outcomes


async def hanging(stage: Stage) -> Told:
    before = stage.server.by_path()["/hang"]
    told = stage.begin("/hang")
    await until(lambda: stage.server.by_path()["/hang"] > before)
    return told


def test_the_canary(both: World, caplog: pytest.LogCaptureFixture) -> None:
    """Through every kind of failure, with everything logged, the key shows in no outcome, repr or log."""
    caplog.set_level(logging.DEBUG)

    async def go() -> str:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0
        async with both.stage(key_in=QueryKey("key")) as stage:
            outcomes = await failures(both, stage)
            told = await hanging(stage)
            reprs = [repr(told.handle), repr(stage.upstream), repr(told.permit)]
            await stage.upstream.close()
            gc.collect()
            return "\n".join([*map(repr, [*outcomes, *told.outcomes]), *reprs])

    said = []

    async def keep() -> None:
        said.append(await go())

    both.run(keep())
    said.append(caplog.text)
    assert len(caplog.records) > 10, "nothing was logged, so this proves nothing"
    for form in (CANARY, quote(CANARY, safe=""), quote(CANARY)):
        assert form.lower() not in "\n".join(said).lower()
