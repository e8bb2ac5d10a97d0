"""A server that does what a test says, byte by byte, and the rules that hold for every attempt against it.

Rule: nothing stands between a script and the kernel. Sockets have no transport, so that a connection ends by FIN or
by RST as the script says; TLS is spoken over memory BIOs, so that it can also end without its goodbye. Client and
server share a loop: what one has written, the other takes in within a few passes.

Everything here lives on one running loop.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import uvloop

from apiflux_grpc.adapters.http_settings import HttpSettings
from apiflux_grpc.adapters.upstream_aiohttp import AiohttpUpstream
from apiflux_grpc.adapters.upstream_http import HttpUpstream
from apiflux_grpc.core.call import Call
from apiflux_grpc.core.model import SECOND, Key
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome, Unknown
from apiflux_grpc.engine.ports import Upstream
from apiflux_grpc.testing import Watch

KEY: Final = Key("key-1", "sk-hostile-0123456789", ())
TOKEN: Final = re.compile(rb"n=(\d{6})")
ENOUGH: Final = 10.0  # seconds; only a fault waits so long


class Do(Enum):
    """What a script does besides sending bytes and waiting."""

    ECHO = "answer 200 with the call's number"
    WHOLE = "wait until the request has come whole"
    PASSES = "let the client take in what was sent"
    GATE = "wait until the test opens the gate"
    HANG = "do nothing until the client ends the connection"
    DEAF = "read nothing any more"
    FIN = "end the sending side, in TLS with its goodbye"
    CUT = "end the sending side, in TLS without its goodbye"
    CLOSE = "close the socket in order"
    RST = "end the connection by RST"


ECHO, WHOLE, PASSES, GATE, HANG, DEAF = Do.ECHO, Do.WHOLE, Do.PASSES, Do.GATE, Do.HANG, Do.DEAF
FIN, CUT, CLOSE, RST = Do.FIN, Do.CUT, Do.CLOSE, Do.RST

Step = bytes | float | Do  # bytes are sent; a number waits for so many seconds


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits for what has no event; fails after ENOUGH."""
    late = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < late, f"never came true: {what or condition}"
        await asyncio.sleep(0.001)


async def passes(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- the server ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Request:
    """A request of which at least the head has come; `at` is the instant of its first byte."""

    at: int
    head: bytes
    length: int
    body: bytearray = field(default_factory=bytearray)

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def path(self) -> str:
        return self.target.split("?", 1)[0]

    @property
    def number(self) -> str:
        found = TOKEN.search(self.head)
        return found[1].decode() if found else ""

    @property
    def whole(self) -> bool:
        return len(self.body) >= self.length


class Peer:
    """The server's end of one connection.

    `chunks` has what came, each with its instant (ns), in TLS decrypted; `requests` what that amounts to; `rest` the
    bytes of a request whose head isn't whole.
    """

    def __init__(self, server: Hostile, sock: socket.socket) -> None:
        self.chunks: list[tuple[int, bytes]] = []
        self.requests: list[Request] = []
        self.rest = bytearray()
        self.open = True
        self.resting = False  # nothing more comes from here until the client does something
        self.reset = False  # the client ended it by RST
        self.reset_here = False
        self.fault: BaseException | None = None
        self._server = server
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._rest_at = 0
        self._news: list[asyncio.Future[None]] = []
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server.tls.wrap_bio(self._in, self._out, server_side=True) if server.tls else None
        self.secure = False  # the handshake is over
        self._reading = False
        if not server.mute:
            self.listen()
        self._actor = self._loop.create_task(self._act())
        self._actor.add_done_callback(self._over)

    def stop(self) -> None:
        self._actor.cancel()

    # -- reading ------------------------------------------------------------------------------

    def _readable(self) -> bool:
        """Reads once; False: nothing has come."""
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError:
            self.reset = True
            data = b""
        if not data:
            self._deaf()
            self._actor.cancel()
        elif self._tls is None:
            self._took(data)
        else:
            self._in.write(data)
            self._decrypt(self._tls)
        return True

    def _decrypt(self, tls: ssl.SSLObject) -> None:
        try:
            if not self.secure:
                tls.do_handshake()
                self.secure = True
                self._tell()
            while data := tls.read(1 << 18):
                self._took(data)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError:
            self._actor.cancel()
        with suppress(OSError):
            self._sock.send(self._out.read())

    def _took(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.chunks.append((now, data))
        rest = memoryview(data)
        while rest:
            if self.requests and not self.requests[-1].whole:
                request = self.requests[-1]
                taken = rest[: request.length - len(request.body)]
                request.body += taken
                rest = rest[len(taken) :]
                continue
            if not self.rest:
                self._rest_at = now
            before = len(self.rest)
            self.rest += rest
            end = self.rest.find(b"\r\n\r\n")
            if end < 0:
                break
            head = bytes(self.rest[: end + 4])
            self.rest.clear()
            rest = rest[end + 4 - before :]
            self.requests.append(Request(self._rest_at, head, _length(head)))
        self._tell()

    def listen(self) -> None:
        """Read again, if it was deaf."""
        if self.open and not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def look(self) -> None:
        """Read what has come, without waiting to be told."""
        while self._reading and self._readable():
            pass

    def _deaf(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _tell(self) -> None:
        news, self._news = self._news, []
        for future in news:
            if not future.done():
                future.set_result(None)

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for what bytes of the client bring about."""
        while not condition():
            future = self._loop.create_future()
            self._news.append(future)
            await future

    # -- acting -------------------------------------------------------------------------------

    async def _act(self) -> None:
        with suppress(OSError):
            if self._tls is not None:
                await self.until(lambda: self.secure)
            await self.play(self._server.greeting, None)
            for number in range(1 << 30):
                request = await self._request(number)
                steps, early = self._server.script_for(request)
                if not early:
                    await self.until(lambda request=request: request.whole)  # type: ignore[misc]
                await self.play(steps, request)
                self._server.played += 1
                self.resting = True

    async def _request(self, number: int) -> Request:
        await self.until(lambda: len(self.requests) > number)
        self.resting = False
        return self.requests[number]

    async def play(self, steps: tuple[Step, ...], request: Request | None) -> None:
        for step in steps:
            if isinstance(step, bytes):
                await self._send(step)
            elif isinstance(step, Do):
                await self._do(step, request)
            else:
                await asyncio.sleep(step)

    async def _do(self, step: Do, request: Request | None) -> None:
        if step is Do.ECHO:
            assert request is not None
            body = b"" if request.method == "HEAD" else request.number.encode()
            await self._send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        elif step is Do.WHOLE:
            assert request is not None
            await self.until(lambda: request.whole)
        elif step is Do.PASSES:
            await passes()
        elif step is Do.GATE:
            await self._server.gate.wait()
        elif step is Do.HANG:
            self.resting = True
            await self._loop.create_future()
        elif step is Do.DEAF:
            self._deaf()
        else:
            self.end_now(step)
            self.resting = True
            await self._loop.create_future()  # until the client ends its side

    def end_now(self, step: Do) -> None:
        """End the connection by FIN, CUT, CLOSE or RST, after reading all that has come."""
        self.look()
        if not self.open:
            return
        if self._tls is not None and step in {Do.FIN, Do.CLOSE}:
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._sock.send(self._out.read())
        if step in {Do.FIN, Do.CUT}:
            self._sock.shutdown(socket.SHUT_WR)
            return
        if step is Do.RST:
            self.reset_here = True
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()
        self._actor.cancel()

    def send_now(self, data: bytes) -> None:
        """Send what the kernel is sure to take."""
        assert self._sock.send(self._sealed(data)) > 0

    def _sealed(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        if data:
            self._tls.write(data)
        return self._out.read()

    async def _send(self, data: bytes) -> None:
        data = self._sealed(data)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._loop.sock_sendall(self._sock, memoryview(data)[sent:])

    def _over(self, actor: asyncio.Task[None]) -> None:
        if not actor.cancelled():
            self.fault = actor.exception()
        self._close()

    def _close(self) -> None:
        if self.open:
            self.open = False
            self.resting = True
            self._deaf()
            self._sock.close()
            self._server.forget(self)

    def __repr__(self) -> str:
        state = "open" if self.open else "closed"
        return f"<{state} connection, {len(self.requests)} requests, {bytes(self.rest)!r} behind them>"


def _length(head: bytes) -> int:
    found = re.search(rb"\r\nContent-Length: *(\d+)\r\n", head, re.IGNORECASE)
    assert b"\r\ntransfer-encoding" not in head.lower(), "chunked requests aren't understood here"
    return int(found[1]) if found else 0


class Hostile:
    """The server. `peers` are its connections in the order in which they came; it begins with ECHO on every path."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.peers: list[Peer] = []
        self.greeting: tuple[Step, ...] = ()  # what happens when a connection comes, in TLS after the handshake
        self.mute = False  # reads nothing of new connections, not even for the handshake
        self.gate = asyncio.Event()
        self.played = 0  # scripts that came to their end
        self.tls = tls
        self._scripts: dict[str, tuple[tuple[Step, ...], bool]] = {}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)
        self._living: set[Peer] = set()
        self._tick = self._loop.call_later(0.02, self._look)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    def on(self, path: str, *steps: Step, early: bool = False) -> None:
        """What a request to `path` sets off, once it has come whole or, if `early`, as soon as its head has."""
        self._scripts[path] = steps, early

    def script_for(self, request: Request) -> tuple[tuple[Step, ...], bool]:
        return self._scripts.get(request.path, ((Do.ECHO,), False))

    @property
    def requests(self) -> list[Request]:
        return [request for peer in self.peers for request in peer.requests]

    @property
    def open(self) -> int:
        return len(self._living)

    def forget(self, peer: Peer) -> None:
        """For peers: this one is closed."""
        self._living.discard(peer)

    def seen(self) -> Counter[str]:
        """How often each call's number came in, requests that were cut included."""
        found: Counter[str] = Counter()
        for peer in self.peers:
            for head in [*(request.head for request in peer.requests), bytes(peer.rest)]:
                number = TOKEN.search(head)
                if number:
                    found[number[1].decode()] += 1
        return found

    def by_path(self) -> Counter[str]:
        return Counter(request.path for request in self.requests)

    def nameless(self) -> int:
        """Requests that were cut before their number; what can't begin one isn't counted."""
        return sum(peer.rest[:1].isalpha() and not TOKEN.search(peer.rest) for peer in self.peers)

    async def quiet(self) -> None:
        """Waits until every connection is closed: then everything that will ever come has come."""
        for peer in self.peers:
            peer.listen()
        try:
            await until(lambda: not self.open)
        except AssertionError:
            left = [peer for peer in self.peers if peer.open]
            raise AssertionError(f"connections were left open: {left}") from None

    async def stop(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._tick.cancel()
        for peer in self.peers:
            peer.stop()
        await until(lambda: not self.open)
        faults = [peer.fault for peer in self.peers if peer.fault is not None]
        assert not faults, f"the hostile server itself failed: {faults}"

    def _look(self) -> None:
        """uvloop tells no reader of a reset."""
        for peer in list(self._living):
            peer.look()
        self._tick = self._loop.call_later(0.02, self._look)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._socket.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer = Peer(self, sock)
                self.peers.append(peer)
                self._living.add(peer)


# -- the attempts ----------------------------------------------------------------------------------


class Told(Watch):
    """A Watch that also keeps in which order it was told."""

    __slots__ = ("log", "number")

    def __init__(self, number: str, call: Call, timeout: int) -> None:
        super().__init__(call, KEY, timeout)
        self.number = number
        self.log: list[str] = []

    def sent(self, at: int) -> None:
        self.log.append("sent")
        super().sent(at)

    def done(self, outcome: Outcome) -> None:
        self.log.append("done")
        super().done(outcome)


@dataclass(frozen=True)
class Subject:
    """A sender under test. `ours`: it is held to everything, not only to what the control can do too."""

    name: str
    make: Callable[[HttpSettings], Upstream]
    ours: bool


@dataclass(frozen=True)
class Authority:
    """A certificate authority made for the tests: its file, and a context for servers on 127.0.0.1."""

    ca_file: Path
    chain_file: Path
    key_file: Path
    context: ssl.SSLContext


class Stage:
    """One upstream against one hostile server. What is begun here is held to the rules when the stage ends."""

    def __init__(self, server: Hostile, upstream: Upstream) -> None:
        self.server = server
        self.upstream = upstream
        self.told: list[Told] = []
        self.noise: list[str] = []  # what the loop's exception handler was told

    def begin(
        self,
        path: str = "/",
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: int = 30 * SECOND,
        send_by: int | None = None,
    ) -> Told:
        number = f"{len(self.told):06}"
        told = Told(number, Call(method, path, {"n": number}, headers or {}, body), timeout)
        told.send_by = send_by
        self.told.append(told)
        self.upstream.begin(told)
        assert "done" not in told.log, "done inside begin"
        return told

    async def call(self, path: str = "/", method: str = "GET", **more: Any) -> Outcome:
        """Begins a call and waits for its end."""
        told = self.begin(path, method, **more)
        return await asyncio.wait_for(told.over(), 2 * ENOUGH)

    async def follow(self, path: str = "/follow") -> None:
        """A call that nothing hinders gets its own answer."""
        outcome = await self.call(path)
        number = self.told[-1].number
        assert isinstance(outcome, Answer), outcome
        assert (outcome.status, outcome.body, outcome.fault) == (200, number.encode(), None), outcome

    def cancel(self, told: Told) -> None:
        was_done = "done" in told.log
        self.upstream.cancel(told)
        assert was_done or "done" not in told.log, "done inside cancel"

    async def end(self) -> None:
        """Closes the upstream and applies the rules to everything that was begun."""
        await asyncio.wait_for(self.upstream.close(), ENOUGH)
        assert all("done" in told.log for told in self.told), "close returned before everything was done"
        await self.server.quiet()
        await passes()
        self.check()

    def check(self) -> None:
        seen, nameless = self.server.seen(), self.server.nameless()
        arrived = {request.number: request.at for request in self.server.requests}
        unseen = 0
        for told in self.told:
            assert told.log in (["done"], ["sent", "done"]), (told.log, told.outcomes)
            outcome, arrivals = told.outcomes[0], seen[told.number]
            where = f"call {told.number} to {told.call.path}: {outcome}, {told.log}, seen {arrivals} times"
            if isinstance(outcome, NotSent):
                assert arrivals == 0, where
                assert not told.sent_at, where
                continue
            assert told.sent_at, where
            assert told.permit.taken_at <= told.sent_at[0], where
            assert arrivals == 1 or (arrivals == 0 and isinstance(outcome, Unknown)), where
            unseen += not arrivals
            if isinstance(outcome, Answer):
                assert told.sent_at[0] <= outcome.answered_at, where
            if told.number in arrived:
                assert told.sent_at[0] <= arrived[told.number], f"{where}, sent after its arrival"
        assert set(seen) <= {told.number for told in self.told}
        assert nameless <= unseen, f"{nameless} cut requests came in, of {unseen} calls that may have sent one"
        assert not self.noise, "\n".join(self.noise)


@dataclass(frozen=True)
class World:
    """A sender, a loop, and TLS or not: what every gate is run in."""

    subject: Subject
    loop: str
    runner: asyncio.Runner
    authority: Authority | None  # None: plain

    @property
    def ours(self) -> bool:
        return self.subject.ours

    @property
    def tls(self) -> bool:
        return self.authority is not None

    def run(self, work: Coroutine[Any, Any, None], seconds: float = 50.0) -> None:
        """Runs it to its end; a loop that only waits would outlive the test's timeout."""
        self.runner.run(asyncio.wait_for(work, seconds))

    def settings(self, url: str, **more: Any) -> HttpSettings:
        """Settings towards `url`."""
        if self.authority is not None:
            more.setdefault("ca_file", str(self.authority.ca_file))
        return HttpSettings(base_url=url, **more)

    @asynccontextmanager
    async def stage(self, **more: Any) -> AsyncIterator[Stage]:
        server = Hostile(self.authority.context if self.authority else None)
        stage = Stage(server, self.subject.make(self.settings(server.url, **more)))
        asyncio.get_running_loop().set_exception_handler(lambda _, what: stage.noise.append(str(what)))
        try:
            yield stage
            await stage.end()
        finally:
            await asyncio.wait_for(stage.upstream.close(), ENOUGH)
            await server.stop()


LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
SUBJECTS: Final = {
    "http": Subject("http", HttpUpstream, ours=True),
    "aiohttp": Subject("aiohttp", AiohttpUpstream, ours=False),
}
