"""Answers bent at random: no rule breaks, and what both our sender and h11 read as whole, they read the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apiflux_grpc.core.outcome import Answer, NotSent, Outcome
from tests.adapters.sender.script import FIN, TAKEN, Step
from tests.adapters.sender.stage import Stage, World
from tests.adapters.sender.waiting import until

BODY_CAP = 300
HEAD_CAP = 2000
S = b"HTTP/1.1 200 OK\r\n"

SEEDS = [
    S + b"Content-Length: 5\r\n\r\nhello",
    S + b"X-A: 1\r\nx-a: 2\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
    S + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
    S + b"Transfer-Encoding: chunked\r\nTrailer: X-B\r\n\r\n1f\r\n" + b"x" * 31 + b"\r\n0\r\nX-B: 2\r\n\r\n",
    S + b"\r\nuntil the end",
    b"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\nno",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + S + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad",
    S + b"Content-Length: 2\r\n\r\nok" + S + b"Content-Length: 5\r\n\r\nstray",
    S + b"Content-Length: 400\r\n\r\n" + b"y" * 400,
]
PARTS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"0",
        b"-",
        b"+",
        b"\x80",
        b"\xff",
        b"x" * 300,
    ),
    *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1, 1\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"transfer-encoding:identity\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n"),
    *(b"X-A: 1\r\n", b"X-A:\r\n", b" folded\r\n", b"X: a\r\n b\r\n", b"nonsense\r\n", b": x\r\n", b"X : 1\r\n"),
    *(b"0\r\n\r\n", b"2\r\nok\r\n", b"ffffffffffffffff\r\n", b"10000000000000000\r\n", b"1;", b"0\r\nX-A: 9\r\n\r\n"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switch\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.0 ", S),
]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A valid answer, bent some times."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(text)))
        more = draw(st.integers(0, 12))
        kind = draw(st.sampled_from(["insert", "replace", "delete", "flip", "double", "cut"]))
        if kind == "insert":
            text = text[:place] + draw(st.sampled_from(PARTS)) + text[place:]
        elif kind == "replace":
            text = text[:place] + draw(st.binary(max_size=4)) + text[place + more :]
        elif kind == "delete":
            text = text[:place] + text[place + more :]
        elif kind == "flip" and place < len(text):
            text = text[:place] + bytes([text[place] ^ 1 << draw(st.integers(0, 7))]) + text[place + 1 :]
        elif kind == "double":
            text = text[:place] + text[place : place + 3 * more] + text[place:]
        elif kind == "cut" and draw(st.booleans()):
            text = text[:place]
    return text


splits = st.lists(st.integers(0, 600), max_size=3).map(sorted)
methods = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"])


@dataclass(frozen=True)
class Reading:
    """What of an answer two readers must agree on."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_by_h11(text: bytes, method: str) -> Reading | None:
    """What h11 makes of it; None: it isn't whole."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = b""
    try:
        connection.receive_data(text)
        connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                return None
    except h11.RemoteProtocolError:
        return None
    return None if head is None else Reading(head.status_code, joined(head.headers), body)


def joined(headers: Any) -> dict[str, str]:
    """As an Answer has them."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = raw.decode("latin-1").lower()
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def pieces(text: bytes, places: Sequence[int]) -> list[Step]:
    """The text, with a pause at each of the places."""
    steps: list[Step] = []
    last = 0
    for place in places:
        steps += text[last:place], TAKEN
        last = max(last, place)
    return [*steps, text[last:], FIN]


def test_the_oracle() -> None:
    """h11 reads what it should."""
    assert read_by_h11(SEEDS[0], "GET") == Reading(200, {"content-length": "5"}, b"hello")
    assert read_by_h11(SEEDS[2], "GET") == Reading(200, {"transfer-encoding": "chunked"}, b"hello world")
    assert read_by_h11(SEEDS[9], "GET") == Reading(200, {"connection": "close", "content-length": "2"}, b"ok")
    assert read_by_h11(SEEDS[0][:-1], "GET") is None
    assert read_by_h11(b"nonsense", "GET") is None


async def ask(stage: Stage, text: bytes, places: Sequence[int], method: str) -> Outcome:
    stage.server.on("/fuzz", *pieces(text, places))
    outcome = await stage.call("/fuzz", method)
    assert stage.told[-1].log == ["sent", "done"]
    assert not isinstance(outcome, NotSent)
    if isinstance(outcome, Answer):
        assert 100 <= outcome.status <= 999
        assert len(outcome.body) <= BODY_CAP
        assert sum(map(len, outcome.headers.values())) <= HEAD_CAP + (64 << 10)
        assert outcome.truncated == (outcome.truncated and len(outcome.body) == BODY_CAP)
        for name, value in outcome.headers.items():
            assert name == name.lower()
            assert not {"\0", "\r", "\n"} & {*name, *value}
            value.encode()
    return outcome


def fuzz(world: World, examples: int) -> None:
    whole = 0

    async def one(stage: Stage, text: bytes, places: Sequence[int], method: str) -> None:
        nonlocal whole
        before = len(stage.server.peers)
        outcome = await ask(stage, text, places, method)
        peers = stage.server.peers[max(0, before - 1) :]
        await until(lambda: all(peer.resting for peer in peers))
        for peer in peers:
            await peer.taken()
        await stage.follow()
        oracle = read_by_h11(text, method)
        if oracle is None or not isinstance(outcome, Answer) or outcome.fault is not None:
            return
        if "content-encoding" in oracle.headers:
            return
        whole += 1
        assert Reading(outcome.status, dict(outcome.headers), outcome.body) == Reading(
            oracle.status, oracle.headers, oracle.body[:BODY_CAP]
        )

    async def begin() -> None:
        stages.append(await opened.enter_async_context(world.stage(body_cap=BODY_CAP, head_cap=HEAD_CAP)))

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(answers(), splits, methods)
    def run(text: bytes, places: list[int], method: str) -> None:
        world.run(one(stages[0], text, places, method), 20)

    opened = AsyncExitStack()
    stages: list[Stage] = []
    world.run(begin())
    try:
        run()
    finally:
        world.run(opened.aclose())
    assert whole > examples / 20, "hardly an answer was whole: this proves little"


def test_fuzz(ours: World) -> None:
    """However an answer is bent and cut in pieces: one end, the caps are kept, the next call is untouched."""
    fuzz(ours, 200)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_long_fuzz(ours: World) -> None:
    """The same, for longer."""
    fuzz(ours, 1_500)
