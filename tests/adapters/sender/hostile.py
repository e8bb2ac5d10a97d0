"""A server that does what a test says, byte by byte.

Rule: there is nothing between a script and the kernel. Sockets have no transport, so that a connection ends by FIN or
by RST as the script says; TLS is spoken over memory BIOs, so that it can also end without its goodbye.

Everything here lives on one running loop, the client's too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.adapters.sender.script import TOKEN, Do, Request, Step, length_of
from tests.adapters.sender.taken import Taken
from tests.adapters.sender.waiting import until


class Peer:
    """The server's end of one connection.

    `chunks` has what came, each with its instant (ns), in TLS decrypted; `requests` what that amounts to; `rest` the
    bytes of a request whose head isn't whole.
    """

    def __init__(self, server: Hostile, sock: socket.socket, port: int) -> None:
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
        self._port = port  # the client's
        self._sent = 0  # bytes, sealed if in TLS
        self._ended = False  # this side
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
            self._sent += self._sock.send(self._out.read())

    def _took(self, data: bytes) -> None:
        now = self._server.clock()
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
            self.requests.append(Request(self._rest_at, head, length_of(head)))
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
        elif step is Do.TAKEN:
            await self.taken()
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

    async def taken(self) -> None:
        """Waits until the client has taken in all that was sent, and the end of this side if it came; or is gone."""
        taken = self._server.taken
        await taken.until(
            self._port,
            lambda: self._port in taken.over or (not self._ended and taken.bytes[self._port] >= self._sent),
        )

    def end_now(self, step: Do) -> None:
        """End the connection by FIN, CUT, CLOSE or RST, after reading all that has come."""
        self.look()
        if not self.open:
            return
        self._ended = True
        if self._tls is not None and step in {Do.FIN, Do.CLOSE}:
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._sent += self._sock.send(self._out.read())
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
        self._sent += self._sock.send(self._sealed(data))

    def block_until_seen(self) -> None:
        """Wait until the client's kernel has what was sent, or the end; its loop gets no turn to see that."""
        self._server.taken.block_until_readable(self._port)

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
        self._sent += len(data)

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


class Hostile:
    """The server. `peers` are its connections in the order in which they came; it begins with ECHO on every path."""

    def __init__(self, tls: ssl.SSLContext | None, clock: Callable[[], int], taken: Taken) -> None:
        self.clock = clock
        self.taken = taken
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
                sock, (_, port) = self._socket.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer = Peer(self, sock, port)
                self.peers.append(peer)
                self._living.add(peer)
