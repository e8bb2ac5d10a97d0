"""What goes out of a call: path, query, headers and body, the key in its place, and nothing that nobody asked for."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from apiflux_grpc.core.model import HeaderKey, QueryKey
from tests.adapters.sender.answers.row import S
from tests.adapters.sender.stage import CANARY, World


def test_the_request(both: World) -> None:
    """The path goes out as the caller encoded it, the query encoded once, the key after its prefix."""

    async def go() -> None:
        async with both.stage(key_in=HeaderKey("Authorization", "Bearer "), user_agent="apiflux/1") as stage:
            query = (("q", "a b&c=%2F/\u00e9"), ("", ""))
            await stage.answer("/a%2Fb%20c/%C3%A9", "POST", query=query, headers=(("X-One", "1"),), body=b"\x00\xff")
            (request,) = stage.server.requests
            line, *fields = request.head.decode().rstrip().split("\r\n")
            assert line == "POST /a%2Fb%20c/%C3%A9?q=a%20b%26c%3D%252F%2F%C3%A9&=&n=000000 HTTP/1.1"
            assert request.body == b"\x00\xff"
            assert {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)} == {
                "host": stage.server.url.removeprefix("http://"),
                "x-one": "1",
                "user-agent": "apiflux/1",
                "accept": "*/*",
                "accept-encoding": "identity",
                "authorization": f"Bearer {CANARY}",
                "content-length": "2",
            }

    both.run(go())


@pytest.mark.parametrize(("path", "target"), [("", "/?"), ("x", "/x?"), ("/x/", "/x/?")])
def test_paths(both: World, path: str, target: str) -> None:
    """A missing slash is added."""

    async def go() -> None:
        async with both.stage() as stage:
            await stage.answer(path)
            assert stage.server.requests[0].target.startswith(target)

    both.run(go())


def test_the_callers_headers(both: World) -> None:
    """A call may name its own User-Agent and type; the key and Accept-Encoding are ours, however they are spelled."""
    own = {"user-agent": "mine", "content-type": "a/b", "accept-encoding": "gzip", "x-api-key": "theirs"}

    async def go() -> None:
        async with both.stage() as stage:
            await stage.answer("/", "POST", headers=tuple(own.items()), body=b"x")
            sent = stage.server.requests[0].head.lower()
            assert b"user-agent: mine\r\n" in sent
            assert b"content-type: a/b\r\n" in sent
            assert sent.count(b"accept-encoding:") == 1
            assert b"accept-encoding: identity\r\n" in sent
            assert b"theirs" not in sent

    both.run(go())


def test_the_key_in_the_query(both: World) -> None:
    """The key goes into its query parameter, percent-encoded, and not into a header."""

    async def go() -> None:
        async with both.stage(key_in=QueryKey("api key")) as stage:
            await stage.answer(query=(("a", "1"),))
            line, headers = stage.server.requests[0].head.decode().split("\r\n", 1)
            assert line == f"GET /?a=1&n=000000&api%20key={quote(CANARY, safe='')} HTTP/1.1"
            assert "x-api-key" not in headers.lower()

    both.run(go())


@pytest.mark.parametrize("size", [100_000, 3 << 20])
def test_large_bodies(both: World, size: int) -> None:
    """A large body arrives whole, and without a warning."""
    body = b"abcdefgh" * (size // 8)

    async def go() -> None:
        async with both.stage() as stage:
            await stage.answer("/", "POST", body=body)
            assert stage.server.requests[0].body == body

    both.run(go())


def test_no_cookies(both: World) -> None:
    """A cookie that was set isn't sent back."""

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/set", S + b"Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
            await stage.answer("/set")
            await stage.answer("/next")
            assert b"cookie" not in stage.server.requests[1].head.lower()

    both.run(go())


def test_no_redirects(both: World) -> None:
    """A redirect is an answer like any other."""

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/moved", b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
            answer = await stage.answer("/moved")
            assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
            assert len(stage.server.requests) == 1

    both.run(go())


def test_no_proxy_from_the_environment(both: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is not used."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def go() -> None:
        async with both.stage() as stage:
            await stage.follow()

    both.run(go())
