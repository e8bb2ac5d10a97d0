"""Calls that were certainly not sent, and the words that say why.

Rule: what happens before the request's first byte reaches the kernel is NotSent, whatever the upstream does.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from apiflux_grpc.core.outcome import CANCELLED, NO_CONNECTION, OUT_OF_TIME, Cause, NotSent, Unknown
from apiflux_grpc.core.units import SECOND
from tests.adapters.sender.answers.row import S
from tests.adapters.sender.ports import closed_port
from tests.adapters.sender.script import HANG
from tests.adapters.sender.stage import World
from tests.adapters.sender.waiting import passes, until


def test_a_refused_connection(both: World) -> None:
    """A refused connection is NotSent."""

    async def go() -> None:
        outcome = await both.ask(f"http://127.0.0.1:{closed_port()}")
        assert outcome == NotSent(Cause.UNREACHABLE, "can't connect: connection refused")

    both.run(go())


def test_an_unknown_host(both: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that isn't found is NotSent."""

    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def go() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
        assert await both.ask("http://nowhere.invalid") == NotSent(Cause.UNREACHABLE, "the host name was not found")

    both.run(go())


def test_a_server_without_tls(both: World) -> None:
    """A failed handshake is NotSent."""

    async def go() -> None:
        async with both.stage() as plain:
            plain.server.greeting = (b"this is not TLS\r\n", HANG)
            outcome = await both.ask(plain.server.url.replace("http:", "https:"))
            assert outcome == NotSent(Cause.UNREACHABLE, "the TLS handshake failed")

    both.run(go())


@pytest.mark.parametrize(
    ("timeout", "want"),
    [
        (3600 * SECOND, NotSent(Cause.UNREACHABLE, "connecting took too long")),
        (5 * SECOND, NO_CONNECTION),
    ],
    ids=["the pool's", "the call's"],
)
def test_connecting_takes_too_long(both: World, timeout: int, want: NotSent) -> None:
    """The time to connect is bounded, TLS included; past it, or past the call's own time, it is NotSent."""

    async def go() -> None:
        async with both.stage() as silent, both.upstream(silent.server.url.replace("http:", "https:")) as upstream:
            silent.server.mute = True
            told = silent.watch(upstream, timeout)
            await until(lambda: silent.server.peers)
            assert told.sent_at == []
            both.clock.advance(min(timeout, 10 * SECOND) + SECOND)
            assert await told.over() == want

    both.run(go())


def test_cancelled_while_connecting(both: World) -> None:
    """While a connection is being made a call isn't sent, and a cancel then is NotSent."""

    async def go() -> None:
        async with both.stage() as silent, both.upstream(silent.server.url.replace("http:", "https:")) as upstream:
            silent.server.mute = True
            told = silent.watch(upstream)
            await until(lambda: silent.server.peers)
            await passes()
            assert told.sent_at == []
            upstream.cancel(told)
            assert await told.over() == CANCELLED

    both.run(go())


def test_cancelled_in_the_step_of_its_begin(both: World) -> None:
    """Cancelled before its dial took a step, a call is NotSent, and nothing arrives."""

    async def go() -> None:
        async with both.stage() as stage:
            assert await stage.cancelled(stage.begin()) == CANCELLED

    both.run(go())


def test_not_sent_means_that_nothing_arrived(both: World) -> None:
    """Whenever the cancel comes: NotSent if nothing arrived, and anything else if it did."""

    async def go() -> None:
        async with both.stage() as stage:
            await stage.follow()
            told = []
            for count in range(30):
                told.append(stage.begin("/x", "POST", body=b"body"))
                await passes(count)
                await stage.cancelled(told[-1])
            await stage.upstream.close()
            await stage.server.quiet()
            seen = stage.server.seen()
            assert [seen[one.number] for one in told] == [not isinstance(one.outcomes[0], NotSent) for one in told]

    both.run(go())


def test_too_late(both: World) -> None:
    """A call whose time is up isn't sent, not even on a connection that is open."""

    async def go() -> None:
        async with both.stage() as stage:
            await stage.follow()
            assert await stage.call(timeout=0) == OUT_OF_TIME

    both.run(go())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"nonsense\r\n\r\n", "the answer is not HTTP"),
        (S + b"X: " + b"x" * 90_000, "the answer's head is too large"),
        (b"", "no answer in time"),
    ],
    ids=["nonsense", "a large head", "silence"],
)
def test_the_words_for_what_may_have_been_executed(ours: World, answer: bytes, words: str) -> None:
    """Without a valid head the outcome is Unknown, and says in words of ours what was wrong."""

    async def go() -> None:
        async with ours.stage() as stage:
            stage.server.on("/x", answer, HANG)
            told = stage.begin("/x")
            if not answer:
                await until(lambda: stage.server.requests)
                await stage.late(told)
            outcome = await told.over()
            assert isinstance(outcome, Unknown)
            assert outcome.detail == words

    ours.run(go())
