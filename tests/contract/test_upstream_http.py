"""What an HTTP sender must do right, over both of them, against a server on a raw socket that does what a test says."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import MILLISECOND, SECOND, HeaderKey, Key, QueryKey
from apiflux_grpc.core.outcome import (
    CANCELLED,
    NO_CONNECTION,
    OUT_OF_TIME,
    Answer,
    Cause,
    NotSent,
    Outcome,
    Reason,
    Unknown,
)
from apiflux_grpc.testing import Watch

CANARY = "sk-canary/7f3a+9b"
KEY = Key("team-a", CANARY, ())

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


class Site:
    """A server that writes `replies[path]`, piece by piece, and then does `then[path]`: "keep", "close", "reset" or
    "hang".

    `requests` are the heads it got, with their bodies; `open` is how many connections are.
    """

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.replies: dict[str, tuple[bytes, ...]] = {}
        self.then: dict[str, str] = {}
        self.open = 0
        self.connections = 0
        self.silent = False  # accept, and read nothing
        self.url = ""
        self.writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=500)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await until(lambda: not self.open)

    def on(self, path: str, reply: bytes | tuple[bytes, ...], then: str = "keep") -> None:
        self.replies[path] = (reply,) if isinstance(reply, bytes) else reply
        self.then[path] = then

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.connections += 1
        self.writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while not self.silent and await self._one(reader, writer):
                    pass
                await reader.read()
        finally:
            writer.close()
            self.open -= 1
            self.writers.discard(writer)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), b"0")
        at = len(self.requests)
        self.requests.append(head)
        self.requests[at] = head + await reader.readexactly(int(length))
        path = head.split(b" ")[1].split(b"?")[0].decode()
        for piece in self.replies.get(path, (OK,)):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005 if piece else 0)
        then = self.then.get(path, "keep")
        if then == "reset":
            reset(writer)
        elif then == "close":
            writer.close()
        return then == "keep"


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.start()
    yield site
    await site.stop()


Sender = HttpUpstream | AiohttpUpstream
Make = Callable[..., Sender]
SENDERS: dict[str, Callable[[HttpSettings], Sender]] = {"own": HttpUpstream, "aiohttp": AiohttpUpstream}
only_aiohttp = pytest.mark.parametrize("make", ["aiohttp"], indirect=True)


@pytest.fixture(params=SENDERS)
async def make(request: pytest.FixtureRequest, site: Site) -> AsyncIterator[Make]:
    """Makes upstreams, by default towards the site, and closes them."""
    made: list[Sender] = []

    def make(**settings: Any) -> Sender:
        made.append(SENDERS[request.param](HttpSettings(**{"base_url": site.url, **settings})))
        return made[-1]

    yield make
    for upstream in made:
        await upstream.close()


@pytest.fixture
def upstream(make: Make) -> Sender:
    return make()


async def attempt(upstream: Sender, call: Call, timeout: int = 10 * SECOND, key: Key = KEY) -> Outcome:
    """One attempt to its end, with what holds for each of them."""
    watch = Watch(call, key, timeout)
    upstream.begin(watch)
    outcome = await watch.over()
    assert len(watch.outcomes) == 1
    assert bool(watch.sent_at) == (not isinstance(outcome, NotSent))
    if isinstance(outcome, Answer):
        assert watch.sent_at[0] <= outcome.answered_at
    return outcome


async def answered(upstream: Sender, call: Call, **more: Any) -> Answer:
    outcome = await attempt(upstream, call, **more)
    assert isinstance(outcome, Answer), outcome
    return outcome


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# -- sent once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"])
async def test_never_sent_again(site: Site, upstream: Sender, method: str, warm: bool, end: str) -> None:
    """A connection that is cut behind the request makes one arrival and Unknown, whatever the method."""
    site.on("/cut", b"", end)
    if warm:
        await answered(upstream, Call(path="/warm"))
    outcome = await attempt(upstream, Call(method, "/cut", body=b"x" if method in {"PUT", "POST"} else b""))
    assert isinstance(outcome, Unknown)
    assert outcome.reason is Reason.UNKNOWN
    await asyncio.sleep(0.02)
    assert sum(b"/cut" in request for request in site.requests) == 1
    assert site.connections == 1


async def test_a_stray_answer(site: Site, upstream: Sender) -> None:
    """What comes unasked on an idle connection is nobody's answer: the next call takes another connection."""
    await answered(upstream, Call())
    (writer,) = site.writers
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
    await asyncio.sleep(0.02)
    assert (await answered(upstream, Call())).body == b"ok"
    assert site.connections == 2


async def test_bytes_behind_the_answer(site: Site, upstream: Sender) -> None:
    """A second answer right behind the first isn't kept for the next call."""
    site.on("/two", OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
    for _ in range(3):
        assert (await answered(upstream, Call(path="/two"))).body == b"ok"


async def test_connections_are_kept(site: Site, upstream: Sender) -> None:
    """Calls one after the other share a connection; one whose answer wasn't read whole is closed."""
    for _ in range(5):
        await answered(upstream, Call())
    assert site.connections == 1
    await upstream.close()
    await asyncio.sleep(0.02)
    assert site.open == 0


async def test_no_queue(site: Site, upstream: Sender) -> None:
    """As many calls go out as are begun: nothing waits for a connection."""
    site.on("/hang", b"", "hang")
    watches = [Watch(Call(path="/hang"), KEY) for _ in range(150)]
    for watch in watches:
        upstream.begin(watch)
    await until(lambda: len(site.requests) == 150)
    assert all(watch.sent_at for watch in watches)


async def test_sent_is_told_at_the_write(site: Site, make: Make) -> None:
    """While a connection is being made, a call isn't sent, and cancelling it then is NotSent."""
    site.silent = True
    upstream = make(base_url=site.url.replace("http:", "https:"))
    watch = Watch(Call(), KEY)
    upstream.begin(watch)
    await until(lambda: site.connections)
    await asyncio.sleep(0.01)
    assert watch.sent_at == []
    upstream.cancel(watch)
    assert await watch.over() == CANCELLED


async def test_a_cancelled_task_never_began(site: Site, upstream: Sender) -> None:
    """Cancelled before its first step, an attempt is NotSent, and nothing arrives."""
    watch = Watch(Call(), KEY)
    upstream.begin(watch)
    upstream.cancel(watch)
    assert await watch.over() == CANCELLED
    await asyncio.sleep(0.01)
    assert site.requests == []


async def test_cancel_with_a_body_at_every_pass(site: Site, upstream: Sender) -> None:
    """NotSent means that nothing arrived, and anything else that it did, whenever the cancel comes."""
    await answered(upstream, Call(path="/warm"))
    for passes in range(30):
        site.requests.clear()
        watch = Watch(Call("POST", "/x", body=b"body"), KEY)
        upstream.begin(watch)
        for _ in range(passes):
            await asyncio.sleep(0)
        upstream.cancel(watch)
        outcome = await watch.over()
        await asyncio.sleep(0.005)
        assert len(site.requests) == (0 if isinstance(outcome, NotSent) else 1)


async def test_too_late(site: Site, upstream: Sender) -> None:
    """An attempt whose time is up isn't sent, not even on a connection that waits for it."""
    await answered(upstream, Call())
    watch = Watch(Call(), KEY, SECOND, taken_at=0)
    upstream.begin(watch)
    assert await watch.over() == OUT_OF_TIME
    await asyncio.sleep(0.01)
    assert len(site.requests) == 1


# -- what goes out ---------------------------------------------------------------------------------


async def test_the_request(site: Site, make: Make) -> None:
    """Path as the caller encoded it, query encoded once, the key behind its prefix, the body as it is."""
    upstream = make(base_url=f"{site.url}/api/", key_in=HeaderKey("Authorization", "Bearer "), user_agent="apiflux/1")
    call = Call(
        "POST", "/a%2Fb%20c/é".replace("é", "%C3%A9"), {"q": "a b&c=%2F/é", "": ""}, {"X-One": "1"}, b"\x00\xff"
    )
    await answered(upstream, call)
    head, body = site.requests[0].split(b"\r\n\r\n", 1)
    line, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    assert line == "POST /api/a%2Fb%20c/%C3%A9?q=a%20b%26c%3D%252F%2F%C3%A9&= HTTP/1.1"
    assert body == b"\x00\xff"
    assert headers == {
        "host": site.url.removeprefix("http://"),
        "x-one": "1",
        "user-agent": "apiflux/1",
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": f"Bearer {CANARY}",
        "content-length": "2",
    }


@pytest.mark.parametrize(("path", "line"), [("", b"GET / "), ("x", b"GET /x "), ("/x/", b"GET /x/ ")])
async def test_paths(site: Site, upstream: Sender, path: str, line: bytes) -> None:
    """A missing slash is added."""
    await answered(upstream, Call(path=path))
    assert site.requests[0].startswith(line)


async def test_the_callers_headers(site: Site, upstream: Sender) -> None:
    """A call may name its own User-Agent and type; the key and Accept-Encoding are ours, however they are spelled."""
    headers = {"user-agent": "mine", "content-type": "a/b", "accept-encoding": "gzip", "x-api-key": "theirs"}
    await answered(upstream, Call("POST", headers=headers, body=b"x"))
    sent = site.requests[0].lower()
    assert b"user-agent: mine\r\n" in sent
    assert b"content-type: a/b\r\n" in sent
    assert sent.count(b"accept-encoding:") == 1
    assert b"accept-encoding: identity\r\n" in sent
    assert b"theirs" not in sent


async def test_key_in_the_query(site: Site, make: Make) -> None:
    """The key goes into its query parameter, percent-encoded, and not into a header."""
    upstream = make(key_in=QueryKey("api key"))
    await answered(upstream, Call(query={"a": "1"}))
    assert site.requests[0].startswith(f"GET /?a=1&api%20key={quote(CANARY, safe='')} HTTP/1.1\r\n".encode())
    assert b"x-api-key" not in site.requests[0].lower()


@pytest.mark.parametrize("size", [100_000, 3 << 20])
async def test_large_bodies(site: Site, upstream: Sender, size: int) -> None:
    """A large body arrives whole, and without a warning."""
    body = b"abcdefgh" * (size // 8)
    await answered(upstream, Call("POST", body=body))
    assert site.requests[0].endswith(b"\r\n\r\n" + body)


async def test_no_cookies(site: Site, upstream: Sender) -> None:
    """A cookie that was set isn't sent back."""
    site.on("/set", b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    for path in ("/set", "/next"):
        await answered(upstream, Call(path=path))
    assert b"cookie" not in site.requests[1].lower()


async def test_no_proxy_from_the_environment(site: Site, upstream: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy named by the environment is not used."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert (await answered(upstream, Call())).status == 200


@only_aiohttp
async def test_the_egress_proxy(site: Site, make: Make) -> None:
    """With an egress proxy, calls go there, and nowhere else."""
    upstream = make(base_url="http://upstream.invalid/api", egress_proxy=site.url)
    await answered(upstream, Call(path="/x"))
    assert site.requests[0].startswith(b"GET http://upstream.invalid/api/x HTTP/1.1\r\n")


@only_aiohttp
async def test_the_egress_proxy_fails(site: Site, make: Make) -> None:
    """A proxy that can't be reached, or that refuses the tunnel, means not sent."""
    gone = make(egress_proxy=f"http://127.0.0.1:{closed_port()}")
    assert await attempt(gone, Call()) == NotSent(
        Cause.UNREACHABLE, "the egress proxy can't be reached: connection refused"
    )
    site.on("upstream.invalid:443", b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "close")
    refused = make(base_url="https://upstream.invalid", egress_proxy=site.url)
    assert await attempt(refused, Call()) == NotSent(Cause.UNREACHABLE, "the egress proxy refused")
    assert CANARY.encode() not in b"".join(site.requests)


async def test_no_redirects(site: Site, upstream: Sender) -> None:
    """A redirect is an answer like any other."""
    site.on("/moved", b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
    answer = await answered(upstream, Call(path="/moved"))
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert len(site.requests) == 1


# -- not sent --------------------------------------------------------------------------------------


async def test_refused(make: Make) -> None:
    """A refused connection is NotSent."""
    upstream = make(base_url=f"http://127.0.0.1:{closed_port()}")
    assert await attempt(upstream, Call()) == NotSent(Cause.UNREACHABLE, "can't connect: connection refused")


async def test_unknown_host(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that isn't found is NotSent."""

    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    assert await attempt(make(base_url="http://nowhere.invalid"), Call()) == NotSent(
        Cause.UNREACHABLE, "the host name was not found"
    )


async def test_no_tls(site: Site, make: Make) -> None:
    """A failed handshake is NotSent."""
    upstream = make(base_url=site.url.replace("http:", "https:"))
    watch = Watch(Call(), KEY)
    upstream.begin(watch)
    await until(lambda: site.writers)
    (writer,) = site.writers
    writer.write(b"this is not TLS\r\n")
    assert await watch.over() == NotSent(Cause.UNREACHABLE, "the TLS handshake failed")
    assert watch.sent_at == []


async def test_connecting_takes_too_long(site: Site, make: Make) -> None:
    """The time to connect is bounded, TLS included; past it, or past the attempt's own, it is NotSent."""
    site.silent = True
    tls = site.url.replace("http:", "https:")
    hasty = make(base_url=tls, connect_timeout=20 * MILLISECOND)
    assert await attempt(hasty, Call()) == NotSent(Cause.UNREACHABLE, "connecting took too long")
    assert await attempt(make(base_url=tls), Call(), timeout=20 * MILLISECOND) == NO_CONNECTION


# -- what comes back -------------------------------------------------------------------------------


async def test_headers(site: Site, upstream: Sender) -> None:
    """Names are in lower case, equal ones joined, and every value can be encoded, whatever bytes came."""
    site.on("/h", b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nX-B: caf\xe9 \xc3\xa9\r\nContent-Length: 0\r\n\r\n")
    headers = (await answered(upstream, Call(path="/h"))).headers
    assert headers["x-a"] == "1, 2"
    assert headers["x-b"] == "caf\N{REPLACEMENT CHARACTER} é"


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 300_000])
async def test_the_body_cap(site: Site, make: Make, size: int) -> None:
    """A body above the cap is truncated to it, and its connection closed; one at the cap is whole."""
    site.on("/b", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    upstream = make(body_cap=1000)
    answer = await answered(upstream, Call(path="/b"))
    assert (len(answer.body), answer.truncated, answer.fault) == (min(size, 1000), size > 1000, None)
    await asyncio.sleep(0.02)
    if size != 1001:  # read to its end by one of them, not by the other
        assert site.open == (1 if size <= 1000 else 0)


async def test_an_endless_body(site: Site, make: Make) -> None:
    """A body without an end costs no more than the cap."""
    site.on(
        "/b", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n%s\r\n" % (b"x" * 1024) * 100, "hang"
    )
    answer = await answered(make(body_cap=5000), Call(path="/b"))
    assert (len(answer.body), answer.truncated) == (5000, True)


async def test_a_bomb(site: Site, make: Make) -> None:
    """What comes compressed though nobody asked is decoded, the cap counting what comes out of it."""
    bomb = gzip.compress(bytes(20 << 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    site.on("/bomb", head % len(bomb) + bomb)
    small = gzip.compress(b"hello")
    site.on("/small", head % len(small) + small)
    upstream = make(body_cap=100_000)
    answer = await answered(upstream, Call(path="/bomb"))
    assert (answer.body, answer.truncated) == (bytes(100_000), True)
    answer = await answered(upstream, Call(path="/small"))
    assert (answer.body, answer.truncated) == (b"hello", False)
    assert not {"content-encoding", "content-length"} & set(answer.headers)


BEGUN = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"


@pytest.mark.parametrize(
    ("reply", "then"),
    [
        pytest.param(BEGUN + b"Content-Length: 10\r\n\r\nhalf", "close", id="short, closed"),
        pytest.param(BEGUN + b"Content-Length: 10\r\n\r\nhalf", "reset", id="short, reset"),
        pytest.param(BEGUN + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "close", id="chunks, closed"),
        pytest.param((BEGUN + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf", b"zz"), "hang", id="chunks, garbage"),
        pytest.param(BEGUN + b"\r\nhalf", "reset", id="no length, reset"),
        pytest.param(BEGUN + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf", "keep", id="not gzip"),
        pytest.param(BEGUN + b"Transfer-Encoding: gzip\r\n\r\nhalf", "close", id="unknown coding"),
        pytest.param(BEGUN + b"Transfer-Encoding: gzip, chunked\r\n\r\n4\r\nhalf\r\n", "hang", id="coding and chunks"),
        pytest.param(b"HTTP/1.1 101 Upgrade\r\nUpgrade: x\r\nConnection: upgrade\r\nX-A: 1\r\n\r\n", "hang", id="101"),
    ],
)
async def test_a_cut_body(site: Site, upstream: Sender, reply: bytes | tuple[bytes, ...], then: str) -> None:
    """An answer whose body is cut or unreadable is an Answer that says so, and its connection isn't used again."""
    site.on("/cut", reply, then)
    answer = await answered(upstream, Call(path="/cut"))
    assert answer.fault is Reason.BODY_CUT
    assert answer.headers["x-a"] == "1"
    await answered(upstream, Call())
    if then != "keep":  # what isn't gzip was framed well all the same
        assert site.connections == 2


async def test_a_body_that_ends_with_its_connection(site: Site, upstream: Sender) -> None:
    """A body without a length is whole when the connection is closed in order."""
    site.on("/b", b"HTTP/1.1 200 OK\r\n\r\nwhole", "close")
    answer = await answered(upstream, Call(path="/b"))
    assert (answer.body, answer.fault) == (b"whole", None)


@pytest.mark.parametrize(
    "reply", [b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 90_000]
)
async def test_no_valid_head(site: Site, upstream: Sender, reply: bytes) -> None:
    """Without a valid head there was no answer: Unknown."""
    site.on("/x", reply, "hang")
    outcome = await attempt(upstream, Call(path="/x"))
    assert outcome in (Unknown("the answer is not HTTP"), Unknown("the answer's head is too large"))


async def test_a_slow_body(site: Site, upstream: Sender) -> None:
    """A body that isn't whole in time is an Answer with that fault, and with what had come."""
    site.on("/slow", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "hang")
    answer = await answered(upstream, Call(path="/slow"), timeout=50 * MILLISECOND)
    assert (answer.status, answer.body, answer.fault) == (200, b"half", Reason.TIMEOUT)


async def test_cancelled_in_the_body(site: Site, upstream: Sender) -> None:
    """A cancel in the middle of a body is an answer that was cut, as the port has it, and closes the connection."""
    site.on("/slow", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "hang")
    watch = Watch(Call(path="/slow"), KEY)
    upstream.begin(watch)
    await until(lambda: site.requests)
    await asyncio.sleep(0.01)
    upstream.cancel(watch)
    outcome = await watch.over()
    assert isinstance(outcome, Answer)
    assert (outcome.body, outcome.fault) == (b"half", Reason.BODY_CUT)
    await asyncio.sleep(0.02)
    assert site.open == 0


async def test_reset_while_uploading(site: Site, upstream: Sender, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is cut during the upload makes the call Unknown, and no noise."""
    site.silent = True
    watch = Watch(Call("POST", body=bytes(30 << 20)), KEY)
    upstream.begin(watch)
    await until(lambda: watch.sent_at)
    (writer,) = site.writers
    reset(writer)
    outcome = await watch.over()
    assert isinstance(outcome, Unknown)
    gc.collect()
    await asyncio.sleep(0)
    assert caplog.text == ""


# -- secrets ---------------------------------------------------------------------------------------


async def test_echoed_keys_are_masked(site: Site, upstream: Sender) -> None:
    """A key that the upstream sends back, in whatever common form, doesn't reach the answer."""
    basic = base64.b64encode(b"user:" + CANARY.encode()).decode()
    text = f"{CANARY} {quote(CANARY, safe='')} {basic}"
    site.on("/echo", f"HTTP/1.1 200 OK\r\nX-Echo: {text}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
    answer = await answered(upstream, Call(path="/echo"))
    for said in (answer.headers["x-echo"], answer.body.decode()):
        first, second, third = said.split()
        assert (first, second) == ("***", "***")
        assert "***" in third
    assert not answer.truncated


async def test_the_cap_cuts_no_key_in_two(site: Site, make: Make) -> None:
    """A key that lies across the body cap leaves no part of itself."""
    body = b"x" * 95 + CANARY.encode() * 20
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    site.on("/echo", (head, body[:103], body[103:]))
    answer = await answered(make(body_cap=100), Call(path="/echo"))
    assert answer.truncated
    assert answer.body == b"x" * 95


async def test_masking_can_be_switched_off(site: Site, make: Make) -> None:
    """A pool may ask for its answers as they are."""
    site.on("/echo", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(CANARY), CANARY.encode()))
    answer = await answered(make(mask_secrets=False), Call(path="/echo"))
    assert answer.body.decode() == CANARY


@only_aiohttp
async def test_no_text_of_an_exception_gets_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody thought of, with the URL and so the key in its text, shows as its class alone."""

    async def fail(_: object, request: aiohttp.ClientRequest, **__: object) -> None:
        assert quote(CANARY, safe="") in str(request.url)
        raise RuntimeError(f"could not do {request.url}")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", fail)
    assert await attempt(make(key_in=QueryKey("key")), Call()) == NotSent(Cause.UNREACHABLE, "RuntimeError")


async def test_the_canary(site: Site, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Through every kind of failure, with everything logged, the key shows in no outcome, repr or log."""
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0
    caplog.set_level(logging.DEBUG)
    plain = {"key_in": QueryKey("key")}
    upstream = make(**plain)
    gone = make(base_url=f"http://127.0.0.1:{closed_port()}", **plain)
    tls = make(base_url=site.url.replace("http:", "https:"), connect_timeout=30 * MILLISECOND, **plain)
    cookie = f"HTTP/1.1 200 OK\r\nSet-Cookie: {CANARY}=;=\r\nLocation: http://[{CANARY}\r\nContent-Length: 0\r\n\r\n"
    site.on("/cut", b"", "close")
    site.on("/reset", b"", "reset")
    site.on("/garbage", f"{CANARY} nonsense\r\n\r\n".encode(), "hang")
    site.on("/short", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + CANARY.encode(), "close")
    site.on("/cookie", cookie.encode())
    site.on("/moved", cookie.replace("200", "302").encode())
    site.on("/hang", b"", "hang")
    outcomes = [
        await attempt(upstream, Call(method, path, body=body), timeout=50 * MILLISECOND)
        for path in ("/", "/cut", "/reset", "/garbage", "/short", "/cookie", "/moved", "/hang")
        for method, body in (("GET", b""), ("POST", b"x"), ("bad method", b""))
    ]
    outcomes += [await attempt(other, Call()) for other in (gone, tls)]
    watch = Watch(Call(path="/hang"), KEY)
    upstream.begin(watch)
    reprs = [repr(watch.handle), repr(upstream), repr(watch.permit)]
    await upstream.close()
    gc.collect()
    await asyncio.sleep(0)
    said = "\n".join([*map(repr, outcomes + watch.outcomes), *reprs, caplog.text])
    assert len(caplog.records) > 10, "nothing was logged, so this proves nothing"
    for form in (CANARY, quote(CANARY, safe=""), quote(CANARY)):
        assert form not in said
        assert form.lower() not in said.lower()


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"base_url": "ftp://host"}, "http"),
        ({"base_url": "http://"}, "host"),
        ({"base_url": "http://user:pass@host"}, "credentials"),
        ({"base_url": "http://host/?a=b"}, "query"),
    ],
)
def test_settings(settings: dict[str, Any], fault: str) -> None:
    """What can't be used is refused when it is configured, not at the first call."""
    with pytest.raises(ValueError, match=fault):
        HttpSettings(**settings)


def test_an_unreadable_ca_file() -> None:
    """A CA file that isn't there is told at the start."""
    with pytest.raises(OSError, match="No such file"):
        AiohttpUpstream(HttpSettings(base_url="https://host", ca_file="/nonexistent/ca.pem"))
