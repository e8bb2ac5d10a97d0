"""An answer that ends or halts at any of its bytes, and a call that is cancelled at any moment.

Rule: after each of them the next call on the same upstream gets its own answer.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import pytest

from apiflux_grpc.core.model import MILLISECOND
from apiflux_grpc.core.outcome import Answer, NotSent, Outcome, Reason, Unknown
from tests.sender.hostile import (
    CLOSE,
    CUT,
    DEAF,
    ECHO,
    FIN,
    GATE,
    HANG,
    PASSES,
    RST,
    Do,
    Stage,
    Step,
    Told,
    World,
    passes,
    until,
)

HEAD = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"


@dataclass(frozen=True)
class Whole:
    """An answer, where its head ends, and which bytes of it are body."""

    head: bytes
    rest: bytes
    body: tuple[int, ...]  # places in the rest
    until_end: bool = False  # it ends with its connection

    @property
    def text(self) -> bytes:
        return self.head + self.rest

    def body_of(self, length: int) -> bytes:
        """The body in the first `length` bytes."""
        return bytes(self.rest[place] for place in self.body if len(self.head) + place < length)


CHUNKS = b"5\r\nhello\r\n3;x=y\r\n wo\r\n3\r\nrld\r\n0\r\nX-Sum: 1\r\n\r\n"
WHOLES = {
    "length": Whole(HEAD + b"Content-Length: 11\r\n\r\n", b"hello world", tuple(range(11))),
    "chunks": Whole(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNKS, (*range(3, 8), *range(17, 20), *range(25, 28))
    ),
    "until the end": Whole(HEAD + b"\r\n", b"hello world", tuple(range(11)), until_end=True),
    "no body": Whole(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", b"", ()),
}


def test_the_answers() -> None:
    """The places of the bodies are right."""
    for name, answer in WHOLES.items():
        assert answer.body_of(len(answer.text)) == (b"" if name == "no body" else b"hello world")


def expected(answer: Whole, length: int, end: Do, tls: bool) -> tuple[bytes, Reason | None] | None:
    """Body and fault of what came of the first `length` bytes; None: Unknown."""
    if length < len(answer.head):
        return None
    in_order = end in {FIN, CLOSE} or (end is CUT and not tls)
    whole = in_order if answer.until_end else length == len(answer.text)
    return answer.body_of(length), None if whole else Reason.BODY_CUT


@pytest.mark.parametrize("end", [FIN, CUT, CLOSE, RST])
@pytest.mark.parametrize("name", WHOLES)
def test_ended_at_every_byte(world: World, name: str, end: Do) -> None:
    """What came before the end is told, and whether it was all."""
    answer = WHOLES[name]

    async def go() -> None:
        async with world.stage() as stage:
            for length in range(len(answer.text) + 1):
                stage.server.on("/cut", answer.text[:length], end)
                outcome = await stage.call("/cut")
                want = expected(answer, length, end, world.tls)
                if not world.ours and answer.until_end and end is RST and want == (b"", Reason.BODY_CUT):
                    want = b"", None  # aiohttp takes a reset behind an empty body for its end
                if want is None:
                    assert isinstance(outcome, Unknown), (length, outcome)
                    assert outcome.reason is Reason.UNKNOWN
                else:
                    assert isinstance(outcome, Answer), (length, outcome)
                    assert (outcome.status, outcome.headers["x-a"]) == (200, "1")
                    assert (outcome.body, outcome.fault) == want, length
                await stage.follow()

    world.run(go())


@pytest.mark.parametrize("name", WHOLES)
def test_halted_at_every_byte(world: World, name: str) -> None:
    """A pause between any two bytes changes nothing, and a connection that may be kept is."""
    answer = WHOLES[name]
    end = (FIN,) if answer.until_end else ()

    async def go() -> None:
        async with world.stage() as stage:
            for length in range(len(answer.text) + 1):
                stage.server.on("/halt", answer.text[:length], PASSES, answer.text[length:], *end)
                outcome = await stage.call("/halt")
                assert isinstance(outcome, Answer), (length, outcome)
                assert (outcome.status, outcome.fault) == (200, None), length
                assert outcome.body == answer.body_of(len(answer.text)), length
                await stage.follow()
            if not answer.until_end:
                assert len(stage.server.peers) == 1

    world.run(go())


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLES)
def test_late_at_every_byte(ours: World, name: str) -> None:
    """An answer that isn't whole in time ends as what of it came, and its connection isn't used again."""
    answer = WHOLES[name]
    lengths = range(len(answer.text))

    async def go() -> None:
        async with ours.stage() as stage:
            stage.server.on("/warm", GATE, ECHO)
            warm = [stage.begin("/warm") for _ in lengths]
            await until(lambda: len(stage.server.requests) == len(warm))
            stage.server.gate.set()
            for told in warm:
                assert isinstance(await told.over(), Answer)
            for length in lengths:
                stage.server.on(f"/late/{length}", answer.text[:length], HANG)
            late = [stage.begin(f"/late/{length}", timeout=1000 * MILLISECOND) for length in lengths]
            for length, told in zip(lengths, late, strict=True):
                outcome = await told.over()
                if length < len(answer.head):
                    assert outcome == Unknown("no answer in time", Reason.TIMEOUT), length
                else:
                    assert isinstance(outcome, Answer), (length, outcome)
                    assert (outcome.body, outcome.fault) == (answer.body_of(length), Reason.TIMEOUT)
            await stage.follow()
            assert len(stage.server.peers) == len(late) + 1

    ours.run(go())


# -- cancelled -------------------------------------------------------------------------------------


async def cancelled(stage: Stage, told: Told) -> Outcome:
    """Cancels it, twice, and waits for its end."""
    stage.cancel(told)
    stage.cancel(told)
    outcome = await asyncio.wait_for(told.over(), 10)
    stage.cancel(told)
    return outcome


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("body", [b"", b"x" * 100, bytes(8 << 20)], ids=["none", "small", "large"])
def test_cancelled_at_every_pass(world: World, body: bytes, warm: bool) -> None:
    """Whenever the cancel comes: one end, and NotSent only if nothing arrived."""

    async def go() -> None:
        for count in range(12 if len(body) > 1000 else 40):
            async with world.stage() as stage:
                if warm:
                    await stage.follow()
                told = stage.begin("/x", "POST" if body else "GET", body=body)
                await passes(count)
                outcome = await cancelled(stage, told)
                assert not isinstance(outcome, Answer) or outcome.fault in {None, Reason.BODY_CUT}
                await stage.follow()

    world.run(go())


@pytest.mark.parametrize("name", WHOLES)
def test_cancelled_at_every_byte(world: World, name: str) -> None:
    """A cancel after a part of the answer is Unknown, or an Answer whose body isn't whole once its head is."""
    answer = WHOLES[name]

    async def go() -> None:
        async with world.stage() as stage:
            for length in range(len(answer.text)):
                stage.server.on("/part", answer.text[:length], HANG)
                told = stage.begin("/part")
                await until(lambda: stage.server.peers and stage.server.peers[-1].resting)
                await until(lambda: stage.server.by_path()["/part"] == length + 1)  # noqa: B023
                await passes()
                outcome = await cancelled(stage, told)
                if length < len(answer.head):
                    assert isinstance(outcome, Unknown), (length, outcome)
                    assert outcome.reason is Reason.UNKNOWN
                else:
                    assert isinstance(outcome, Answer), (length, outcome)
                    assert (outcome.body, outcome.fault) == (answer.body_of(length), Reason.BODY_CUT)
                await stage.follow()

    world.run(go())


def test_cancelled_at_once(world: World) -> None:
    """A cancel in the step of the begin: on a new connection nothing is sent, on a kept one what was sent is known."""

    async def go() -> None:
        async with world.stage() as stage:
            assert isinstance(await cancelled(stage, stage.begin("/x")), NotSent)
            await stage.follow()
            told = stage.begin("/x")
            outcome = await cancelled(stage, told)
            assert isinstance(outcome, Unknown if told.sent_at else NotSent)
            await stage.follow()

    world.run(go())


def test_cancelled_while_dialing(ours: World) -> None:
    """A cancel while the connection is made is NotSent; the connection is there for the next call."""

    async def go() -> None:
        async with ours.stage() as stage:
            stage.server.mute = True
            told = [stage.begin("/x") for _ in range(3)]
            if ours.tls:  # else the connection is made by the kernel alone
                await until(lambda: len(stage.server.peers) == 3)
                await passes()
            for one in told:
                assert isinstance(await cancelled(stage, one), NotSent)
            stage.server.mute = False
            for peer in stage.server.peers:
                peer.listen()
            await stage.follow()

    ours.run(go())


def test_late_while_dialing(ours: World) -> None:
    """A call whose time is up while its connection is made is NotSent."""

    async def go() -> None:
        async with ours.stage() as stage:
            stage.server.mute = True
            outcome = await stage.call("/x", timeout=200 * MILLISECOND)
            if ours.tls:
                assert isinstance(outcome, NotSent)
            else:
                assert outcome == Unknown("no answer in time", Reason.TIMEOUT)
            stage.server.mute = False
            await stage.follow()

    ours.run(go())


@pytest.mark.parametrize(
    "steps", [(b"nonsense\r\n\r\n",), (FIN,), (RST,), (HANG,)], ids=["nonsense", "FIN", "RST", "silence"]
)
def test_handshakes_that_fail(secure: World, steps: tuple[Step, ...]) -> None:
    """A connection that isn't made is NotSent, and the next call makes another one."""

    async def go() -> None:
        async with secure.stage(connect_timeout=(500 if HANG in steps else 10_000) * MILLISECOND) as stage:
            server = stage.server
            tls, server.tls = server.tls, None  # a server that knows no TLS
            server.greeting = (DEAF, *steps)
            assert isinstance(await stage.call(), NotSent)
            server.tls, server.greeting = tls, ()
            await stage.follow()

    secure.run(go())


class Narrow:
    """Makes the kernel take less of one long write to `port` than there is: `taken` bytes, or `error`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, taken: int, error: type[OSError] | None) -> None:
        self.port = 0
        self.hit = False
        plain = socket.socket.send

        def send(sock: socket.socket, data: Any, *flags: int) -> int:
            long = self.port and not self.hit and sock.family == socket.AF_INET and memoryview(data).nbytes > 100
            if long and sock.getpeername()[1] == self.port:
                self.hit = True
                if error is not None:
                    raise error
                data = bytes(data)[:taken]
            return plain(sock, data, *flags)

        monkeypatch.setattr(socket.socket, "send", send)


async def narrowed(stage: Stage, narrow: Narrow) -> Told:
    """A call on a kept connection whose write is the narrow one."""
    await stage.follow()
    narrow.port = stage.server.port
    told = stage.begin("/x", "POST", body=b"x" * 500)
    await until(lambda: narrow.hit)
    return told


@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("error", [None, BlockingIOError, InterruptedError])
def test_the_kernel_takes_little(
    ours: World, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None, cancel: bool
) -> None:
    """A request of which the kernel takes a part, or nothing yet: what arrives was told to be sent."""
    narrow = Narrow(monkeypatch, 5, error)

    async def go() -> None:
        async with ours.stage() as stage:
            told = await narrowed(stage, narrow)
            if cancel:
                await cancelled(stage, told)
            else:
                outcome = await told.over()
                assert not isinstance(outcome, Unknown), outcome
            await stage.follow()

    ours.run(go())


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_the_write_fails(ours: World, monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """A request whose one write fails whole is NotSent, and nothing of it arrives."""
    narrow = Narrow(monkeypatch, 0, error)

    async def go() -> None:
        async with ours.stage() as stage:
            told = await narrowed(stage, narrow)
            assert isinstance(await told.over(), NotSent)
            await stage.follow()
            assert len(stage.server.peers) == 2

    ours.run(go())


def test_closed_at_every_pass(world: World) -> None:
    """Whenever the upstream is closed: everything is done when it returns, and no connection is left."""

    async def go() -> None:
        for count in range(30):
            async with world.stage() as stage:
                stage.server.on("/hang", HANG)
                stage.server.on("/half", HEAD + b"Content-Length: 5\r\n\r\nhal", HANG)
                await stage.follow()
                for path in ("/", "/hang", "/half", "/"):
                    stage.begin(path)
                await passes(count)
                await asyncio.wait_for(stage.upstream.close(), 10)
                assert all(told.outcomes for told in stage.told)
                late = stage.begin("/")
                assert isinstance(await late.over(), NotSent)

    world.run(go())


def test_closed_with_idle_connections(world: World) -> None:
    """Idle connections are closed too, and closing twice is closing once."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/slow", 0.005, ECHO)
            await asyncio.gather(*(stage.call("/slow") for _ in range(20)))
            assert stage.server.open == 20
            await asyncio.gather(stage.upstream.close(), stage.upstream.close())
            await stage.server.quiet()

    world.run(go())
