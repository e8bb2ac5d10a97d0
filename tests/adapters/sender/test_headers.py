"""What of an answer's head comes out: its own headers, names in lower case, in their order."""

from __future__ import annotations

import gzip

import pytest

from apiflux_grpc.core.outcome import Answer
from tests.adapters.sender.answers.row import OK, S
from tests.adapters.sender.stage import World


def test_trailers_are_no_headers(world: World) -> None:
    """A trailer, which comes after the body, changes nothing of the head."""

    async def go() -> None:
        async with world.stage() as stage:
            head = S + b"X-A: head\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
            stage.server.on("/t", head + b"X-A: trailer\r\nX-B: trailer\r\n\r\n")
            outcome = await stage.call("/t")
            assert isinstance(outcome, Answer)
            assert outcome.headers["x-a"] == "head"
            assert "x-b" not in outcome.headers

    world.run(go())


def test_interim_headers_are_forgotten(world: World) -> None:
    """The headers of an interim answer aren't those of the answer."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/i", b"HTTP/1.1 103 Early\r\nX-A: early\r\nContent-Type: a/b\r\n\r\n" + OK)
            outcome = await stage.call("/i")
            assert isinstance(outcome, Answer)
            assert outcome.headers == {"content-length": "2"}

    world.run(go())


@pytest.mark.parametrize("name", [b"X", b"x", b"Set-Cookie"])
def test_headers(both: World, name: bytes) -> None:
    """Values are without the white space around them; a repeated name stays repeated, and reads as one joined value."""

    async def go() -> None:
        async with both.stage() as stage:
            lines = b"%s:1\r\n%s: 2  \r\n%s: \t3\t\r\nEmpty:  \r\n" % (name, name.upper(), name)
            stage.server.on("/h", S + lines + b"Content-Length: 2\r\n\r\nok")
            outcome = await stage.call("/h")
            assert isinstance(outcome, Answer)
            lower = name.decode().lower()
            kept = [(lower, "1"), (lower, "2"), (lower, "3"), ("empty", ""), ("content-length", "2")]
            assert list(outcome.headers.pairs) == kept
            assert outcome.headers == {lower: "1, 2, 3", "empty": "", "content-length": "2"}

    both.run(go())


def test_heads_with_endless_names(world: World) -> None:
    """However many names an upstream invents, each answer has its own."""

    async def go() -> None:
        async with world.stage() as stage:
            for number in range(300):
                name = f"x-{number}-{'x' * (number * 10)}"
                stage.server.on(f"/{number}", S + f"{name}: {number}\r\n".encode() + OK[len(S) :])
                for _ in range(2):
                    answer = await stage.answer(f"/{number}")
                    assert next(answer.headers.pairs) == (name, str(number))

    world.run(go())


def test_every_value_can_be_encoded(world: World) -> None:
    """Whatever bytes came, a header's value is text: UTF-8, or what isn't that in Latin-1."""

    async def go() -> None:
        async with world.stage() as stage:
            stage.server.on("/h", S + b"X-A: caf\xc3\xa9\r\nX-B: caf\xe9 \xff\r\nContent-Length: 0\r\n\r\n")
            headers = (await stage.answer("/h")).headers
            assert (headers["x-a"], headers["x-b"]) == ("caf\u00e9", "caf\u00e9 \u00ff")

    world.run(go())


def test_a_coding_that_was_undone_is_not_named(both: World) -> None:
    """A body that came compressed though nobody asked is decoded, and its head no longer says otherwise."""
    body = gzip.compress(b"hello")
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def go() -> None:
        async with both.stage() as stage:
            stage.server.on("/z", S + head + body)
            answer = await stage.answer("/z")
            assert (answer.body, answer.truncated, list(answer.headers.pairs)) == (b"hello", False, [])

    both.run(go())
