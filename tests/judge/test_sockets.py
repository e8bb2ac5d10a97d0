"""On real sockets every fault ends the connection as it should, on either event loop."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import client as http
from typing import Any, TypeVar

import pytest

from apiflux_grpc.judge.connection import Connection
from apiflux_grpc.judge.faults import (
    Rejection,
    parse_chances,
)
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.options import (
    JudgeOptions,
)
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.judge.wire import GARBAGE
from tests.judge.wires import BETA, RST, SECRET, request

T = TypeVar("T")
try:
    import uvloop
except ImportError:  # it is an extra
    LOOPS = [asyncio.new_event_loop]
else:
    LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Judge, int]]:
    """A judge and its port. In the end nothing of it is left, and no callback has failed."""
    failed: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context))
    judge = Judge(JudgeOptions({"alpha": SECRET}, **options))
    server = await loop.create_server(partial(Connection, judge), "127.0.0.1", 0)
    try:
        yield judge, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in [*judge.connections]:
            connection.abort()
        await until(lambda: not judge.connections)
        await server.wait_closed()
        assert (judge.in_flight, failed) == (0, [])


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # nobody tells a test of it
        await asyncio.sleep(0.001)


async def exchange(port: int, data: bytes) -> tuple[bytes, str]:
    """What comes back, and how the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = b""
    end = "FIN"
    try:
        while chunk := await reader.read(1 << 16):
            got += chunk
    except ConnectionResetError:
        end = "RST"
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()
    return got, end


def run(loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)


HEAD_BEGUN = rb"HTTP/1\.1 200 OK\r\nContent-Ty"
HEAD = rb"HTTP/1\.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("fault", "expected", "end"),
    [
        ("reset", b"", "RST"),
        ("reset-in-head", HEAD_BEGUN, "RST"),
        ("close", b"", "FIN"),
        ("garbage", re.escape(GARBAGE), "FIN"),
        ("cut;size=10", HEAD + rb"Content-Length: 10\r\n\r\nx{5}", "FIN"),
        ("cut-reset;size=10", HEAD + rb"Content-Length: 10\r\n\r\nx{5}", "RST"),
        ("cut-chunked;size=100000", HEAD + rb"Transfer-Encoding: chunked\r\n\r\n186a0\r\nx{100000}\r\n", "FIN"),
        ("slow;size=5;every=1ms", HEAD + rb"Content-Length: 5\r\nConnection: close\r\n\r\nxxxxx", "FIN"),
        ("huge;size=3MiB", HEAD + rb"Content-Length: 3145728\r\nConnection: close\r\n\r\n(?:x{1024}){3072}", "FIN"),
    ],
)
def test_how_a_connection_ends(
    loop: Callable[[], asyncio.AbstractEventLoop], fault: str, expected: bytes, end: str
) -> None:
    """Each fault puts exactly its bytes on the wire and ends by FIN or RST as it should, on either event loop."""
    last = () if "cut" in fault else ("Connection: close",)

    async def main() -> tuple[bytes, str]:
        async with served() as (judge, port):
            told = await exchange(port, request("/a", *last, fault=fault))
            assert judge.report().faults == {fault.partition(";")[0]: 1}
            return told

    got, ended = run(loop, main())
    assert re.fullmatch(expected, got)
    assert ended == end


@pytest.mark.parametrize("loop", LOOPS)
def test_clients_that_vanish_leave_nothing(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that go by FIN or RST in the middle of any fault leave no connection and nothing in flight."""
    monkeypatch.setattr("apiflux_grpc.judge.answers.LINGER", 0.02)
    faults = ("hang", "slow", "huge", "cut", "reset-in-head", "garbage", "close", "500", "ok")

    async def main() -> None:
        async with served(latency_ns=(0, 2_000_000)) as (judge, port):
            for reset in (False, True):
                for at, fault in enumerate(faults * 5):
                    client = socket.create_connection(("127.0.0.1", port))
                    client.sendall(request(f"/{at}", f"X-Call-Id: {reset} {at}", fault=fault))
                    if at % 2:
                        await until(partial(judge.ledger.accepted_of, f"{reset} {at}"))
                    if reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                    client.close()
            await until(lambda: not judge.connections and not judge.in_flight)
            assert (await exchange(port, request("/", "Connection: close", fault="500")))[0].startswith(
                b"HTTP/1.1 500 "
            )

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_it_closes_with_hung_connections_open(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A judge ends at once while clients wait on hung and slow calls, and they see the end."""

    async def main() -> list[object]:
        async with served() as (judge, port):
            clients = [
                asyncio.create_task(exchange(port, request(f"/{at}", fault=fault)))
                for at, fault in enumerate(["hang", "slow;every=1h"] * 5)
            ]
            await until(lambda: judge.in_flight == 10)
        return [end in ("FIN", "RST") for _, end in await asyncio.gather(*clients)]

    assert run(loop, main()) == [True] * 10


def test_a_refused_client_can_read_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is still sending a huge body gets to read its 413, however slowly it sends."""
    monkeypatch.setattr("apiflux_grpc.judge.answers.LINGER", 60)  # else a slow machine is cut off
    size = 4 << 20
    head = request("/a", f"Content-Length: {size}", method="POST")

    async def main() -> tuple[bytes, str]:
        async with served() as (_, port):
            return await exchange(port, head + bytes(size))

    got, _ = run(asyncio.new_event_loop, main())
    assert got.startswith(b"HTTP/1.1 413 ")


def test_a_real_client_meets_faults() -> None:
    """An HTTP client notices each fault, and a judge's process tells it all, then ends well with a call that hangs."""
    options = JudgeOptions(
        {"alpha": SECRET, "beta": BETA},
        faults=parse_chances(["503;retry-after=1=1"]),
        rejections=(Rejection("beta", 1),),
    )
    seen: list[object] = []

    def call(fault: str = "", key: str = SECRET) -> None:
        connection = http.HTTPConnection("127.0.0.1", judge.port, timeout=60)
        headers = {
            "X-API-Key": key,
            "X-Call-Id": fault or f"without {key == BETA}",
            **({"X-Judge-Fault": fault} if fault else {}),
        }
        try:
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.status)
        except (http.HTTPException, OSError) as error:
            seen.append(type(error))
        finally:
            connection.close()

    with JudgeProcess(options) as judge:
        for fault in ("", "ok", "500,ok", "500,ok", "reset", "close", "garbage", "cut", "cut-chunked"):
            call(fault)
        call(key=BETA)
        judge.reject("beta")
        call(key=BETA)
        judge.accept("beta")
        call(key=BETA)
        hung = socket.create_connection(("127.0.0.1", judge.port))
        hung.sendall(request("/", fault="hang"))
        while not judge.live().in_flight:
            pass
        hung.setblocking(False)
        with pytest.raises(BlockingIOError):
            hung.recv(1)
        hung.setblocking(True)
        expected: list[object] = [503, 200, 500, 200, ConnectionResetError, http.RemoteDisconnected]
        assert seen[:6] == expected
        assert seen[6:] == [http.BadStatusLine, http.IncompleteRead, http.IncompleteRead, 401, 401, 503]
        report = judge.report()
        kinds = {"500", "503", "401", "reset", "close", "garbage", "cut", "cut-chunked", "hang"}
        assert {*report.faults} == kinds
        assert (report.accepted, sum(report.faults.values())) == (13, 11)
        assert (report.seen_twice, report.resent, report.ok) == (2, 0, True)
        calls = judge.calls()
        assert (calls["500,ok"], calls["without True"], len(calls)) == (2, 3, 10)
    with hung:
        assert judge.returncode == 0
        with suppress(ConnectionResetError):
            assert hung.recv(1) == b""
