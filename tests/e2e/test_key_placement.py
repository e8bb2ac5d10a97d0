"""Where a key travels: in its place of every request, and nowhere else that anybody could read."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, quote

import psutil
import pytest

from apiflux_grpc.client import ApifluxError, Call, CallFailed, Client, InvalidRequest, Result, Stream
from apiflux_grpc.judge.options import JudgeOptions, parse_key_in
from apiflux_grpc.judge.process import JudgeProcess
from apiflux_grpc.testing.served import ServedProcess, secrets_for

# With characters that change on the way: percent-encoded, JSON-escaped, in base64.
KEYS = {"key-1": 'canary-51/d0+a=&"%20', "key-2": "canary-51/d0+b=?#[x]"}
MARK = "canary-51"

# The pool's key_in, and where that is for the judge.
HEADER = ('{ header = "X-API-Key" }', "header:X-API-Key")
BEARER = ('{ header = "Authorization", prefix = "Bearer " }', "bearer")
QUERY = ('{ query = "api_key" }', "query:api_key")
PLACES = {"header": HEADER, "bearer": BEARER, "query": QUERY}
EVERYWHERE = pytest.mark.parametrize("place", PLACES)


@dataclass(frozen=True)
class Arrival:
    """A request as its bytes were."""

    line: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1].partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.line.split(" ")[1].partition("?")[2], keep_blank_values=True)

    @property
    def carried(self) -> list[tuple[str, str]]:
        """(place, what is there) of every place in which a key may stand."""
        places = {"x-api-key": HEADER[1], "authorization": BEARER[1]}
        found = [(places[name.lower()], value) for name, value in self.headers if name.lower() in places]
        return found + [(QUERY[1], value) for name, value in self.query if name == "api_key"]


class Gossip:
    """An upstream that tells all it was told: the request's head is in its answers, in every form there is."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.connections: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while (first := await reader.read(1)) and first != b"\x16":  # TLS gets no answer
                head = first + await reader.readuntil(b"\r\n\r\n")
                answer, keep = self.answer(head)
                writer.write(answer)
                await writer.drain()
                if not keep:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, head: bytes) -> tuple[bytes, bool]:
        """The bytes of the answer, and whether the connection goes on."""
        line, *rest = head.decode("latin-1").split("\r\n")[:-2]
        pairs = (row.partition(":") for row in rest)
        arrival = Arrival(line, tuple((name, value.strip()) for name, _, value in pairs))
        self.arrivals.append(arrival)
        (carried,) = [value for _, value in arrival.carried] or [""]
        forms = (carried, quote(carried, safe=""), base64.b64encode(carried.encode()).decode())
        body = "\n".join((head.decode("latin-1"), repr(arrival), *forms)).encode()
        echo = f"X-Echo: {carried}\r\nLocation: /?api_key={quote(carried, safe='')}\r\nWWW-Authenticate: {carried}\r\n"
        length = f"Content-Length: {len(body)}\r\n"
        match arrival.path:
            case "/flaky" if sum(each.path == "/flaky" for each in self.arrivals) < 3:
                return f"HTTP/1.1 503 {carried}\r\n{echo}{length}\r\n".encode() + body, True
            case "/denied":
                return f"HTTP/1.1 401 {carried}\r\n{echo}{length}\r\n".encode() + body, True
            case "/redirect":
                return f"HTTP/1.1 302 {carried}\r\n{echo}{length}\r\n".encode() + body, True
            case "/gzip":
                body = gzip.compress(body)
                length = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
            case "/pieces":
                length = "Transfer-Encoding: chunked\r\n"
                pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
                body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            case "/cut":
                return f"HTTP/1.1 200 OK\r\n{echo}Content-Length: 100000\r\n\r\n".encode() + body, False
            case "/garbage":
                return f"{carried}\r\n{carried}\r\n\r\n".encode(), False
            case "/closed":
                return b"", False
        return f"HTTP/1.1 200 {carried}\r\n{echo}{length}\r\n".encode() + body, True


class Gossips:
    """A Gossip for each place, on a loop and in a thread of their own for as long as the `with` block lasts."""

    def __init__(self) -> None:
        self.of = {place: Gossip() for place in PLACES}
        self.ports: dict[str, int] = {}
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        servers = []
        for place, gossip in self.of.items():
            servers.append(await asyncio.start_server(gossip.connected, "127.0.0.1"))
            self.ports[place] = servers[-1].sockets[0].getsockname()[1]
        self._up.set()
        await self._stop.wait()
        for server in servers:
            server.close()
        if connections := [task for gossip in self.of.values() for task in gossip.connections]:
            await asyncio.wait(connections)


def pool_for(name: str, place: str, url: str) -> str:
    """The TOML of a pool with the keys of `secrets_for(KEYS)` and quick retries."""
    keys = ", ".join(f'{{ label = "{label}", secret_env = "STRESS_SECRET_{at}" }}' for at, label in enumerate(KEYS))
    attempts = 1 if name.startswith("denied") else 3
    return f"""[pools.{name}]
base_url = "{url}"
limits = []
key_in = {PLACES[place][0]}
keys = [{keys}]
max_in_flight = 5
retry = {{ max_attempts = {attempts}, initial_backoff = "1ms" }}
"""


@dataclass(frozen=True)
class World:
    """One server for all: its pools are named by what is upstream and by the place of their key."""

    served: ServedProcess
    gossips: dict[str, Gossip]
    judges: dict[str, JudgeProcess]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        gossips = stack.enter_context(Gossips())
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        judges = {}
        config = ""
        for place, (_, where) in PLACES.items():
            judges[place] = stack.enter_context(JudgeProcess(JudgeOptions(KEYS, key_in=parse_key_in(where))))
            urls = {
                "judge": judges[place].url,
                "gossip": f"http://127.0.0.1:{gossips.ports[place]}",
                "denied": f"http://127.0.0.1:{gossips.ports[place]}",  # of its own: its keys are rejected after it
                "gone": f"http://127.0.0.1:{closed.getsockname()[1]}",
                "tls": f"https://127.0.0.1:{gossips.ports[place]}",
            }
            config += "".join(pool_for(f"{name}-{place}", place, url) for name, url in urls.items())
        served = stack.enter_context(ServedProcess(config, secrets_for(KEYS), log_level="debug"))
        yield World(served, gossips.of, judges)


async def read(stream: Stream) -> list[Result]:
    return sorted([result async for result in stream], key=lambda result: result.index)


@EVERYWHERE
async def test_the_judge_finds_the_key_in_its_place(world: World, place: str) -> None:
    """No arrival is without a key that the judge knows, and every key is used."""
    async with Client(world.served.target) as client:
        calls = [Call(f"/{number}", method=method) for number in range(25) for method in ("GET", "POST")]
        results = await read(client.process(calls, pool=f"judge-{place}"))
    report = world.judges[place].report()
    assert all(result.ok for result in results)
    assert report.violations == []
    assert (report.arrivals, report.accepted, report.unknown_arrivals) == (50, 50, 0)
    assert {key.label for key in report.keys if key.accepted} == set(KEYS)


@EVERYWHERE
async def test_the_key_stays_in_its_place(world: World, place: str) -> None:
    """Every attempt, retries too, carries the key once and in its place; what an upstream tells of it is masked.

    Neither results nor errors nor the log at its most talkative have it, nor do the process's arguments.
    """
    gossip, served = world.gossips[place], world.served
    gossip.arrivals.clear()
    said: list[object] = []
    paths = ("/echo", "/flaky", "/redirect", "/gzip", "/pieces", "/cut", "/garbage", "/closed")
    async with Client(served.target) as client:
        told = await read(client.process([Call(path) for path in paths], pool=f"gossip-{place}"))
        denied = await read(client.process([Call("/denied")], pool=f"denied-{place}"))
        gone = await read(client.process([Call("/")], pool=f"gone-{place}"))
        tls = await read(client.process([Call("/")], pool=f"tls-{place}"))
        for failed in (result for result in (*told, *denied, *gone, *tls) if not result.ok):
            with pytest.raises(CallFailed) as raised:
                failed.raise_for_status()
            said += [raised.value, vars(raised.value)]
        said += [told, denied, gone, tls, await client.info(), psutil.Process(served.pid).cmdline()]
        for name in ("authorization", "X-Api-Key")[: 2 if place == "header" else 1]:
            with pytest.raises(ApifluxError) as refused:
                await read(client.process([Call("/", headers={name: "x"})], pool=f"gossip-{place}"))
            said += [refused.value, refused.value.metadata]
    said.append(served.stderr)

    arrivals = [arrival.path for arrival in gossip.arrivals]
    assert {path: arrivals.count(path) for path in paths} == {
        **dict.fromkeys(paths, 1),
        **dict.fromkeys(("/flaky", "/cut", "/garbage", "/closed"), 3),
    }
    prefix = "Bearer " if place == "bearer" else ""
    secrets = {prefix + secret for secret in KEYS.values()}
    for arrival in gossip.arrivals:
        ((found, value),) = arrival.carried
        assert found == PLACES[place][1]
        assert value in secrets
        others = [text for name, text in arrival.headers if name.lower() not in ("x-api-key", "authorization")]
        assert MARK not in "".join(others) + arrival.path

    *answered, cut, garbage, lost = told
    answered += denied
    assert [result.response.status for result in answered if result.response] == [200, 200, 302, 200, 200, 401]
    for result in answered:
        assert result.response is not None
        assert result.response.headers["x-echo"] == f"{prefix}***"
        assert result.response.body.count(b"***") >= 3
    reasons = [result.error.reason for result in (cut, garbage, lost, *gone, *tls) if result.error]
    assert reasons == ["BODY_CUT", "UNKNOWN", "UNKNOWN", "NOT_SENT", "NOT_SENT"]
    text = "\n".join(map(repr, said)) + "\n".join(map(str, said))
    assert "/apiflux.v1.FluxService/Process" in text  # the log was there to be searched
    assert MARK not in text
    for secret in KEYS.values():
        assert base64.b64encode(secret.encode()).decode()[:-4] not in text


@EVERYWHERE
async def test_a_call_s_own_query_goes_beside_the_key(world: World, place: str) -> None:
    """Query and headers arrive in their order, repeats included, wherever the key travels; its name is refused."""
    gossip, pool = world.gossips[place], f"gossip-{place}"
    gossip.arrivals.clear()
    async with Client(world.served.target) as client:
        own = [("b c", "ü/?"), ("a", "1&api_key=x"), ("b c", "")]
        headers = [("X-Tag", "2"), ("x-tag", "1")]
        (result,) = await read(client.process([Call("/q", query=own, headers=headers)], pool=pool))
        assert result.ok
        (arrival,) = gossip.arrivals
        assert [pair for pair in arrival.query if pair[0] != "api_key"] == own
        assert [value for name, value in arrival.headers if name.lower() == "x-tag"] == ["2", "1"]
        assert [found for found, _ in arrival.carried] == [PLACES[place][1]]
        if place == "query":
            with pytest.raises(InvalidRequest) as refused:
                await read(client.process([Call("/q", query={"api_key": "x"})], pool=pool))
            assert [at for at, _ in refused.value.violations] == ["calls[0].query[0].name"]
            assert len(gossip.arrivals) == 1
