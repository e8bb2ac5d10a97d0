"""What a call looks like on the wire: by table, and the same to the byte with both HTTP senders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import HeaderKey, Key, QueryKey
from apiflux_grpc.core.outcome import Answer
from apiflux_grpc.testing import Watch

KEY = Key("key-1", "sk-/+ 0123", ())
SENDERS: dict[str, Callable[[HttpSettings], HttpUpstream | AiohttpUpstream]] = {
    "own": HttpUpstream,
    "aiohttp": AiohttpUpstream,
}


class Listener:
    """Answers 200 to everything and keeps the bytes of each request."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                self.seen.append(head + await reader.readexactly(int(lengths[0]) if lengths else 0))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


async def request(sender: str, listener: Listener, call: Call, **settings: Any) -> bytes:
    """The bytes that arrive for this call."""
    upstream = SENDERS[sender](HttpSettings(**{"base_url": listener.url, **settings}))
    watch = Watch(call, KEY)
    upstream.begin(watch)
    outcome = await watch.over()
    await upstream.close()
    assert isinstance(outcome, Answer), outcome
    return listener.seen.pop()


CALLS = [
    Call(),
    Call(path="v1/no-slash"),
    Call(path="/a%20b/%C3%BC;p=1,2/@x:y/!$&'()*+="),
    Call(path="/q", query=(("a b", "c d"), ("e", "#?&=+/%"), ("ü", "日本"), ("empty", ""), ("%41", "%41"))),
    Call("HEAD", "/head"),
    Call("OPTIONS", "/options"),
    Call("DELETE", "/delete"),
    Call("DELETE", "/delete", body=b"why"),
    Call("GET", "/get", body=b"a body"),
    Call("POST", "/empty"),
    Call("PUT", "/put", body=b"x" * 3000),
    Call("PATCH", "/patch", body=b"\x00\xff"),
    Call("PURGE", "/own-method"),
    Call("POST", "/headers", headers=(("Content-Type", "a/b"), ("X-Y", "  padded"), ("ACCEPT", "c/d")), body=b"{}"),
    Call(headers=(("user-agent", "mine"), ("x-empty", ""))),
    Call(path="/again", query=(("tag", "b"), ("other", ""), ("tag", "a"), ("tag", "b"))),
    Call(headers=(("X-A", "2"), ("x-b", ""), ("x-a", "1"), ("X-A", "2"), ("Accept", "a/b"), ("accept", "c/d"))),
]
PLACES: list[dict[str, Any]] = [
    {},
    {"key_in": HeaderKey("Authorization", "Bearer ")},
    {"key_in": QueryKey("api key")},
]


@pytest.mark.parametrize("place", PLACES, ids=["header", "bearer", "query"])
@pytest.mark.parametrize("prefix", ["", "/", "/base/v1", "/base%20x/"])
async def test_both_senders_send_the_same(listener: Listener, place: dict[str, Any], prefix: str) -> None:
    """Line, headers, their order and spelling, and the body."""
    for call in CALLS:
        settings = {**place, "base_url": listener.url + prefix}
        own = await request("own", listener, call, **settings)
        assert own == await request("aiohttp", listener, call, **settings)


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize(
    ("call", "target"),
    [
        (Call(path="/a%20b"), "/base/a%20b"),
        (Call(path="/%2e%41%7e"), "/base/%2e%41%7e"),
        (Call(path="x"), "/base/x"),
        (Call(path="/"), "/base/"),
        (Call(path="/x", query=(("q", "a b"),)), "/base/x?q=a%20b"),
        (Call(path="/x", query=(("q", "#?&=+/"),)), "/base/x?q=%23%3F%26%3D%2B%2F"),
        (Call(path="/x", query=(("q", "100%"),)), "/base/x?q=100%25"),
        (Call(path="/x", query=(("q", "%20"),)), "/base/x?q=%2520"),
        (Call(path="/x", query=(("ä", "ö"),)), "/base/x?%C3%A4=%C3%B6"),
        (Call(path="/x", query=(("b", "1"), ("a", "2"))), "/base/x?b=1&a=2"),
        (Call(path="/x", query=(("-._~", "-._~"),)), "/base/x?-._~=-._~"),
        (Call(path="/x", query=(("b", "2"), ("a", ""), ("b", "1"), ("b", "2"))), "/base/x?b=2&a=&b=1&b=2"),
    ],
)
async def test_a_target_is_encoded_once(listener: Listener, sender: str, call: Call, target: str) -> None:
    """A path goes out as it came; a query's names and values are encoded, all but RFC 3986's unreserved characters."""
    sent = await request(sender, listener, call, base_url=listener.url + "/base")
    assert sent.split(b"\r\n")[0].decode() == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize("sender", SENDERS)
async def test_a_repeated_header_goes_out_as_often_as_it_came(listener: Listener, sender: str) -> None:
    """In the caller's order, in the spelling of the first."""
    call = Call(headers=(("X-A", "2"), ("Accept", "a/b"), ("x-b", ""), ("x-a", "1"), ("X-A", "2"), ("accept", "c/d")))
    lines = (await request(sender, listener, call)).decode().split("\r\n")
    assert lines[2:8] == ["X-A: 2", "Accept: a/b", "x-b: ", "X-A: 1", "X-A: 2", "Accept: c/d"]


@pytest.mark.parametrize("sender", SENDERS)
async def test_the_key_in_a_query_is_encoded(listener: Listener, sender: str) -> None:
    """And it is nowhere else."""
    sent = await request(sender, listener, Call(query=(("q", "1"),)), key_in=QueryKey("key"))
    assert sent.startswith(b"GET /?q=1&key=sk-%2F%2B%200123 HTTP/1.1\r\n")
    assert b"sk-" not in sent.split(b"\r\n", 1)[1]
