"""The token of a client: from a file that may change, and never over plaintext to another machine by mistake."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
import typer

from apiflux_grpc.cli.reach import token_of
from apiflux_grpc.client import Call, Client, PermissionDenied, SyncClient, TlsOptions, TokenFile, Unauthenticated
from apiflux_grpc.client.token import Tokens
from apiflux_grpc.core.callers import Access, Caller, Role, digest_of
from tests.server.serving import serving

OLD, NEW = "canary-old", "canary-new"


def caller(name: str, token: str, role: Role = Role.CALLER) -> Caller:
    return Caller(name, Access(role), (digest_of(token),))


async def test_a_token_is_rotated_while_a_client_is_open(tmp_path: Path) -> None:
    """Each request has the token that the file has then, in both clients; a refusal is an exception of its own."""
    file = tmp_path / "token"
    file.write_text(f"{OLD}\n")
    async with serving(callers=[caller("a", NEW)]) as server, Client(server.address, token=TokenFile(file)) as client:
        with pytest.raises(Unauthenticated) as caught:
            await client.info()
        assert "canary" not in f"{caught.value!r} {client!r} {TokenFile(file)!r}"
        file.write_text(NEW)
        assert (await client.info()).pools
        assert (await anext(client.repeat(1))).ok

        def use() -> None:
            with SyncClient(server.address, token=TokenFile(file)) as blocking:
                assert [result.ok for result in blocking.process([Call("/")])] == [True]
                assert blocking.info().pools

        await asyncio.to_thread(use)


async def test_who_may_not_is_told_so() -> None:
    """A reader can't send calls."""
    reader = caller("a", NEW, Role.READER)
    async with serving(callers=[reader]) as server, Client(server.address, token=NEW) as client:
        with pytest.raises(PermissionDenied):
            await anext(client.repeat(1))


@pytest.mark.parametrize("content", [None, "", "two words", "é"])
def test_a_file_that_goes_bad_leaves_the_token_that_was(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """As while it is being replaced; the log says so, without what it holds."""
    file = tmp_path / "token"
    file.write_text(OLD)
    token = TokenFile(file)
    file.unlink() if content is None else file.write_text(content)
    caplog.set_level(logging.WARNING)
    assert token.current() == OLD
    assert "can't be used" in caplog.text
    assert "canary" not in caplog.text
    file.write_text(NEW)
    assert token.current() == NEW
    with pytest.raises(OSError, match="nothing"):
        TokenFile(tmp_path / "nothing")


@pytest.mark.parametrize(
    "target", ["apiflux.example.com:50051", "10.0.0.1:1", ["127.0.0.1:1", "[::2]:1"], "dns:///a:1"]
)
def test_a_token_does_not_go_over_plaintext_to_another_machine(target: Any) -> None:
    """Unless that is asked for by name; over TLS, and without a token, nothing is asked."""
    with pytest.raises(ValueError, match="without TLS the token could be read") as caught:
        Client(target, token=OLD)
    assert "canary" not in str(caught.value)
    Client(target, token=OLD, plaintext_token=True)
    Client(target, token=OLD, tls=TlsOptions())
    Client(target)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:1"])
def test_this_machine_may_have_it_in_plaintext(target: str) -> None:
    """Nobody else is on the way."""
    Client(target, token=OLD)


def test_commands_take_the_file_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And refuse, before anything is connected, what must not be sent."""

    def told(file: Path | None, target: str = "localhost:1", **given: bool) -> Any:
        options = {"secure": False, "over_plaintext": False} | given
        token = token_of(file, [target], refused=4, **options)
        return Tokens(token).metadata

    file = tmp_path / "token"
    file.write_text(NEW)
    assert told(None) == ()
    monkeypatch.setenv("APIFLUX_TOKEN", OLD)
    assert told(None) == (("authorization", f"Bearer {OLD}"),)
    assert told(file) == (("authorization", f"Bearer {NEW}"),)
    with pytest.raises(typer.BadParameter, match="--plaintext-token"):
        told(None, "far:1")
    assert told(None, "far:1", secure=True) == told(None, "far:1", over_plaintext=True) == told(None)
    with pytest.raises(typer.BadParameter, match="can't be read"):
        told(tmp_path / "nothing")
    monkeypatch.setenv("APIFLUX_TOKEN", "two words")
    with pytest.raises(typer.Exit):
        told(None)
